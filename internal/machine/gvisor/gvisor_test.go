//go:build linux

package gvisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/machinetest"
	"github.com/anteroom/anteroom/internal/machine/process"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

func TestMain(m *testing.M) {
	if os.Getenv(creatorEnv) != "" {
		os.Exit(creatorMain())
	}
	os.Exit(m.Run())
}

// realConfig is a configuration with the programs and the image that the
// repository's build has made. Root without them is an error: a suite that
// leaves its machines out in silence shows nothing.
func realConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: machines can only be made by root")
	}
	bin := os.Getenv("ANTEROOM_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "bin")
	}
	bin, err := filepath.Abs(bin)
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("ANTEROOM_IMAGE_DIR")
	if dir == "" {
		dir = "/var/cache/anteroom"
	}
	img, err := image.Find(image.Config{Dir: dir, Guest: filepath.Join(bin, "anteroom-guest")})
	if err != nil {
		t.Fatalf("the golden image (make image builds it): %v", err)
	}
	return Config{
		Runsc: filepath.Join(bin, "runsc"), Image: img.Path, ImageID: img.ID,
		StateDir: filepath.Join(t.TempDir(), "gvisor"), Logger: slog.New(slog.DiscardHandler),
	}
}

// newDriver makes a driver that is closed at the test's end.
func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	d, err := New(cfg)
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

func warm(ctx context.Context, conn net.Conn) error {
	l, err := line.Host(conn)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	return guestapi.NewClient(l).Warm(ctx, guestapi.Warm{Locale: "en_US", Languages: "en-US,en"})
}

const snapshotTime = 2 * time.Minute

func TestConformance(t *testing.T) {
	cfg := realConfig(t)
	d := newDriver(t, cfg)
	if enforced, why := d.Limits(); !enforced {
		t.Logf("without limits: %s", why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTime)
	defer cancel()
	if err := d.SaveSnapshot(ctx, "snapshot0000", warm); err != nil {
		t.Fatalf("saving the snapshot: %v", err)
	}
	build := agentBuild(t, d)
	machinetest.Run(t, func(*testing.T) machinetest.Setup {
		return machinetest.Setup{
			Driver: d, Build: build,
			Again: func(t *testing.T) machine.Driver {
				die(d)
				return newDriver(t, cfg)
			},
			Kill:     func(t *testing.T, _ string, raw json.RawMessage) { kill(t, raw) },
			Recycled: recycled,
			Trace:    func(t *testing.T) []string { return trace(t, cfg.StateDir) },
			Refusing: map[error]func(*testing.T) machine.Driver{
				machine.ErrNoMemory: func(t *testing.T) machine.Driver {
					full := cfg
					full.MinFreeMemory = 1 << 50
					return newDriver(t, full)
				},
				machine.ErrDiskFull: func(t *testing.T) machine.Driver { return newDriver(t, fullDisk(t, cfg)) },
				fs.ErrNotExist:      func(t *testing.T) machine.Driver { return withoutImage(t, cfg) },
			},
			NoSnapshot: func(t *testing.T) machine.Driver { return damaged(t, cfg, d, damage) },
			OtherKey:   func(t *testing.T) machine.Driver { return otherKey(t, cfg, d) },
			Usage:      usage(d),
			Creator:    func(t *testing.T, id string) *exec.Cmd { return creator(t, cfg, id) },
			Exec:       func(t *testing.T, id, command string) string { return inside(t, d, id, command) },
		}
	})
	t.Run("a snapshot that cannot be restored", func(t *testing.T) { testUnrestorable(t, cfg, d) })
	t.Run("a snapshot is kept, and made again when damaged", func(t *testing.T) { testSnapshotAgain(t, cfg, d) })
}

// agentBuild asks a machine for its agent's build.
func agentBuild(t *testing.T, d *Driver) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const id = "buildasking"
	created, err := d.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Destroy(ctx, id); err != nil {
			t.Error(err)
		}
	}()
	conn, err := d.Open(ctx, id, created.Ref)
	if err != nil {
		t.Fatal(err)
	}
	l, err := line.Host(conn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ack, err := guestapi.NewClient(l).Configure(ctx, guestapi.Configure{
		MachineID: id, Kind: "browser", WallClock: time.Now(), Entropy: make([]byte, 64),
		Locale: "en_US", Languages: "en-US,en", Width: 1000, Height: 700,
	})
	if err != nil {
		t.Fatal(err)
	}
	return ack.Build
}

// die closes what the kernel closes when a driver's process ends.
func die(d *Driver) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, l := range d.listeners {
		_ = l.Close()
		delete(d.listeners, id)
	}
}

