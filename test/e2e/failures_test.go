package e2e

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// TestFailures makes sessions fail in the ways that a person can meet. Each
// ends with its code, its sentence in the page and nothing left; and a new try
// works.
func TestFailures(t *testing.T) {
	tests := []struct {
		name     string
		provider idp.Provider
		reason   session.Reason
		// spoil has a session fail whose page is open, and may return what ends
		// the cause again.
		spoil func(t *testing.T, ctx context.Context, who people.Person, id string)
	}{
		{"cancelled", idp.Claude, session.ReasonCancelled, func(t *testing.T, ctx context.Context, who people.Person, _ string) {
			must(t, who.Page.WaitSignInPage(ctx, idp.Claude))
			must(t, who.Page.Cancel(ctx))
		}},
		{"cancelled while starting", idp.Codex, session.ReasonCancelled, func(t *testing.T, ctx context.Context, who people.Person, _ string) {
			must(t, who.Page.Cancel(ctx))
		}},
		{"the provider refuses the sign-in", idp.Codex, session.ReasonLoginExited, func(t *testing.T, ctx context.Context, who people.Person, _ string) {
			fail(t, idp.Codex, idp.AtToken, idp.Fault{Refuse: true})
			signInHere(t, ctx, who, idp.Codex)
		}},
		{"the provider answers garbage", idp.Claude, session.ReasonLoginExited, func(t *testing.T, ctx context.Context, who people.Person, _ string) {
			fail(t, idp.Claude, idp.AtToken, idp.Fault{Garbage: true})
			signInHere(t, ctx, who, idp.Claude)
		}},
		{"the provider breaks off", idp.Gemini, session.ReasonLoginExited, func(t *testing.T, ctx context.Context, who people.Person, _ string) {
			fail(t, idp.Gemini, idp.AtToken, idp.Fault{Drop: true})
			signInHere(t, ctx, who, idp.Gemini)
		}},
		{"the tool is killed", idp.Codex, session.ReasonLoginExited, func(t *testing.T, ctx context.Context, who people.Person, id string) {
			must(t, who.Page.WaitSignInPage(ctx, idp.Codex))
			s, err := who.Session(ctx, id)
			must(t, err)
			_, err = shared.rig.Inside(ctx, s.VMID, "pkill", "-KILL", "-x", "codex")
			must(t, err)
		}},
		{"the machine is killed", idp.Claude, session.ReasonMachineLost, func(t *testing.T, ctx context.Context, who people.Person, id string) {
			must(t, who.Page.WaitSignInPage(ctx, idp.Claude))
			killMachine(t, ctx, id)
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx := limit(t, 2*time.Minute)
			who := newPerson(t, ctx, shared.rig, "failure-"+strings.ReplaceAll(test.name, " ", "-"))
			id, err := who.Page.Connect(ctx, string(test.provider))
			must(t, err)
			test.spoil(t, ctx, who, id)
			ended(t, ctx, shared.rig, who, test.reason)
			shared.rig.IDP.ClearFaults()
			tryAgain(t, ctx, who, test.provider)
		})
	}
}

func fail(t *testing.T, provider idp.Provider, at idp.Stage, fault idp.Fault) {
	t.Helper()
	shared.rig.IDP.SetFault(provider, at, fault)
	t.Cleanup(shared.rig.IDP.ClearFaults)
}

func signInHere(t *testing.T, ctx context.Context, who people.Person, provider idp.Provider) {
	t.Helper()
	must(t, who.Page.WaitSignInPage(ctx, provider))
	must(t, who.Page.SignInAt(ctx, provider, who.Email(), idp.DefaultPassword))
}

// killMachine kills the session's machine: its sandbox's process on this host.
func killMachine(t *testing.T, ctx context.Context, id string) {
	t.Helper()
	s, err := shared.rig.DB().Session(ctx, session.ID(id))
	must(t, err)
	vm, err := shared.rig.DB().VM(ctx, s.VMID)
	must(t, err)
	var ref struct {
		PID int `json:"pid"`
	}
	must(t, json.Unmarshal(vm.Ref, &ref))
	args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(ref.PID), "cmdline"))
	must(t, err)
	if !strings.Contains(string(args), vm.ID) {
		t.Fatalf("process %d is not machine %s: %q", ref.PID, vm.ID, args)
	}
	must(t, syscall.Kill(ref.PID, syscall.SIGKILL))
}

