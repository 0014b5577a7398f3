package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/httpapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/vault"
	"github.com/anteroom/anteroom/internal/ways"
)

type noWay struct{}

func (noWay) Use(string)  {}
func (noWay) Done(string) {}
func (noWay) Open(context.Context, string, *provider.File) (ways.Way, error) {
	return ways.Way{}, errors.New("there is none")
}
func (noWay) Serve(context.Context, egress.Identity, net.Listener) error { return nil }

// TestCanSignIn takes away, one after the other, what a sign-in needs.
func TestCanSignIn(t *testing.T) {
	dir := t.TempDir()
	cfg := Defaults()
	cfg.StateDir, cfg.Runsc = filepath.Join(dir, "state"), filepath.Join(dir, "runsc")
	golden := image.Image{Path: filepath.Join(dir, "image.erofs"), Size: 5}
	write := func(path, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write(cfg.Runsc, "#!/bin/false\n", 0o755)
	write(golden.Path, "image", 0o600)
	db, err := OpenStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = db.Close()
		}
	}()
	keys, err := vault.Open(vault.Config{KeyPath: filepath.Join(dir, "root.key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	files, err := provider.Load("")
	if err != nil {
		t.Fatal(err)
	}
	host := fake.NewHost("a build")
	defer host.Close()
	logger := slog.New(slog.DiscardHandler)
	service, err := control.New(control.Config{
		Database: db, Vault: keys, Providers: files, Machines: machine.NewManager(fake.NewDriver(host), logger),
		Egress: noWay{}, Ways: noWay{}, Logger: logger, StateDir: cfg.StateDir, Owner: "local",
	})
	if err != nil {
		t.Fatal(err)
	}
	ready := func() error { return canSignIn(t.Context(), cfg, DriverGVisor, db, service, golden) }

	if err := ready(); !errors.Is(err, session.ErrNotReady) {
		t.Errorf("before it has taken over: %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	late := time.After(30 * time.Second)
	for err := ready(); err != nil; err = ready() {
		select {
		case <-late:
			t.Fatalf("it does not become ready: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}

	write(golden.Path, "ima", 0o600)
	if err := ready(); !errors.Is(err, httpapi.ErrMachines) {
		t.Errorf("an image that was cut short: %v", err)
	}
	if err := os.Remove(golden.Path); err != nil {
		t.Fatal(err)
	}
	if err := ready(); !errors.Is(err, httpapi.ErrMachines) {
		t.Errorf("no image: %v", err)
	}
	write(golden.Path, "image", 0o600)
	if err := os.Remove(cfg.Runsc); err != nil {
		t.Fatal(err)
	}
	if err := ready(); !errors.Is(err, httpapi.ErrMachines) {
		t.Errorf("no runsc: %v", err)
	}
	write(cfg.Runsc, "#!/bin/false\n", 0o755)
	if err := ready(); err != nil {
		t.Errorf("all is back: %v", err)
	}

	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := ready(); !errors.Is(err, session.ErrNotReady) {
		t.Errorf("after its end: %v", err)
	}
	closed = true
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ready(); err == nil || errors.Is(err, session.ErrNotReady) || errors.Is(err, httpapi.ErrMachines) {
		t.Errorf("without a database: %v", err)
	}
}
