//go:build linux

package guest

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/provider"
)

// privateRig is a home with private directories on a real tmpfs, or where the
// kernel lets the test have none, in plain directories that stand for it.
type privateRig struct {
	t    *testing.T
	user User
	logs syncBuffer
	cfg  PrivateConfig
	dirs *PrivateDirs
	real bool
}

// syncBuffer is a buffer for a logger that several goroutines share with the
// test.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newPrivateRig(t *testing.T, user User, files ...*provider.File) *privateRig {
	t.Helper()
	r := &privateRig{t: t, user: user, real: true}
	r.cfg = PrivateConfig{User: user, Files: files, Logger: slog.New(slog.NewTextHandler(&r.logs, nil)), settle: 20 * time.Millisecond}
	r.cfg.mount = func(target string, uid, gid int) error {
		err := mountMemory(target, uid, gid)
		if errors.Is(err, unix.EPERM) {
			t.Log("no right to mount: plain directories instead of tmpfs")
			r.real = false
			return nil
		}
		return err
	}
	r.cfg.isMemory = func(dir *os.File) error {
		if !r.real {
			return nil
		}
		return inMemory(dir)
	}
	return r
}

// boot is the machine's start; shutdown its end, when what is in memory goes.
func (r *privateRig) boot() {
	r.t.Helper()
	var err error
	if r.dirs, err = OpenPrivateDirs(r.cfg); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(r.shutdown)
}

func (r *privateRig) shutdown() {
	if r.dirs == nil {
		return
	}
	r.dirs.Close()
	r.dirs = nil
	for _, f := range r.cfg.Files {
		for _, d := range f.Target.PrivateDirs {
			dir := filepath.Join(r.user.Home, d.Path)
			if err := unix.Unmount(dir, 0); err != nil && r.real {
				r.t.Errorf("unmounting %s: %v", dir, err)
			}
			if err := os.RemoveAll(dir); err != nil {
				r.t.Error(err)
			}
		}
	}
}

func (r *privateRig) path(p string) string { return filepath.Join(r.user.Home, p) }

func (r *privateRig) read(p string) string {
	b, err := os.ReadFile(r.path(p))
	if err != nil {
		return "(" + err.Error() + ")"
	}
	return string(b)
}

// onDisk is everything that lies on the persistent home.
func (r *privateRig) onDisk() string {
	r.t.Helper()
	if r.dirs != nil {
		r.t.Fatal("only after shutdown")
	}
	var all strings.Builder
	err := filepath.WalkDir(r.user.Home, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var b []byte
			b, err = os.ReadFile(path)
			all.WriteString(path + "\n" + string(b) + "\n")
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all.String()
}

func TestPrivateDirsKeepWhatIsHarmless(t *testing.T) {
	const token = "top-secret-token-0123456789"
	f := toolFile(t, nil)
	u := testUser(t)
	r := newPrivateRig(t, u, f)
	r.boot()
	if info, err := os.Stat(r.path(".tool")); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("%v %v", info, err)
	}
	if got := r.read(".tool/settings.json") + r.read(".toolrc"); got != `{"seeded":true}seeded` {
		t.Errorf("seeds: %q", got)
	}
	for path, content := range map[string]string{
		".tool/creds.json":          `{"token":"` + token + `"}`,
		".tool/creds.json.tmp.123":  `{"token":"` + token + `"}`,
		".tool/.creds.json.new":     `{"token":"` + token + `"}`,
		".tool/account.json":        `{"email":"ann@example.com"}`,
		".tool/debug.log":           "got " + token,
		".tool/held.lock":           "1",
		".tool/settings.json":       `{"seeded":true,"theme":"dark"}`,
		".tool/data/history/1.json": "a conversation",
		".tool/other/x":             "not kept",
	} {
		put(t, u, path, content)
	}
	if err := os.WriteFile(r.path(".tool/run.sh"), []byte("#!/bin/sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(r.path(".tool/run.sh"), u.UID, u.GID); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", r.path(".tool/link")); err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	if disk := r.onDisk(); strings.Contains(disk, token) || strings.Contains(disk, "ann@example.com") || strings.Contains(disk, "not kept") || strings.Contains(disk, "held.lock") {
		t.Errorf("on disk:\n%s", disk)
	}
	if !strings.Contains(r.logs.String(), "it holds a secret") {
		t.Errorf("log: %s", r.logs.String())
	}
	r.boot()
	if got := r.read(".tool/settings.json") + r.read(".tool/data/history/1.json") + r.read(".tool/run.sh"); got != `{"seeded":true,"theme":"dark"}a conversation#!/bin/sh` {
		t.Errorf("after a restart: %q", got)
	}
	if info, err := os.Stat(r.path(".tool/run.sh")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("mode after a restart: %v %v", info, err)
	}
	for _, gone := range []string{".tool/creds.json", ".tool/account.json", ".tool/debug.log", ".tool/link", ".tool/other"} {
		if _, err := os.Lstat(r.path(gone)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is there after a restart: %v", gone, err)
		}
	}
	// A file that is taken away stays away.
	if err := os.Remove(r.path(".tool/run.sh")); err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	r.boot()
	if _, err := os.Stat(r.path(".tool/run.sh")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a removed file came back: %v", err)
	}
}

// Changes are copied while the machine runs, not only at its end: it may be
// killed.
func TestPrivateDirsCopyAsFilesChange(t *testing.T) {
	u := testUser(t)
	r := newPrivateRig(t, u, toolFile(t, nil))
	r.boot()
	kept := r.path(keptDir + "/.tool/notes.md")
	for _, content := range []string{"one", "two, and longer", "three"} {
		put(t, u, ".tool/notes.md", content)
		waitFor(t, "the copy of "+content, func() bool {
			b, err := os.ReadFile(kept)
			return err == nil && string(b) == content
		})
	}
}

// A file that grows beyond what is kept does not take its last copy with it.
func TestPrivateDirsKeepTheLastCopy(t *testing.T) {
	u := testUser(t)
	r := newPrivateRig(t, u, toolFile(t, nil))
	r.boot()
	put(t, u, ".tool/history", "small")
	r.dirs.Close()
	if err := os.Truncate(r.path(".tool/history"), maxKeptFile+1); err != nil {
		t.Fatal(err)
	}
	r.boot()
	r.shutdown()
	r.boot()
	if got := r.read(".tool/history"); got != "small" {
		t.Errorf("%d bytes", len(got))
	}
}

// waitFor looks again and again until ok, for at most 30 s.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick, limit := time.NewTicker(5*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("waiting for ", what)
		}
	}
}

