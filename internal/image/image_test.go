package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"
)

// config is a configuration with programs that are none.
func config(t *testing.T) Config {
	t.Helper()
	dir := t.TempDir()
	guest := filepath.Join(dir, "agent")
	write(t, guest, "an agent")
	write(t, filepath.Join(dir, "anteroom-screen"), "an encoder")
	return Config{Dir: dir, Guest: guest, Logger: &bytes.Buffer{}}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mustKey(t *testing.T, cfg Config) string {
	t.Helper()
	k, err := key(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKey(t *testing.T) {
	cfg := config(t)
	first := mustKey(t, cfg)
	if again := mustKey(t, cfg); again != first || len(first) != 24 {
		t.Errorf("keys %q and %q", first, again)
	}
	write(t, cfg.Guest, "another agent")
	if other := mustKey(t, cfg); other == first {
		t.Error("another agent has the same key")
	}
	write(t, cfg.Guest, "an agent")
	write(t, filepath.Join(filepath.Dir(cfg.Guest), "anteroom-screen"), "another encoder")
	if other := mustKey(t, cfg); other == first {
		t.Error("another encoder has the same key")
	}
	cfg.Guest += ".missing"
	if _, err := Find(cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without an agent: %v", err)
	}
}

// A root is dressed in place: it is another for another recipe, whatever part of
// it has changed.
func TestRootKey(t *testing.T) {
	base := func() fstest.MapFS {
		out := fstest.MapFS{}
		for _, name := range []string{"packages.txt", "remove.txt", "links.txt", "cli/package.json", "files/etc/a", "files/etc/b"} {
			out["recipe/"+name] = &fstest.MapFile{Data: []byte("one\ntwo\n")}
		}
		return out
	}
	first, err := rootKey(base())
	if again, err2 := rootKey(base()); err != nil || err2 != nil || again != first || len(first) != 24 {
		t.Fatalf("%q and %q, %v, %v", first, again, err, err2)
	}
	for name := range base() {
		for what, change := range map[string]func(fstest.MapFS){
			"gone":    func(r fstest.MapFS) { delete(r, name) },
			"a line":  func(r fstest.MapFS) { r[name] = &fstest.MapFile{Data: []byte("one\n")} },
			"renamed": func(r fstest.MapFS) { r[name+"x"] = r[name]; delete(r, name) },
		} {
			r := base()
			change(r)
			if other, err := rootKey(r); err != nil || other == first {
				t.Errorf("%s: %s: the same root, %v", name, what, err)
			}
		}
	}
	if !bytes.Contains(shape, []byte("func (b *builder) dress(")) || !bytes.Contains(shape, []byte("mkfs.erofs")) {
		t.Error("what shapes the image is not in its key")
	}
}

func TestFind(t *testing.T) {
	cfg := config(t)
	if _, err := Find(cfg); !errors.Is(err, ErrMissing) {
		t.Errorf("nothing built: %v", err)
	}
	k := mustKey(t, cfg)
	b := &builder{Config: cfg}
	write(t, imagePath(cfg.Dir, k), "the image's bytes")
	if _, err := Find(cfg); !errors.Is(err, ErrMissing) {
		t.Errorf("without a manifest: %v", err)
	}
	kernel := filepath.Join(cfg.Dir, "kernel-k")
	for name, content := range map[string]string{"vmlinuz": "a kernel", "vmlinux": "unpacked", "release": "6.1.0-cloud", "modules/list": "a.ko\n", "modules/a.ko": "a module"} {
		write(t, filepath.Join(kernel, name), content)
	}
	made, err := b.record(k, kernel, []string{"chromium=1"})
	if err != nil {
		t.Fatal(err)
	}
	found, err := Find(cfg)
	if err != nil || found.ID != made.ID || found.Path != imagePath(cfg.Dir, k) || found.Size != 17 || !slices.Equal(found.Packages, made.Packages) {
		t.Errorf("found %+v, made %+v, %v", found, made, err)
	}
	if found.Boot != made.Boot || found.Boot.Kernel != "6.1.0-cloud" || len(found.Boot.Initrd) != 64 {
		t.Errorf("its kernel: %+v, made %+v", found.Boot, made.Boot)
	}
	for _, file := range []string{found.Vmlinuz(), found.Vmlinux(), found.Initrd()} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		if _, err := Find(cfg); !errors.Is(err, ErrMissing) {
			t.Errorf("without %s: %v", file, err)
		}
		write(t, file, string(content))
	}
	write(t, imagePath(cfg.Dir, k), "cut")
	if _, err := Find(cfg); !errors.Is(err, ErrMissing) {
		t.Errorf("cut short: %v", err)
	}
	write(t, manifestPath(cfg.Dir, k), "{")
	if _, err := Find(cfg); !errors.Is(err, ErrMissing) {
		t.Errorf("with half a manifest: %v", err)
	}
}

func TestRecipe(t *testing.T) {
	for _, name := range []string{"packages.txt", "remove.txt", "links.txt"} {
		all, err := lines(name)
		if err != nil || len(all) < 4 {
			t.Fatalf("%s: %d lines, %v", name, len(all), err)
		}
		sorted := slices.Clone(all)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(all) {
			t.Errorf("%s has a line twice", name)
		}
		for _, l := range all {
			if l == "" || l != strings.TrimSpace(l) || strings.HasPrefix(l, "#") || strings.HasPrefix(l, "/") || strings.Contains(l, "..") {
				t.Errorf("%s: %q", name, l)
			}
		}
	}
	if _, err := lines("nothing.txt"); err == nil {
		t.Error("a recipe that is not there")
	}
}

// What the threat model promises of the disposable browser.
func TestPolicy(t *testing.T) {
	text, err := recipe.ReadFile("recipe/files/etc/chromium/policies/managed/anteroom.json")
	if err != nil {
		t.Fatal(err)
	}
	var policy map[string]any
	if err := json.Unmarshal(text, &policy); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"DeveloperToolsAvailability": 2.0, // none
		"RemoteDebuggingAllowed":     false,
		"DownloadRestrictions":       3.0,   // none are allowed
		"FullscreenAllowed":          false, // a page must not hide whose it is, or show another's address
		"PasswordManagerEnabled":     false,
		"BrowserSignin":              0.0,
		"AudioCaptureAllowed":        false,
		"VideoCaptureAllowed":        false,
	} {
		if policy[name] != want {
			t.Errorf("%s is %v, want %v", name, policy[name], want)
		}
	}
}

func TestPackages(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "var/lib/dpkg/status"), "Package: b\nStatus: install ok installed\nVersion: 2\n\nPackage: a\nVersion: 1:1.0-1\n")
	got, err := (&builder{}).packages(root)
	if err != nil || !slices.IsSorted(got) {
		t.Fatalf("%q, %v", got, err)
	}
	for _, want := range []string{"a=1:1.0-1", "b=2"} {
		if !slices.Contains(got, want) {
			t.Errorf("%q is not in %q", want, got)
		}
	}
	for _, tool := range []string{"@anthropic-ai/claude-code", "@openai/codex", "@google/gemini-cli"} {
		pinned := slices.ContainsFunc(got, func(p string) bool {
			version, ok := strings.CutPrefix(p, "npm:"+tool+"=")
			return ok && !strings.ContainsAny(version, "^~*x<>")
		})
		if !pinned {
			t.Errorf("%s is not pinned in %q", tool, got)
		}
	}
}

