//go:build linux

package qemu

import (
	"context"
	"crypto/rand"
	"encoding/json"
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
	"github.com/anteroom/anteroom/internal/machine/socket"
)

func TestMain(m *testing.M) {
	if os.Getenv(creatorEnv) != "" {
		os.Exit(creatorMain())
	}
	os.Exit(m.Run())
}

// realConfig is a configuration with the image that the repository's build has
// made. Root without it is an error: a suite that leaves its machines out in
// silence shows nothing.
func realConfig(t *testing.T) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: machines can only be made by root")
	}
	program, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Fatalf("QEMU (scripts/setup.sh installs it): %v", err)
	}
	bin := os.Getenv("ANTEROOM_BIN")
	if bin == "" {
		bin = filepath.Join("..", "..", "..", "bin")
	}
	if bin, err = filepath.Abs(bin); err != nil {
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
		QEMU: program, Image: withShell(t, img), StateDir: filepath.Join(t.TempDir(), "qemu"),
		Logger: slog.New(slog.DiscardHandler), HomeBytes: 1 << 30,
	}
}

// withShell is the image with a shell for tests in its initrd: what is in a
// second archive behind the first takes the place of what is in that.
func withShell(t *testing.T, img image.Image) image.Image {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "init")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./testdata/shell")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the shell: %v: %s", err, out)
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	initrd, err := os.ReadFile(img.Initrd())
	if err != nil {
		t.Fatal(err)
	}
	initrd = append(initrd, make([]byte, -len(initrd)&511)...)
	initrd = append(initrd, entry("init", 0o100755, content)...)
	initrd = append(initrd, entry("TRAILER!!!", 0, nil)...)
	other := img
	other.Path = filepath.Join(dir, "image.erofs")
	other.Boot.Initrd += " with a shell"
	for link, target := range map[string]string{other.Path: img.Path, other.Vmlinux(): img.Vmlinux(), other.Vmlinuz(): img.Vmlinuz()} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(other.Initrd(), initrd, 0o644); err != nil {
		t.Fatal(err)
	}
	return other
}

// entry is one file of a cpio archive in the "newc" form.
func entry(name string, mode int, content []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	return append(pad([]byte(head)), pad(content)...)
}

const shellSocket = "shell.sock"