// ended wants the session that the page shows to have ended for a reason, and
// nothing of its machine to be left.
func ended(t *testing.T, ctx context.Context, rig *harness.Rig, who people.Person, want session.Reason) {
	t.Helper()
	who.Ended(t, ctx, want)
	must(t, who.Page.WaitDestroyed(ctx))
	must(t, rig.WaitNoBrowserMachines(ctx))
}

func tryAgain(t *testing.T, ctx context.Context, who people.Person, provider idp.Provider) {
	t.Helper()
	_, err := who.Page.TryAgain(ctx)
	must(t, err)
	signInHere(t, ctx, who, provider)
	who.Completed(t, ctx)
}

// endingTools end before anybody could sign in to them: the scripts that they are.
var endingTools = map[string]string{
	"broken": "echo This tool is broken. >&2; exit 3",
	"silent": "exit 0", // and has signed in to nothing
}

// sites are the hosts that they need: a tool is not started whose hosts cannot
// be reached; and that of the page to type on.
func sites() map[string]http.Handler {
	sites := map[string]http.Handler{typingHost: &typing}
	for name := range endingTools {
		sites[name+".example"] = http.NotFoundHandler()
	}
	return sites
}

// providerFile is a provider file whose sign-in is a shell's script.
const providerFile = `name: %[1]s
title: Tool %[1]s
vendor: Nobody
terms: https://%[1]s.example/terms
version: "1"
login: {argv: [sh, -c, %[2]q], dialogue: none, flow: loopback, timeout: 5m, exits_on_success: true}
url: {hooks: [BROWSER], hosts: [%[1]s.example]}
files: [{name: token, path: .%[1]s/token, required: true, secret: true}]
target: {private_dirs: [{path: .%[1]s}]}
refresh: {rotates: false}
hosts: [%[1]s.example]
`

// TestToolEnds has tools that end by themselves before the person can do a
// thing.
func TestToolEnds(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	dir := t.TempDir()
	for name, script := range endingTools {
		must(t, os.WriteFile(filepath.Join(dir, name+".yaml"), fmt.Appendf(nil, providerFile, name, script), 0o600))
	}
	who := newPerson(t, ctx, shared.rig, "tool-ends")
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx, "--providers-dir", dir))
	for name := range endingTools {
		must(t, who.Page.Home(ctx))
		_, err := who.Page.Connect(ctx, name)
		must(t, err)
		ended(t, ctx, shared.rig, who, session.ReasonLoginExited)
	}
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx))
}

// TestNoMemory starts the server where there is not enough memory for a machine.
func TestNoMemory(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	who := newPerson(t, ctx, shared.rig, "no-memory")
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx, "--min-free-memory", "64TiB"))
	must(t, who.Page.Home(ctx))
	_, err := who.Page.Connect(ctx, string(idp.Claude))
	must(t, err)
	ended(t, ctx, shared.rig, who, session.ReasonNoMemory)
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx))
	tryAgain(t, ctx, who, idp.Claude)
}

// TestDiskFull fills the server's disk while a person signs in.
func TestDiskFull(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	rig, err := harness.Start(ctx, harness.Config{StateBytes: 640 << 20})
	must(t, err)
	t.Cleanup(func() {
		if err := rig.Close(); err != nil {
			t.Error(err)
		}
	})
	who := newPerson(t, ctx, rig, "disk-full")
	id := who.Begin(t, ctx, idp.Claude)
	free := fill(t, rig.StateDir(), 100<<20) // machines want more
	must(t, who.Page.SignInAt(ctx, idp.Claude, who.Email(), idp.DefaultPassword))
	// What was begun is finished as far as it can be: it is stored, and the
	// machine to deliver it to cannot be made.
	ended(t, ctx, rig, who, session.ReasonDiskFull)
	if c := active(t, ctx, who, idp.Claude); string(c.SessionID) != id || c.DeliveredTo != "" {
		t.Errorf("the credential is %+v, want one of session %s that is not delivered", c, id)
	}
	must(t, who.Page.Home(ctx))
	_, err = who.Page.Connect(ctx, string(idp.Claude))
	must(t, err)
	ended(t, ctx, rig, who, session.ReasonDiskFull)
	free()
	tryAgain(t, ctx, who, idp.Claude)
}