// What a person (or something in their name) left in the persistent home must
// not lead root anywhere.
func TestPrivateDirsAmongTraps(t *testing.T) {
	u := testUser(t)
	outside := openTempDir(t)
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("root's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, u, keptDir+"/.tool/good", "good")
	kept := filepath.Join(u.Home, keptDir, ".tool")
	for link, to := range map[string]string{
		filepath.Join(u.Home, ".tool"):   outside,
		filepath.Join(kept, "stolen"):    secret,
		filepath.Join(kept, "data"):      outside,
		filepath.Join(u.Home, ".toolrc"): filepath.Join(outside, "made"),
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(secret, filepath.Join(kept, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(kept, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newPrivateRig(t, u, toolFile(t, nil))
	r.boot()
	if info, err := os.Lstat(r.path(".tool")); err != nil || !info.IsDir() {
		t.Fatalf("%v %v", info, err)
	}
	if got := r.read(".tool/good"); got != "good" {
		t.Errorf("good: %q", got)
	}
	for _, name := range []string{"stolen", "pipe"} {
		if _, err := os.Lstat(r.path(".tool/" + name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s was restored: %v", name, err)
		}
	}
	if os.Getuid() == 0 {
		if _, err := os.Lstat(r.path(".tool/hard")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("another user's file was restored: %v", err)
		}
	}
	put(t, u, ".tool/data/x", "x")
	entries, err := os.ReadDir(outside)
	if err != nil || len(entries) != 1 {
		t.Errorf("outside: %v %v", entries, err)
	}
}

// What a tool needs in a file is added to what the person has in it, whose
// choices stay.
func TestSeedsAreMerged(t *testing.T) {
	u := testUser(t)
	put(t, u, keptDir+"/.tool/settings.json", `{"theme":"dark"}`)
	put(t, u, ".toolrc", "mine")
	r := newPrivateRig(t, u, toolFile(t, nil))
	r.boot()
	if got := r.read(".tool/settings.json") + r.read(".toolrc"); got != `{"seeded":true,"theme":"dark"}mine` {
		t.Errorf("merged: %q", got)
	}
	put(t, u, ".tool/settings.json", `{"seeded":false}`)
	if err := os.Chmod(r.path(".tool/settings.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	r.boot()
	if got := r.read(".tool/settings.json"); got != `{"seeded":false}` {
		t.Errorf("the person's choice: %q", got)
	}
	put(t, u, ".tool/settings.json", `{"a":1}`)
	if err := os.Chmod(r.path(".tool/settings.json"), 0o644); err != nil {
		t.Fatal(err)
	}
	r.shutdown()
	r.boot()
	info, err := os.Stat(r.path(".tool/settings.json"))
	if err != nil || info.Mode() != 0o644 || r.read(".tool/settings.json") != `{"seeded":true,"a":1}` {
		t.Errorf("%v, %v, %q", info, err, r.read(".tool/settings.json"))
	}
	put(t, u, ".tool/settings.json", `{"a":1} // mine`)
	r.shutdown()
	r.boot()
	if got := r.read(".tool/settings.json"); got != `{"a":1} // mine` || !strings.Contains(r.logs.String(), "could not be seeded") {
		t.Errorf("no JSON: %q, %s", got, r.logs.String())
	}
}

func TestPrivateDirsMustBeInMemory(t *testing.T) {
	u := testUser(t)
	r := newPrivateRig(t, u, toolFile(t, nil))
	r.cfg.mount = func(string, int, int) error { return nil } // a mount that does nothing
	r.cfg.isMemory = func(*os.File) error { return ErrNotInMemory }
	if _, err := OpenPrivateDirs(r.cfg); !errors.Is(err, ErrNotInMemory) {
		t.Errorf("got %v", err)
	}
	r.cfg.mount = func(string, int, int) error { return unix.EPERM }
	if _, err := OpenPrivateDirs(r.cfg); !errors.Is(err, unix.EPERM) {
		t.Errorf("got %v", err)
	}
}
