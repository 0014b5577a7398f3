package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"text/tabwriter"
	"time"

	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// withState reads the settings and runs f with the state directory's database,
// which a server may be using at the same time. Without create, a directory
// that holds none is an error: it is the wrong one.
func (a *app) withState(ctx context.Context, s *settings.Settings, create bool, f func(*sqlite.DB) error) error {
	if err := s.Load(); err != nil {
		return err
	}
	db, err := a.openState(ctx, s.Server, create)
	if err != nil {
		return err
	}
	return errors.Join(f(db), db.Close())
}

func (a *app) openState(ctx context.Context, cfg server.Config, create bool) (*sqlite.DB, error) {
	cfg.Logger = nil
	if !create {
		if _, err := os.Stat(server.DatabaseFile(cfg)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s holds no data of Anteroom: name the server's state directory with --state", cfg.StateDir)
		} else if err != nil {
			return nil, permission(err)
		}
	}
	db, err := server.OpenStore(ctx, cfg)
	return db, permission(err)
}

// permission tells who may, where the file system says that we may not.
func permission(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("only root may use the state directory: run this with sudo: %w", err)
	}
	return err
}

// userNamed returns a user by name, with an error that helps.
func userNamed(ctx context.Context, db *sqlite.DB, name string) (store.User, error) {
	u, err := db.UserByName(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return u, fmt.Errorf("there is no user %q: anteroom user list shows all, anteroom user add makes one", name)
	}
	return u, err
}

// table prints rows in columns under a head.
func (a *app) table(head string, rows []string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range append([]string{head}, rows...) {
		if _, err := fmt.Fprintln(w, row); err != nil {
			return err
		}
	}
	return w.Flush()
}

// when is a time as a table shows it.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