// TestExpired lets a sign-in's time run out.
func TestExpired(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	who := newPerson(t, ctx, shared.rig, "expired")
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx, "--session-time", "1m"))
	must(t, who.Page.Home(ctx))
	who.Begin(t, ctx, idp.Codex)
	must(t, shared.rig.Stop(ctx))
	must(t, shared.rig.Restart(ctx)) // its deadline is written down
	ended(t, ctx, shared.rig, who, session.ReasonExpired)
	tryAgain(t, ctx, who, idp.Codex)
}

// fill takes all but rest bytes of what is free on dir's file system, until
// free or the test's end.
func fill(t *testing.T, dir string, rest int64) (free func()) {
	t.Helper()
	var stat unix.Statfs_t
	must(t, unix.Statfs(dir, &stat))
	file := filepath.Join(dir, "filled")
	f, err := os.Create(file)
	must(t, err)
	must(t, unix.Fallocate(int(f.Fd()), 0, 0, int64(stat.Bavail)*stat.Bsize-rest))
	must(t, f.Close())
	free = func() { _ = os.Remove(file) }
	t.Cleanup(free)
	return free
}

// TestDiskFullToTheLastByte leaves nothing of the server's disk while a person
// is asked to sign in, and they do: not even a failure can be written. Once there
// is room again the session goes on, on the same machine, and completes.
func TestDiskFullToTheLastByte(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	rig, err := harness.Start(ctx, harness.Config{StateBytes: 640 << 20})
	must(t, err)
	t.Cleanup(func() {
		if err := rig.Close(); err != nil {
			t.Error(err)
		}
	})
	who := newPerson(t, ctx, rig, "last-byte")
	id := who.Begin(t, ctx, idp.Codex)
	before, err := who.Session(ctx, id)
	must(t, err)

	truncateLog(t, ctx, rig) // which has room in it
	free := fill(t, rig.StateDir(), 0)
	if err := os.WriteFile(filepath.Join(rig.StateDir(), "probe"), []byte("x"), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("there is room for one more byte (%v): the test shows nothing", err)
	}
	var refused *client.Problem
	if _, err := who.StartSession(ctx, string(idp.Claude)); !errors.As(err, &refused) || refused.Code != "disk_full" {
		t.Errorf("another session: %v, want disk_full", err)
	}
	must(t, who.Page.SignInAt(ctx, idp.Codex, who.Email(), idp.DefaultPassword))
	must(t, harness.Until(ctx, func() error {
		if !strings.Contains(rig.LogTail(1000), store.ErrDiskFull.Error()) {
			return errors.New("the server has not met the full disk")
		}
		return nil
	}))
	now, err := who.Session(ctx, id)
	must(t, err)
	if now.State != session.Waiting || now.VMID != before.VMID {
		t.Errorf("the session is %s on machine %s, want waiting on %s", now.State, now.VMID, before.VMID)
	}

	free()
	who.Completed(t, ctx)
	if now, err = who.Session(ctx, id); err != nil || now.VMID != before.VMID {
		t.Errorf("the session's machine is %q, and was %q (%v)", now.VMID, before.VMID, err)
	}
	if c := active(t, ctx, who, idp.Codex); string(c.SessionID) != id || c.Version != 1 || c.DeliveredTo == "" {
		t.Errorf("the credential is %+v, want version 1 of session %s, delivered", c, id)
	}
	if out := who.Run(t, ctx, "codex login status"); !strings.Contains(out, "Logged in") {
		t.Errorf("codex says %q", out)
	}
	isWhole(t, ctx, rig)
}

// beside opens the server's database without the server's code.
func beside(t *testing.T, rig *harness.Rig) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(rig.StateDir(), "anteroom.db"))
	must(t, err)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// truncateLog moves what is in SQLite's write-ahead log into the database, and
// leaves the log empty: the next write needs room.
func truncateLog(t *testing.T, ctx context.Context, rig *harness.Rig) {
	t.Helper()
	db := beside(t, rig)
	must(t, harness.Until(ctx, func() error {
		var busy, pages, moved int
		err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
		if err == nil && busy != 0 {
			err = errors.New("somebody reads the write-ahead log")
		}
		return err
	}))
	must(t, db.Close())
}

// isWhole checks the database as SQLite does, and its audit chain.
func isWhole(t *testing.T, ctx context.Context, rig *harness.Rig) {
	t.Helper()
	var said string
	must(t, beside(t, rig).QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&said))
	if said != "ok" {
		t.Errorf("integrity_check: %s", said)
	}
	if report, err := rig.DB().VerifyAudit(ctx); err != nil || report.Entries == 0 {
		t.Errorf("the audit chain: %+v, %v", report, err)
	}
}
