package sqlite

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func openAt(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func newPath(t *testing.T) string { return filepath.Join(t.TempDir(), "anteroom.db") }

// raw runs SQL on the file as somebody else would.
func raw(t *testing.T, path, query string, args ...any) {
	t.Helper()
	c, err := connector(path, "immediate", nil)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// storing makes a user with a session in the state storing.
func storing(t *testing.T, db *DB, user string) session.Session {
	t.Helper()
	return storingFor(t, db, user, "claude")
}

func storingFor(t *testing.T, db *DB, user, provider string) session.Session {
	t.Helper()
	ctx := t.Context()
	u, err := db.UserByName(ctx, user)
	if errors.Is(err, store.ErrNotFound) {
		u, err = db.CreateUser(ctx, user)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := db.CreateSession(ctx, session.Session{UserID: u.ID, Provider: provider}, "")
	for _, to := range []session.State{session.Starting, session.Waiting, session.Capturing, session.Storing} {
		if err == nil {
			s, err = db.Move(ctx, s.ID, s.State, to, "", store.Change{}, "")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealedFor(s session.Session, version int, text []byte) store.Credential {
	return store.Credential{ID: string(session.NewID()), UserID: s.UserID, Provider: s.Provider, Version: version, Sealed: store.Sealed{
		Schema: 1, KEKID: "kek1", WrappedDEK: []byte("wrapped-" + s.ID), Ciphertext: text, SHA256: sha256.Sum256(text)}}
}

func commit(t *testing.T, db *DB, s session.Session, version int, text []byte) store.Credential {
	t.Helper()
	_, c, err := db.CommitCredential(t.Context(), s.ID, "", sealedFor(s, version, text), "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestOpenModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c=d#e%20é")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "anteroom.db")
	db := openAt(t, path)
	if _, err := db.CreateUser(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + "-wal", path + "-shm"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", filepath.Base(name), info.Mode().Perm())
		}
	}
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1", "temp_store": "2", "integrity_check": "ok"} {
		var got string
		if err := db.writer.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("writer's %s is %q (%v), want %q", pragma, got, err, want)
		}
	}
	if _, err := db.reader.ExecContext(t.Context(), "DELETE FROM users"); err == nil {
		t.Error("a reader can write")
	}
}

func TestOpenRefuses(t *testing.T) {
	newer, foreign, garbage := newPath(t), newPath(t), newPath(t)
	db := openAt(t, newer)
	if _, err := db.CreateUser(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw(t, newer, "PRAGMA user_version=99")
	raw(t, foreign, "CREATE TABLE recipes (name TEXT)")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("not a database. "), 100), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		path string
		want error
	}{
		"newer schema":       {newer, store.ErrNewerSchema},
		"another program's":  {foreign, store.ErrInvalid},
		"garbage":            {garbage, nil},
		"no path":            {"", store.ErrInvalid},
		"a directory":        {t.TempDir(), nil},
		"missing directory":  {filepath.Join(t.TempDir(), "missing", "x.db"), os.ErrNotExist},
		"newer schema again": {newer, store.ErrNewerSchema},
	} {
		before, _ := os.ReadFile(test.path)
		db, err := Open(t.Context(), Config{Path: test.path})
		if err == nil {
			db.Close()
			t.Fatalf("%s: opened", name)
		}
		if test.want != nil && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if after, _ := os.ReadFile(test.path); !bytes.Equal(before, after) {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestOpenTogether(t *testing.T) {
	path := newPath(t)
	errs := make(chan error)
	for range 4 {
		go func() {
			db, err := Open(t.Context(), Config{Path: path})
			if err == nil {
				err = db.Close()
			}
			errs <- err
		}()
	}
	for range 4 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// fill commits credentials, each of another provider, until the disk is full,
// and checks that the refused commit left nothing and that the database works
// again with room.
func fill(t *testing.T, db *DB, makeRoom func()) {
	t.Helper()
	ctx := t.Context()
	text := bytes.Repeat([]byte("x"), 64<<10)
	for n := 1; ; n++ {
		if n > 1000 {
			t.Fatal("the disk never filled")
		}
		s, _, err := db.CreateSession(ctx, session.Session{UserID: db.onlyUser(t), Provider: fmt.Sprint("tool", n)}, "")
		for _, to := range []session.State{session.Starting, session.Waiting, session.Capturing, session.Storing} {
			if err == nil {
				s, err = db.Move(ctx, s.ID, s.State, to, "", store.Change{}, "")
			}
		}
		if err == nil {
			_, _, err = db.CommitCredential(ctx, s.ID, "", sealedFor(s, 1, text), "")
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, store.ErrDiskFull) {
			t.Fatalf("the error is %v, want %v", err, store.ErrDiskFull)
		}
		checkWhole(t, db, n-1)
		makeRoom()
		commit(t, db, storing(t, db, "u"), 1, text)
		checkWhole(t, db, n)
		return
	}
}

func (db *DB) onlyUser(t *testing.T) string {
	t.Helper()
	users, err := db.Users(t.Context())
	if err != nil || len(users) != 1 {
		t.Fatalf("users: %v %v", users, err)
	}
	return users[0].ID
}

// checkWhole checks that there are n credentials, that all that belongs to one
// was written with it, and that the file is sound.
func checkWhole(t *testing.T, db *DB, n int) {
	t.Helper()
	ctx := t.Context()
	report, err := db.VerifyAudit(ctx)
	if err != nil || report.Credentials != n {
		t.Fatalf("audited %d credentials (%v), want %d", report.Credentials, err, n)
	}
	var rows, delivering, events, moved int
	err = db.reader.QueryRowContext(ctx, `SELECT (SELECT count(*) FROM provider_credentials),
		(SELECT count(*) FROM auth_sessions WHERE state = 'delivering'),
		(SELECT count(*) FROM events WHERE kind = 'credential_stored'),
		(SELECT count(*) FROM events WHERE state = 'delivering')`).Scan(&rows, &delivering, &events, &moved)
	if err != nil || rows != n || delivering != n || events != n || moved != n {
		t.Fatalf("%d rows, %d sessions, %d and %d events (%v), want %d of each", rows, delivering, events, moved, err, n)
	}
	var sound string
	if err := db.reader.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&sound); err != nil || sound != "ok" {
		t.Fatalf("integrity: %s %v", sound, err)
	}
}

func TestDiskFullPages(t *testing.T) {
	db := openAt(t, newPath(t))
	if _, err := db.CreateUser(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	setMax := func(pages int) {
		if _, err := db.writer.ExecContext(t.Context(), fmt.Sprintf("PRAGMA max_page_count=%d", pages)); err != nil {
			t.Fatal(err)
		}
	}
	setMax(200)
	fill(t, db, func() { setMax(10000) })
}

func TestDiskFullReally(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1536k"); err != nil {
		t.Skipf("cannot mount a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	db := openAt(t, filepath.Join(dir, "anteroom.db"))
	if _, err := db.CreateUser(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	fill(t, db, func() {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=16m"); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDeletedIsGone looks for secrets that were replaced, and then deleted, in
// the bytes of all files.
func TestDeletedIsGone(t *testing.T) {
	path := newPath(t)
	db := openAt(t, path)
	small, large := []byte("small-ciphertext-marker"), bytes.Repeat([]byte("large-ciphertext-marker!"), 4000)
	first := commit(t, db, storing(t, db, "u"), 1, small)
	find := func(want bool, markers ...string) {
		t.Helper()
		for _, m := range markers {
			if inFiles(t, path, m) != want {
				t.Errorf("%s is in the files: %t, want %t", m, !want, want)
			}
		}
	}
	ofFirst := []string{"small-ciphertext-marker", "wrapped-" + string(first.SessionID)}
	find(true, ofFirst...)
	second := commit(t, db, storing(t, db, "u"), 2, large)
	ofSecond := []string{"large-ciphertext-marker!", "wrapped-" + string(second.SessionID)}
	find(true, ofSecond...)
	find(false, ofFirst...) // it was replaced
	if err := db.DeleteCredential(t.Context(), second.UserID, second.ID); err != nil {
		t.Fatal(err)
	}
	find(false, ofSecond...)
}

// TestDeletedIsGoneLater: a reader of another process holds the WAL open.
func TestDeletedIsGoneLater(t *testing.T) {
	path := newPath(t)
	db, other := openAt(t, path), openAt(t, path)
	c := commit(t, db, storing(t, db, "u"), 1, []byte("ciphertext-marker"))
	held, err := other.reader.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if err := held.QueryRowContext(t.Context(), "SELECT count(*) FROM users").Scan(&n); err != nil {
		t.Fatal(err)
	}
	// The deletion must not wait for the reader longer than its context.
	if _, err := db.writer.ExecContext(t.Context(), "PRAGMA busy_timeout=1"); err != nil {
		t.Fatal(err)
	}
	if err := db.DeleteCredential(t.Context(), c.UserID, c.ID); err != nil {
		t.Fatal(err)
	}
	if !inFiles(t, path, "ciphertext-marker") {
		t.Fatal("the reader did not hold anything: the test shows nothing")
	}
	if err := held.Rollback(); err != nil {
		t.Fatal(err)
	}
	db.rescrub(t.Context())
	if inFiles(t, path, "ciphertext-marker") {
		t.Error("the secret is still in the files")
	}
}

func inFiles(t *testing.T, path, marker string) bool {
	t.Helper()
	found := false
	for _, suffix := range []string{"", "-wal", "-shm"} {
		b, err := os.ReadFile(path + suffix)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		found = found || bytes.Contains(b, []byte(marker))
	}
	return found
}

const killEnv = "ANTEROOM_TEST_SQLITE_WRITER"

// TestKilledWriter is its own victim: run with killEnv it commits credentials
// for ever and says so on stdout.
func TestKilledWriter(t *testing.T) {
	if path := os.Getenv(killEnv); path != "" {
		db := openAt(t, path)
		for n := 1; ; n++ {
			commit(t, db, storingFor(t, db, "u", fmt.Sprint("tool", n)), 1, bytes.Repeat([]byte{byte(n)}, 8<<10))
			fmt.Println("committed", n)
		}
	}
	path := newPath(t)
	for round := range 3 {
		if round > 0 { // each round begins with an empty database
			path = newPath(t)
		}
		acknowledged := killWriter(t, path, 3+4*round)
		db := openAt(t, path)
		report, err := db.VerifyAudit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// What was being committed when the kill came may be there; whole.
		if report.Credentials != acknowledged && report.Credentials != acknowledged+1 {
			t.Fatalf("%d credentials, acknowledged %d", report.Credentials, acknowledged)
		}
		checkWhole(t, db, report.Credentials)
	}
}

// killWriter runs a writer until it has acknowledged n commits, kills it and
// returns how many it has acknowledged.
func killWriter(t *testing.T, path string, n int) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := osexec.CommandContext(ctx, os.Args[0], "-test.run=^TestKilledWriter$")
	cmd.Env = append(os.Environ(), killEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	acknowledged := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if !strings.HasPrefix(lines.Text(), "committed ") {
			continue
		}
		if acknowledged++; acknowledged == n {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || acknowledged < n {
		t.Fatalf("the writer ended by itself (%v) after %d commits", err, acknowledged)
	}
	return acknowledged
}
