package main

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite" // for a database that a newer program wrote

	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/settings"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"anteroom": main})
}

// TestScripts runs the real main. Each script is of one command or fault; see
// testdata.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, pair := range os.Environ() {
				if name, _, _ := strings.Cut(pair, "="); strings.HasPrefix(name, settings.EnvPrefix) {
					e.Setenv(name, "")
				}
			}
			e.Setenv("ANTEROOM_STATE", filepath.Join(e.WorkDir, "state"))
			return nil
		},
		Condition: func(c string) (bool, error) {
			if c == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"newer":   cmdNewer,
			"lock":    cmdLock,
			"listen":  cmdListen,
			"session": cmdSession,
			"rc":      cmdRC,
		},
	})
}

// cmdNewer makes the state directory's database one of a newer program.
func cmdNewer(ts *testscript.TestScript, _ bool, _ []string) {
	db, err := sql.Open("sqlite", filepath.Join(ts.Getenv("ANTEROOM_STATE"), "anteroom.db"))
	ts.Check(err)
	_, err = db.Exec("PRAGMA user_version=9999")
	ts.Check(err)
	ts.Check(db.Close())
}

// cmdLock holds the state directory as a running server does.
func cmdLock(ts *testscript.TestScript, _ bool, _ []string) {
	dir := ts.Getenv("ANTEROOM_STATE")
	ts.Check(os.MkdirAll(dir, 0o700))
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	ts.Check(err)
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	ts.Defer(func() { _ = f.Close() })
}

// cmdListen takes a port and puts the address into $ADDRESS.
func cmdListen(ts *testscript.TestScript, _ bool, _ []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	ts.Setenv("ADDRESS", l.Addr().String())
}

// cmdSession makes a session of a user and puts its id into $SESSION.
func cmdSession(ts *testscript.TestScript, _ bool, args []string) {
	cfg := server.Defaults()
	cfg.StateDir = ts.Getenv("ANTEROOM_STATE")
	ctx := context.Background()
	db, err := server.OpenStore(ctx, cfg)
	ts.Check(err)
	u, err := db.UserByName(ctx, args[0])
	ts.Check(err)
	one, _, err := db.CreateSession(ctx, session.Session{ID: session.NewID(), UserID: u.ID, Provider: "claude", State: session.Requested}, "")
	ts.Check(err)
	_, err = db.AddEvent(ctx, session.Event{UserID: u.ID, SessionID: one.ID, Kind: session.EventLog, Message: "steer\x1b[2Jthe terminal"})
	ts.Check(err)
	ts.Check(db.Close())
	ts.Setenv("SESSION", string(one.ID))
}

// cmdRC runs anteroom and compares its exit code: rc CODE args...
func cmdRC(ts *testscript.TestScript, _ bool, args []string) {
	want := args[0]
	err := ts.Exec("anteroom", args[1:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != want {
		ts.Fatalf("exit code %s, want %s", got, want)
	}
}
