package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// ownTokenTime is how long a token is good that a command makes for itself; it
// is removed when the command ends, unless that is killed.
const ownTokenTime = 24 * time.Hour

// withClient runs f with a client of the running server: for the owner of
// ANTEROOM_TOKEN if that is set, else with a token that is made for the user
// that owner names, which only who may use the state directory can do.
func (a *app) withClient(ctx context.Context, s *settings.Settings, address, label string, owner func(*sqlite.DB) (store.User, error), f func(*client.Client) error) error {
	if address == "" {
		var err error
		if address, err = s.Server.LocalURL(); err != nil {
			return err
		}
	}
	token := store.Secret(os.Getenv(settings.EnvPrefix + "TOKEN"))
	if token == "" {
		own, revoke, err := a.ownToken(ctx, s.Server, label, owner)
		if err != nil {
			return fmt.Errorf("%w\n(or set ANTEROOM_TOKEN to an API token of yours; whoever runs the server makes one with anteroom token create --user NAME)", err)
		}
		defer revoke()
		token = own
	}
	c, err := client.New(address, token)
	if err != nil {
		return usagef("%v", err)
	}
	return f(c)
}

// ownToken makes a token for a user, and returns what removes it.
func (a *app) ownToken(ctx context.Context, cfg server.Config, label string, owner func(*sqlite.DB) (store.User, error)) (store.Secret, func(), error) {
	db, err := a.openState(ctx, cfg, false)
	if err != nil {
		return "", nil, err
	}
	u, err := owner(db)
	if err != nil {
		return "", nil, errors.Join(err, db.Close())
	}
	secret, t, err := newToken(ctx, db, u.ID, label, ownTokenTime)
	if err != nil {
		return "", nil, errors.Join(err, db.Close())
	}
	revoke := func() {
		ctx, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer done()
		if err := errors.Join(db.DeleteToken(ctx, u.ID, t.ID), db.Close()); err != nil && !errors.Is(err, store.ErrNotFound) {
			_, _ = fmt.Fprintf(a.err, "anteroom: this command's own token was not removed (anteroom token revoke %s does it): %v\n", t.ID, err)
		}
	}
	return secret, revoke, nil
}