// kill ends a sandbox as a crash would.
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
// of a sandbox that has ended.
func recycled(t *testing.T, raw json.RawMessage) json.RawMessage {
	t.Helper()
	r := parseRef(raw)
	out, err := json.Marshal(ref{PID: os.Getpid(), StartTime: r.StartTime})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// trace is all that the host holds for the machines of a state directory. The
// empty network namespace that runsc keeps for all of them is not a machine's.
func trace(t *testing.T, stateDir string) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{"machines", "runsc"} {
		err := filepath.WalkDir(filepath.Join(stateDir, dir), func(path string, _ fs.DirEntry, err error) error {
			if filepath.Base(path) != nullNetNS {
				out = append(out, "file "+path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	procs, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, p := range procs {
		if args, err := os.ReadFile(p); err == nil && strings.Contains(string(args), stateDir) {
			out = append(out, "process "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for m := range strings.Lines(string(mounts)) {
		if strings.Contains(m, stateDir) && !strings.Contains(m, nullNetNS) {
			out = append(out, "mount "+m)
		}
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

// fullDisk is a configuration whose state directory is on a small disk.
func fullDisk(t *testing.T, cfg Config) Config {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	cfg.StateDir = filepath.Join(dir, "gvisor")
	return cfg
}

// withoutImage is a driver whose image is removed after its start.
func withoutImage(t *testing.T, cfg Config) machine.Driver {
	t.Helper()
	cfg.Image = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(cfg.Image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, cfg)
	if err := os.Remove(cfg.Image); err != nil {
		t.Fatal(err)
	}
	return d
}

// damaged is a driver with a copy of d's snapshot that was changed.
func damaged(t *testing.T, cfg Config, d *Driver, change func(t *testing.T, dir string)) *Driver {
	t.Helper()
	cfg.StateDir = filepath.Join(t.TempDir(), "gvisor")
	other := newDriver(t, cfg)
	if err := os.CopyFS(other.snapshotDir(), os.DirFS(d.snapshotDir())); err != nil {
		t.Fatal(err)
	}
	change(t, other.snapshotDir())
	return other
}

// damage changes one byte in the middle of the memory image.
func damage(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "pages.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0xff
	if _, err := f.WriteAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// testUnrestorable has a snapshot that is whole but that runsc does not take.
func testUnrestorable(t *testing.T, cfg Config, d *Driver) {
	other := damaged(t, cfg, d, func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, "checkpoint.img"), []byte("of another version"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, snapshot.ManifestFile)); err != nil {
			t.Fatal(err)
		}
		if err := snapshot.WriteManifest(dir, d.snapshotKey()); err != nil {
			t.Fatal(err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const id = "unrestorable"
	created, err := other.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := other.Destroy(ctx, id); err != nil {
			t.Error(err)
		}
	}()
	if created.Restored || !strings.Contains(created.ColdReason, "could not be restored") {
		t.Errorf("restored %v, reason %q", created.Restored, created.ColdReason)
	}
	conn, err := other.Open(ctx, id, created.Ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := warm(ctx, conn); err != nil {
		t.Errorf("the machine that started cold: %v", err)
	}
}

// testSnapshotAgain: what is whole is kept; what is not is made again.
func testSnapshotAgain(t *testing.T, cfg Config, d *Driver) {
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTime)
	defer cancel()
	never := func(context.Context, net.Conn) error { return errors.New("it was made again") }
	if err := newDriver(t, cfg).SaveSnapshot(ctx, "snapshot0000", never); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
	other := damaged(t, cfg, d, damage)
	if _, why := other.usable(machine.Spec{Kind: machine.Browser}); !strings.Contains(why, "damaged") {
		t.Fatalf("a damaged snapshot is not called that: %q", why)
	}
	if err := other.SaveSnapshot(ctx, "snapshot0000", warm); err != nil {
		t.Fatal(err)
	}
	if !other.HasSnapshot() {
		t.Error("it was made again, and is not usable")
	}
	if left := trace(t, other.cfg.StateDir); slices.ContainsFunc(left, func(s string) bool { return strings.Contains(s, "snapshot0000") }) {
		t.Errorf("the machine that was saved has left %q", left)
	}
}

// inside runs a command as root in a machine.
func inside(t *testing.T, d *Driver, id, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := append([]string{"--root", d.runscRoot()}, d.platformFlags()...)
	cmd := exec.CommandContext(ctx, d.cfg.Runsc, append(args, "exec", id, "/bin/sh", "-c", command)...)
	cmd.Env = append(os.Environ(), "PATH=/usr/local/bin:/usr/bin:/bin")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return strings.TrimSpace(string(out))
}

// otherKey is a driver with d's snapshot in the place of one with other settings.
func otherKey(t *testing.T, cfg Config, d *Driver) *Driver {
	t.Helper()
	cfg.StateDir = filepath.Join(t.TempDir(), "gvisor")
	other := newDriver(t, cfg)
	other.UseSnapshot("others")
	if err := os.CopyFS(other.snapshotDir(), os.DirFS(d.snapshotDir())); err != nil {
		t.Fatal(err)
	}
	return other
}

// usage is what a machine's control groups count, where there are any.
func usage(d *Driver) func(t *testing.T, id string) (time.Duration, int64) {
	if !d.cgroups {
		return nil
	}
	return func(t *testing.T, id string) (time.Duration, int64) {
		t.Helper()
		cpu, memory, err := cgroup.Usage(id)
		if err != nil {
			t.Fatal(err)
		}
		return cpu, memory
	}
}