// TestDress puts what is ours into a tree that looks like Debian's.
func TestDress(t *testing.T) {
	b := &builder{Config: config(t)}
	root := t.TempDir()
	if err := b.dress(root); err == nil {
		t.Fatal("a tree without the tools was dressed")
	}
	links := map[string]string{}
	all, err := lines("links.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		f := strings.Fields(l)
		links[f[0]] = f[1]
		write(t, filepath.Join(root, f[1]), "a tool")
	}
	if links["usr/local/bin/claude"] == "" {
		t.Errorf("links: %q", all)
	}
	write(t, filepath.Join(root, "usr/local/bin/there"), "")
	write(t, filepath.Join(root, "usr/sbin/there"), "")
	write(t, filepath.Join(root, "etc/hostname"), "this host")
	write(t, filepath.Join(root, "var/log/build.log"), "today")
	for range 2 {
		if err := b.dress(root); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range links {
		if got, err := os.Readlink(filepath.Join(root, name)); err != nil || got != target {
			t.Errorf("%s leads to %q, %v", name, got, err)
		}
	}
	info, err := os.Stat(filepath.Join(root, "usr/sbin/anteroom-guest"))
	if err != nil || info.Mode().Perm() != 0o755 || info.Size() != int64(len("an agent")) {
		t.Errorf("the agent: %+v, %v", info, err)
	}
	if id, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err != nil || len(id) > 0 {
		t.Errorf("the machine's id: %q, %v", id, err)
	}
	for _, gone := range []string{"etc/hostname", "var/log/build.log"} {
		if _, err := os.Lstat(filepath.Join(root, gone)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", gone, err)
		}
	}
	err = fs.WalkDir(recipe, "recipe/files", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, err := recipe.ReadFile(path)
		if err != nil {
			return err
		}
		if got, err := os.ReadFile(filepath.Join(root, strings.TrimPrefix(path, "recipe/files"))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", path, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRun(t *testing.T) {
	var log bytes.Buffer
	b := &builder{Config: Config{Logger: &log}}
	var said []string
	status := func(words string) { said = append(said, words) }
	if err := b.run(t.Context(), status, t.TempDir(), "sh", "-c", "echo one; echo two >&2; echo $SOURCE_DATE_EPOCH"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "two", "1767225600"}; !slices.Equal(said, want) || log.String() != strings.Join(want, "\n")+"\n" {
		t.Errorf("said %q, logged %q", said, log.String())
	}
	err := b.run(t.Context(), nil, "", "sh", "-c", "for i in $(seq 100); do echo line $i; done; exit 3")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "line 100") || strings.Contains(err.Error(), "line 50\n") {
		t.Errorf("a failure: %v", err)
	}
	if err := b.run(t.Context(), nil, "", "sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"); err != nil {
		t.Errorf("a long line: %v", err)
	}
	if err := b.run(t.Context(), nil, "", "no-such-program"); err == nil || !strings.Contains(err.Error(), "is not installed") {
		t.Errorf("a program that is not there: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.run(ended, nil, "", "sh", "-c", "exec sleep 60"); err == nil {
		t.Error("it ran on after its context had ended")
	}
}

// An interrupted build ends what its programs have started, and does not wait for
// what holds their output.
func TestRunIsInterrupted(t *testing.T) {
	b := &builder{Config: Config{Logger: &bytes.Buffer{}}}
	ctx, cancel := context.WithCancel(t.Context())
	child := ""
	status := func(words string) {
		child = words
		cancel()
	}
	ended := make(chan error)
	go func() { ended <- b.run(ctx, status, "", "sh", "-c", "sleep 300 & echo $!; wait; wait") }()
	limit, tick := time.After(stopTime/2), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("an interrupted program has succeeded")
		}
	case <-limit:
		t.Fatal("it is waited for what the program has started")
	}
	for child != "" {
		stat, err := os.ReadFile(filepath.Join("/proc", child, "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("what the program has started runs on: %s", stat)
		}
	}
	t.Error("the program has said nothing")
}

func TestRemoveOthers(t *testing.T) {
	b := &builder{Config: config(t)}
	now := time.Now()
	for i, name := range []string{"image-a", "image-b", "image-c", "image-d", "image-e"} {
		write(t, filepath.Join(b.Dir, name+".erofs"), "")
		write(t, filepath.Join(b.Dir, name+".json"), "")
		age := now.Add(-time.Duration(i) * time.Hour)
		if err := os.Chtimes(filepath.Join(b.Dir, name+".erofs"), age, age); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(b.Dir, "root-old/file"), "")
	write(t, filepath.Join(b.Dir, "root-this/file"), "")
	write(t, filepath.Join(b.Dir, "kernel-old/file"), "")
	write(t, filepath.Join(b.Dir, "kernel-this/file"), "")
	for _, name := range []string{"image-a", "image-e"} {
		for _, part := range bootFiles {
			write(t, filepath.Join(b.Dir, name+"."+part), "")
		}
	}
	write(t, filepath.Join(b.Dir, "else"), "")
	if err := b.removeOthers(filepath.Join(b.Dir, "root-this"), filepath.Join(b.Dir, "kernel-this")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{"agent", "anteroom-screen", "else", "image-a.erofs", "image-a.initrd", "image-a.json", "image-a.vmlinux", "image-a.vmlinuz", "image-b.erofs", "image-b.json", "image-c.erofs", "image-c.json", "kernel-this", "root-this"}
	if !slices.Equal(left, want) {
		t.Errorf("left: %q", left)
	}
}

func TestLock(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	try := func() error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
	if err := try(); !errors.Is(err, syscall.EWOULDBLOCK) {
		t.Errorf("a second lock: %v", err)
	}
	unlock()
	if err := try(); err != nil {
		t.Errorf("a lock after it was given back: %v", err)
	}
}
