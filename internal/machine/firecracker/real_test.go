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
	"os/exec"
	"path/filepath"
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
)

// What says where the real programs are; without, they are looked for in PATH.
const (
	firecrackerEnv = "ANTEROOM_FIRECRACKER"
	jailerEnv      = "ANTEROOM_JAILER"
	// requireEnv makes it an error that they are not there.
	requireEnv = "ANTEROOM_REQUIRE_FIRECRACKER"
	// paceEnv says how many times slower than KVM on hardware this is: nested in
	// an emulated machine, things take their time.
	paceEnv = "ANTEROOM_FIRECRACKER_PACE"
	// shellEnv is the built test/firecracker/shell, where there is no Go.
	shellEnv = "ANTEROOM_FIRECRACKER_SHELL"
)

// notTried ends a test that needs the real programs and KVM.
func notTried(t *testing.T, why error) {
	t.Helper()
	if os.Getenv(requireEnv) != "" {
		t.Fatalf("the real Firecracker cannot be tried: %v", why)
	}
	t.Skipf("SKIPPED: THE REAL FIRECRACKER WAS NOT TRIED, ONLY A PRETENDED ONE: %v", why)
}

// realPrograms finds firecracker and jailer, and a KVM to run them on.
func realPrograms(t *testing.T) (firecracker, jailer string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: machines can only be made by root")
	}
	var paths [2]string
	for i, p := range []struct{ env, name string }{{firecrackerEnv, "firecracker"}, {jailerEnv, "jailer"}} {
		if paths[i] = os.Getenv(p.env); paths[i] == "" {
			found, err := exec.LookPath(p.name)
			if err != nil {
				notTried(t, err)
			}
			paths[i] = found
		}
	}
	if err := KVM(); err != nil {
		notTried(t, err)
	}
	return paths[0], paths[1]
}

// realConfig is a configuration with the real programs and the image that the
// repository's build has made, with a shell in its initrd.
func realConfig(t *testing.T) (cfg Config, build string) {
	t.Helper()
	fc, jailer := realPrograms(t)
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
	agent := filepath.Join(bin, "anteroom-guest")
	img, err := image.Find(image.Config{Dir: dir, Guest: agent})
	if err != nil {
		t.Fatalf("the golden image (make image builds it): %v", err)
	}
	out, err := exec.Command(agent, "build").Output()
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Firecracker: fc, Jailer: jailer, Kernel: img.Vmlinux(), Initrd: withShell(t, img.Initrd()), Image: img.Path, ImageID: img.ID,
		StateDir: filepath.Join(t.TempDir(), "firecracker"), Logger: slog.New(slog.DiscardHandler), HomeBytes: 1 << 30, Pace: pace(t),
	}, strings.TrimSpace(string(out))
}

func pace(t *testing.T) int {
	t.Helper()
	n := 1
	if text := os.Getenv(paceEnv); text != "" {
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			t.Fatalf("%s=%s: %v", paceEnv, text, err)
		}
	}
	return n
}

// withShell is an initrd with a shell for tests as its first process: what is in
// a second archive behind the first takes the place of what is in that.
func withShell(t *testing.T, initrd string) string {
	t.Helper()
	dir := t.TempDir()
	program := os.Getenv(shellEnv)
	if program == "" {
		program = filepath.Join(dir, "init")
		cmd := exec.Command("go", "build", "-trimpath", "-o", program, "../../../test/firecracker/shell")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("building the shell: %v: %s", err, out)
		}
	}
	first, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	all := append(first, make([]byte, -len(first)&511)...)
	all = append(append(all, entry("init", 0o100755, shell)...), entry("TRAILER!!!", 0, nil)...)
	path := filepath.Join(dir, "initrd")
	if err := os.WriteFile(path, all, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// entry is one file of a cpio archive in the "newc" form.
func entry(name string, mode int, content []byte) []byte {
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	return append(pad([]byte(head)), pad(content)...)
}

// inside runs a command as root in a machine.
func inside(t *testing.T, d *Driver, id, command string) string {
	t.Helper()
	const shellPort = 1025
	text, err := os.ReadFile(filepath.Join(d.machineDir(id), notesFile))
	if err != nil {
		t.Fatal(err)
	}
	var n notes
	if err := json.Unmarshal(text, &n); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute*time.Duration(d.Pace()))
	defer cancel()
	conn, err := dialGuest(ctx, func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, id, n.Ref, lineSocket) }, shellPort, d.paced(answerTime))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var output string
	if err := errors.Join(json.NewEncoder(conn).Encode(command), json.NewDecoder(conn).Decode(&output)); err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return output
}

func warm(ctx context.Context, conn net.Conn) error {
	l, err := line.Host(conn)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	return guestapi.NewClient(l).Warm(ctx, guestapi.Warm{Locale: "en_US", Languages: "en-US,en"})
}

const snapshotTime = 3 * time.Minute

// TestConformance is the suite over the real Firecracker, wherever there is one
// with a KVM.
func TestConformance(t *testing.T) {
	cfg, build := realConfig(t)
	d := newDriver(t, cfg)
	t.Logf("Firecracker %s", d.Version())
	if enforced, why := d.Limits(); !enforced {
		t.Logf("without limits: %s", why)
	}
	wait := snapshotTime * time.Duration(d.Pace())
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := d.Probe(ctx, snapshotID()); err != nil {
		t.Fatalf("probing: %v", err)
	}
	began := time.Now()
	if err := d.SaveSnapshot(ctx, snapshotID(), warm); err != nil {
		t.Fatalf("saving the snapshot: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d.snapshotDir(), memoryFile), &st); err != nil {
		t.Fatal(err)
	}
	t.Logf("the snapshot takes %d MB, saved in %s", st.Blocks*512/1e6, time.Since(began).Round(100*time.Millisecond))
	machinetest.Run(t, func(*testing.T) machinetest.Setup {
		s := setup(cfg, d)
		s.Build = build
		s.Refusing[machine.ErrDiskFull] = func(t *testing.T) machine.Driver { return newDriver(t, fullDisk(t, cfg)) }
		if d.groups != 0 {
			s.Usage, s.Overhead = usage, overhead
		}
		s.Exec = func(t *testing.T, id, command string) string { return inside(t, d, id, command) }
		return s
	})
	t.Run("clones share the snapshot's memory", func(t *testing.T) { testShared(t, d) })
}

// usage is what a machine takes of its host.
func usage(t *testing.T, id string) (time.Duration, int64) {
	t.Helper()
	cpu, memory, err := cgroup.Usage(id)
	if err != nil {
		t.Fatal(err)
	}
	return cpu, memory
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
	cfg.StateDir = filepath.Join(dir, "firecracker")
	return cfg
}

// testShared: a restored machine's memory is the snapshot's file, mapped.
func testShared(t *testing.T, d *Driver) {
	id := newID(300)
	created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	destroyed(t, d, id)
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", parseRef(created.Ref).PID))
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(d.snapshotDir(), memoryFile))
	if errors.Is(err, fs.ErrNotExist) || !strings.Contains(string(maps), memoryFile) {
		t.Errorf("%v, %v: its memory is no mapping of the snapshot's:\n%s", info, err, maps)
	}
}