// newDriver makes a driver whose machines have the shell; it is closed at the
// test's end.
func newDriver(t *testing.T, cfg Config) *Driver {
	t.Helper()
	d, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.extra = func(f *descriptors, id string) ([]string, error) {
		l, err := d.listen(id, shellSocket)
		if err != nil {
			return nil, err
		}
		return append(socketFlags(f, "shell", l), "-device", "virtserialport,chardev=shell,name=test.shell"), nil
	}
	d.UseSnapshot("test")
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// inside runs a command as root in a machine.
func inside(t *testing.T, d *Driver, id, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute*time.Duration(d.Pace()))
	defer cancel()
	conn, err := socket.Dial(ctx, d.machineDir(id), shellSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	number := rand.Text()
	if err := json.NewEncoder(conn).Encode(map[string]string{"number": number, "command": command}); err != nil {
		t.Fatal(err)
	}
	for in := json.NewDecoder(conn); ; {
		var answer struct{ Number, Output string }
		if err := in.Decode(&answer); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if answer.Number == number {
			return answer.Output
		}
	}
}

func warm(ctx context.Context, conn net.Conn) error {
	l, err := line.Host(conn)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	return guestapi.NewClient(l).Warm(ctx, guestapi.Warm{Locale: "en_US", Languages: "en-US,en"})
}

const snapshotTime = 10 * time.Minute

func TestConformance(t *testing.T) {
	cfg := realConfig(t)
	d := newDriver(t, cfg)
	_, how := d.Acceleration()
	t.Logf("machines run with %s", how)
	if enforced, why := d.Limits(); !enforced {
		t.Logf("without limits: %s", why)
	}
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTime)
	defer cancel()
	began := time.Now()
	if err := d.SaveSnapshot(ctx, "snapshot0000", warm); err != nil {
		t.Fatalf("saving the snapshot: %v", err)
	}
	info, err := os.Stat(filepath.Join(d.snapshotDir(), stateFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot has %d MB, saved in %s", info.Size()/1e6, time.Since(began).Round(100*time.Millisecond))
	t.Run("a probe", func(t *testing.T) { testProbe(t, cfg, d) })
	t.Run("the image is read-only", func(t *testing.T) { testReadOnly(t, d) })
	build := agentBuild(t, d)
	machinetest.Run(t, func(*testing.T) machinetest.Setup {
		return machinetest.Setup{
			Driver: d, Build: build,
			Again: func(t *testing.T) machine.Driver {
				if err := d.Close(); err != nil { // as the kernel does
					t.Fatal(err)
				}
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
			Usage:      usage(d), Overhead: overhead,
			Creator: func(t *testing.T, id string) *exec.Cmd { return creator(t, cfg, id) },
			Exec:    func(t *testing.T, id, command string) string { return inside(t, d, id, command) },
		}
	})
}

// testProbe: what is tried on KVM works where a guest boots, and leaves nothing.
func testProbe(t *testing.T, cfg Config, d *Driver) {
	before := trace(t, cfg.StateDir)
	if err := d.tryBoot(t.Context(), emulated, 2*time.Minute); err != nil {
		t.Errorf("a guest that boots: %v", err)
	}
	if err := d.tryBoot(t.Context(), emulated, 200*time.Millisecond); err == nil {
		t.Error("a guest that does not boot in time is said to boot")
	}
	if after := trace(t, cfg.StateDir); !slices.Equal(before, after) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}

// testReadOnly: nobody in a machine can write to the image.
func testReadOnly(t *testing.T, d *Driver) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const id = "readonlyimage"
	if _, err := d.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Destroy(context.WithoutCancel(ctx), id); err != nil {
			t.Error(err)
		}
	}()
	const write = "blockdev --setrw /dev/vda; echo x | dd of=/dev/vda conv=fsync 2>&1 | tail -1; cat /sys/block/vda/ro"
	if out := inside(t, d, id, write); !strings.Contains(out, "0 bytes copied") || !strings.HasSuffix(out, "1") {
		t.Errorf("writing to the image: %q", out)
	}
	if out := inside(t, d, id, "grep -c . /proc/modules; finit=1; echo 0 > /proc/sys/kernel/modules_disabled; cat /proc/sys/kernel/modules_disabled"); !strings.HasSuffix(out, "1") {
		t.Errorf("modules can be loaded: %q", out)
	}
}

// agentBuild asks a machine for its agent's build.
func agentBuild(t *testing.T, d *Driver) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute*time.Duration(d.Pace()))
	defer cancel()
	const id = "buildasking"
	began := time.Now()
	created, err := d.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("restored %v (%s) in %s", created.Restored, created.ColdReason, time.Since(began))
	defer func() {
		if err := d.Destroy(ctx, id); err != nil {
			t.Error(err)
		}
	}()
	conn, err := d.Open(ctx, id, created.Ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("its line is up after %s", time.Since(began))
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
	t.Logf("it is configured after %s", time.Since(began))
	return ack.Build
}

// kill ends a QEMU as a crash would.
func kill(t *testing.T, raw json.RawMessage) {
	t.Helper()
	r := parseRef(raw)
	if !r.running() {
		t.Fatalf("process %d does not run", r.PID)
	}
	if err := unix.Kill(r.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// recycled is a ref that names this very process, as if it had got the number
// of a QEMU that has ended.
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
		if args, err := os.ReadFile(p); err == nil && strings.Contains(string(args), stateDir) {
			out = append(out, "process "+strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for m := range strings.Lines(string(mounts)) {
		if strings.Contains(m, stateDir) {
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
	cfg.StateDir = filepath.Join(dir, "qemu")
	return cfg
}

// withoutImage is a driver whose image has gone since it was made.
func withoutImage(t *testing.T, cfg Config) *Driver {
	t.Helper()
	dir := t.TempDir()
	img := cfg.Image
	img.Path = filepath.Join(dir, "image.erofs")
	for link, target := range map[string]string{img.Path: cfg.Image.Path, img.Vmlinux(): cfg.Image.Vmlinux(), img.Initrd(): cfg.Image.Initrd()} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Image = img
	d := newDriver(t, cfg)
	if err := os.Remove(img.Path); err != nil {
		t.Fatal(err)
	}
	return d
}

// damaged is a driver with a copy of d's snapshot that was changed.
func damaged(t *testing.T, cfg Config, d *Driver, change func(t *testing.T, dir string)) *Driver {
	t.Helper()
	cfg.StateDir = filepath.Join(t.TempDir(), "qemu")
	other := newDriver(t, cfg)
	if err := os.CopyFS(other.snapshotDir(), os.DirFS(d.snapshotDir())); err != nil {
		t.Fatal(err)
	}
	change(t, other.snapshotDir())
	return other
}

// damage changes one byte in the middle of the state.
func damage(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, stateFile), os.O_RDWR, 0)
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

// otherKey is a driver with d's snapshot in the place of one with other settings.
func otherKey(t *testing.T, cfg Config, d *Driver) *Driver {
	t.Helper()
	cfg.StateDir = filepath.Join(t.TempDir(), "qemu")
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
