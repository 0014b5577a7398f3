//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
	"github.com/anteroom/anteroom/internal/machine/machinetest"
	"github.com/anteroom/anteroom/internal/machine/process"
)

func TestMain(m *testing.M) {
	if os.Getenv(creatorEnv) != "" {
		os.Exit(creatorMain())
	}
	code := m.Run()
	if programsDir != "" {
		_ = os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

// programsDir is where programs has put them, if it was asked.
var programsDir string

// programs are the pretended firecracker and jailer, in a directory of this
// process.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "anteroom-fake-firecracker-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	return dir, fctest.Build(dir)
})

var definition = sync.OnceValues(func() ([]byte, error) { return fctest.Fetch("../../../tools/firecracker-api") })

const build = "a build"

// settings are those of a release that does everything right.
func settings(version string) fctest.Settings {
	v, err := ParseVersion("Firecracker v" + version)
	if err != nil {
		panic(err)
	}
	return fctest.Settings{Version: version, Minor: v.Minor, Build: build}
}

// install puts pretended programs that do as settings say into a directory of
// their own.
func install(t *testing.T, s fctest.Settings) string {
	t.Helper()
	from, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	text, err := definition()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "programs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"firecracker", "jailer"} {
		if err := os.Link(filepath.Join(from, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Install(dir, text); err != nil {
		t.Fatal(err)
	}
	return dir
}

// change has the programs of a configuration do otherwise from now on.
func change(t *testing.T, cfg Config, s fctest.Settings) {
	t.Helper()
	text, err := definition()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Install(filepath.Dir(cfg.Firecracker), text); err != nil {
		t.Fatal(err)
	}
}

// pretended is a configuration with pretended programs, kernel and image.
func pretended(t *testing.T, s fctest.Settings) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: machines can only be made by root")
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bin := install(t, s)
	return Config{
		Firecracker: filepath.Join(bin, "firecracker"), Jailer: filepath.Join(bin, "jailer"),
		Kernel: file("vmlinux", "\x7fELF"), Initrd: file("initrd", "070701"),
		Image: file("image.erofs", "an image"), ImageID: "an image",
		StateDir: filepath.Join(dir, "state"), Logger: slog.New(slog.DiscardHandler),
		MemoryBytes: 64 << 20, HomeBytes: 8 << 20, MinFreeMemory: 1, MinFreeDisk: 1,
	}
}

// newDriver makes a driver that is closed at the test's end.
func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	d, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.UseSnapshot("test")
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// noWarming is what a pretended guest needs.
func noWarming(context.Context, net.Conn) error { return nil }

// save makes the snapshot of a driver.
func save(t *testing.T, d *Driver) {
	t.Helper()
	if err := d.SaveSnapshot(limited(t), snapshotID(), noWarming); err != nil {
		t.Fatalf("saving the snapshot: %v", err)
	}
}

// kill ends a Firecracker as a crash would.
func kill(t *testing.T, raw json.RawMessage) {
	t.Helper()
	r := parseRef(raw)
	if !process.Running(r.PID, r.StartTime) {
		t.Fatalf("process %d does not run", r.PID)
	}
	if err := unix.Kill(r.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// recycled is a ref that names this very process, as if it had got the number
// of a Firecracker that has ended, and had begun when that did.
func recycled(t *testing.T, raw json.RawMessage) json.RawMessage {
	t.Helper()
	r := parseRef(raw)
	r.PID = os.Getpid()
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trace is all that the host holds for the machines of a state directory.
func trace(t *testing.T, stateDir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(filepath.Join(stateDir, "machines"), func(path string, _ fs.DirEntry, err error) error {
		out = append(out, "file "+path)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, p := range procs {
		// A jailer names the directory, a Firecracker its machine.
		if args, err := os.ReadFile(p); err == nil && (strings.Contains(string(args), stateDir) || strings.Contains(string(args), "--id\x00"+machinetest.Prefix())) {
			out = append(out, "process "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	mounts, err := mountsBelow(stateDir)
	if err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		out = append(out, "mount "+m)
	}
	for _, pattern := range []string{cgroup.Root + cgroup.Path(machinetest.Prefix()+"*"), cgroup.Root + "/*" + cgroup.Path(machinetest.Prefix()+"*")} {
		groups, err := filepath.Glob(pattern)
		if err != nil {
			t.Error(err)
		}
		for _, g := range groups {
			out = append(out, "cgroup "+g)
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Error(err)
	}
	out = append(out, fmt.Sprintf("%d descriptors", len(fds)))
	slices.Sort(out)
	return out
}

// snapshotID is the id of the machine that is saved, no other process's.
func snapshotID() string { return newID(99_999_999) }

// newID returns an id of this process's machines.
func newID(n int) string { return fmt.Sprintf("%sx%08d", machinetest.Prefix(), n) }

// requests are what the Firecracker of a machine was asked so far.
func requests(t *testing.T, d *Driver, id string) []fctest.Request {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(jailRoot(d.jailDir(id), "firecracker", id), fctest.RequestsFile))
	if err != nil {
		t.Fatal(err)
	}
	var out []fctest.Request
	for decoder := json.NewDecoder(strings.NewReader(string(text))); ; {
		var r fctest.Request
		if err := decoder.Decode(&r); err != nil {
			return out
		}
		out = append(out, r)
	}
}

// destroyed destroys a machine at the test's end.
func destroyed(t *testing.T, d *Driver, id string) {
	t.Cleanup(func() {
		if err := d.Destroy(context.Background(), id); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
