//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
	"github.com/anteroom/anteroom/internal/machine/home"
	"github.com/anteroom/anteroom/internal/machine/machinetest"
)

// TestConformancePretended is the suite over pretended programs (package fctest):
// what the driver itself does is real, Firecracker is not.
func TestConformancePretended(t *testing.T) {
	for _, version := range []string{"1.10.1", "1.16.2"} {
		t.Run(version, func(t *testing.T) {
			cfg := pretended(t, settings(version))
			d := newDriver(t, cfg)
			if enforced, why := d.Limits(); !enforced {
				t.Logf("without limits: %s", why)
			}
			save(t, d)
			machinetest.Run(t, func(*testing.T) machinetest.Setup { return setup(cfg, d) })
		})
	}
}

func setup(cfg Config, d *Driver) machinetest.Setup {
	return machinetest.Setup{
		Driver: d, Build: build,
		Again:    func(t *testing.T) machine.Driver { return newDriver(t, cfg) },
		Kill:     func(t *testing.T, _ string, raw json.RawMessage) { kill(t, raw) },
		Recycled: recycled,
		Trace:    func(t *testing.T) []string { return trace(t, cfg.StateDir) },
		Refusing: map[error]func(*testing.T) machine.Driver{
			machine.ErrNoMemory: func(t *testing.T) machine.Driver {
				full := cfg
				full.MinFreeMemory = 1 << 50
				return newDriver(t, full)
			},
			machine.ErrDiskFull: func(t *testing.T) machine.Driver {
				full := cfg
				full.MinFreeDisk = 1 << 50
				return newDriver(t, full)
			},
			fs.ErrNotExist: func(t *testing.T) machine.Driver { return withoutImage(t, cfg) },
		},
		NoSnapshot: func(t *testing.T) machine.Driver { return damaged(t, cfg, d, damage) },
		OtherKey:   func(t *testing.T) machine.Driver { return otherKey(t, cfg, d) },
		Creator:    func(t *testing.T, id string) *exec.Cmd { return creator(t, creation{Config: cfg, ID: id}) },
	}
}

// otherKey is a driver in whose snapshot's place there is d's, of something else.
func otherKey(t *testing.T, cfg Config, d *Driver) *Driver {
	t.Helper()
	cfg.StateDir, cfg.ImageID = filepath.Join(t.TempDir(), "firecracker"), "another"
	other := newDriver(t, cfg)
	if err := os.CopyFS(other.snapshotDir(), os.DirFS(d.snapshotDir())); err != nil {
		t.Fatal(err)
	}
	return other
}

// withoutImage is a driver whose image is removed after its start.
func withoutImage(t *testing.T, cfg Config) machine.Driver {
	t.Helper()
	cfg.Image = filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(cfg.Image, nil, 0o644); err != nil {
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
	cfg.StateDir = filepath.Join(t.TempDir(), "firecracker")
	other := newDriver(t, cfg)
	if err := os.CopyFS(other.snapshotDir(), os.DirFS(d.snapshotDir())); err != nil {
		t.Fatal(err)
	}
	change(t, other.snapshotDir())
	return other
}

// damage changes one byte of the memory.
func damage(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, memoryFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt([]byte{7}, 9); err != nil {
		t.Fatal(err)
	}
}

// Twenty rounds of both kinds leave no process, file, mount, cgroup or
// descriptor behind.
func TestRounds(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	d := newDriver(t, cfg)
	save(t, d)
	before := trace(t, cfg.StateDir)
	for i := range 20 {
		id := newID(i)
		spec := machine.Spec{ID: id, Kind: machine.Browser}
		if i%5 == 4 {
			spec.Kind, spec.Home = machine.CLI, filepath.Join(t.TempDir(), "home")
			if err := os.Mkdir(spec.Home, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		created, err := d.Create(limited(t), spec)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if created.Restored != (spec.Kind == machine.Browser) {
			t.Errorf("round %d: restored %v (%s)", i, created.Restored, created.ColdReason)
		}
		if _, err := d.Open(limited(t), id, created.Ref); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		if err := d.Destroy(limited(t), id); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if after := trace(t, cfg.StateDir); !slices.Equal(before, after) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}

// Machines that are made and destroyed at once do not get in each other's way.
func TestAtOnce(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	d := newDriver(t, cfg)
	save(t, d)
	before := trace(t, cfg.StateDir)
	var mu sync.Mutex // guards users
	users := map[string]string{}
	var work sync.WaitGroup
	for i := range 8 {
		id := newID(400 + i)
		work.Go(func() {
			created, err := d.Create(context.Background(), machine.Spec{ID: id, Kind: machine.Browser, Cold: i%2 == 0})
			if err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			user, err := os.ReadFile(filepath.Join(d.machineDir(id), uidFile))
			mu.Lock()
			if other := users[string(user)]; other != "" || err != nil {
				t.Errorf("%s has the user %s, like %s (%v)", id, user, other, err)
			}
			users[string(user)] = id
			mu.Unlock()
			if _, err := d.Open(context.Background(), id, created.Ref); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	work.Wait()
	for i := range 8 {
		work.Go(func() {
			if err := d.Destroy(context.Background(), newID(400+i)); err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
	if after := trace(t, cfg.StateDir); !slices.Equal(before, after) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}

// Whatever fails while a machine is made, nothing of it is left, and the error
// says what it was.
func TestFailuresLeaveNothing(t *testing.T) {
	good := settings("1.16.2")
	cfg := pretended(t, good)
	d := newDriver(t, cfg)
	save(t, d)
	before := trace(t, cfg.StateDir)
	type failing struct {
		what  string
		cold  bool
		spoil func(*fctest.Settings)
		says  string
	}
	fault := func(operation string, f fctest.Fault) func(*fctest.Settings) {
		return func(s *fctest.Settings) { s.Faults = map[string]fctest.Fault{operation: f} }
	}
	all := []failing{
		{"load refused", false, fault("PUT /snapshot/load", fctest.Fault{Status: 400, Body: `{"fault_message":"it does not fit"}`}), "it does not fit"},
		{"load cut", false, fault("PUT /snapshot/load", fctest.Fault{Cut: true}), "EOF"},
		{"load hangs", false, fault("PUT /snapshot/load", fctest.Fault{Hang: true}), "deadline exceeded"},
	}
	for _, operation := range []string{"PUT /machine-config", "PUT /boot-source", "PUT /drives/image", "PUT /vsock", "PUT /actions"} {
		all = append(all,
			failing{operation + " refused", true, fault(operation, fctest.Fault{Status: 400, Body: `{"fault_message":"no"}`}), operation + " (400): no"},
			failing{operation + " cut", true, fault(operation, fctest.Fault{Cut: true}), operation},
			failing{operation + " hangs", true, fault(operation, fctest.Fault{Hang: true}), "deadline exceeded"})
	}
	for _, step := range []string{"begin", "cgroups", "jailed"} {
		all = append(all,
			failing{"the jailer fails: " + step, true, func(s *fctest.Settings) { s.JailerFails = step }, "told to fail at " + step},
			failing{"the jailer hangs: " + step, true, func(s *fctest.Settings) { s.JailerHangs = step }, "deadline exceeded"})
	}
	for i, tt := range all {
		t.Run(tt.what, func(t *testing.T) {
			s := good
			tt.spoil(&s)
			change(t, cfg, s)
			ctx, cancel := context.WithTimeout(t.Context(), 700*time.Millisecond)
			if !strings.Contains(tt.says, "deadline") {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 30*time.Second)
			}
			defer cancel()
			_, err := d.Create(ctx, machine.Spec{ID: newID(100 + i), Kind: machine.Browser, Cold: tt.cold})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v, want %q", err, tt.says)
			}
			if left := trace(t, cfg.StateDir); !slices.Equal(left, before) {
				t.Errorf("left: %q\nwant: %q", left, before)
			}
		})
	}
}

// A Firecracker has nothing that is not its machine's.
func TestConfinement(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	cfg.UIDs = UIDs{First: 1_900_200_000, Count: 2}
	d := newDriver(t, cfg)
	users := map[string]bool{}
	for i := range 2 {
		id := newID(i)
		created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.Browser, CPUs: 1.5})
		if err != nil {
			t.Fatal(err)
		}
		destroyed(t, d, id)
		r := parseRef(created.Ref)
		status := statusOf(t, r.PID)
		users[status["Uid"]] = true
		for name, want := range map[string]string{"Uid": strings.Fields(status["Uid"])[0], "Gid": strings.Fields(status["Uid"])[0], "CapEff": "0000000000000000", "CapPrm": "0000000000000000"} {
			for _, got := range strings.Fields(status[name]) {
				if got != want {
					t.Errorf("%s: %s, want %s", name, status[name], want)
				}
			}
		}
		if pids := strings.Fields(status["NSpid"]); len(pids) < 2 || pids[len(pids)-1] != "1" {
			t.Errorf("process numbers %q: it is not the first of its own namespace", status["NSpid"])
		}
		root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", r.PID))
		if err != nil || root != "/" {
			// In its own mount namespace the jail is all there is.
			t.Errorf("root %q, %v", root, err)
		}
		for _, space := range []string{"net", "ipc", "uts", "mnt", "pid"} {
			own, err1 := os.Readlink("/proc/self/ns/" + space)
			its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", r.PID, space))
			if err := errors.Join(err1, err2); err != nil || own == its {
				t.Errorf("the %s namespace is the host's (%v)", space, err)
			}
		}
		devices := textOf(t, fmt.Sprintf("/proc/%d/net/dev", r.PID))
		if n := strings.Count(devices, "\n"); n != 2 || !strings.Contains(devices, "lo:") {
			t.Errorf("network devices:\n%s", devices)
		}
		visible, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", r.PID))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range visible {
			if slices.Contains([]string{"proc", "sys", "etc", "usr", "home", "old_root"}, e.Name()) {
				t.Errorf("it sees /%s", e.Name())
			}
		}
		testLimits(t, d, id, r)
		var config struct {
			VCPUs int `json:"vcpu_count"`
		}
		all := requests(t, d, id)
		if err := json.Unmarshal(all[0].Body, &config); err != nil || config.VCPUs != 2 {
			t.Errorf("%+v for a share of 1.5", config)
		}
		for _, req := range all {
			if strings.Contains(req.Operation, "network") {
				t.Errorf("a network device: %s", req.Operation)
			}
		}
	}
	if len(users) != 2 {
		t.Errorf("two machines run as %v", users)
	}
	if _, err := d.Create(limited(t), machine.Spec{ID: newID(2), Kind: machine.Browser}); !errors.Is(err, errNoUID) {
		t.Errorf("a third machine: %v", err)
	}
	if ids, err := d.List(limited(t)); err != nil || len(ids) != 2 {
		t.Errorf("listed: %v, %v", ids, err)
	}
}

func testLimits(t *testing.T, d *Driver, id string, r ref) {
	t.Helper()
	limits := strings.Join(strings.Fields(textOf(t, fmt.Sprintf("/proc/%d/limits", r.PID))), " ")
	for _, want := range []string{
		fmt.Sprintf("Max file size %d %d bytes", fileSlack, fileSlack), fmt.Sprintf("Max open files %d %d files", maxFiles, maxFiles),
	} {
		if !strings.Contains(limits, want) {
			t.Errorf("limits %q, want %q", limits, want)
		}
	}
	if d.groups == 0 {
		t.Log("there are no control groups here")
		return
	}
	memory, procs := cgroup.Root+"/memory"+cgroup.Path(id)+"/memory.limit_in_bytes", cgroup.Root+"/memory"+cgroup.Path(id)+"/cgroup.procs"
	if d.groups == 2 {
		memory, procs = cgroup.Root+cgroup.Path(id)+"/memory.max", cgroup.Root+cgroup.Path(id)+"/cgroup.procs"
	}
	if got := textOf(t, memory); got != fmt.Sprint(d.cfg.MemoryBytes+overhead) {
		t.Errorf("memory is limited to %s", got)
	}
	if got := textOf(t, procs); got != fmt.Sprint(r.PID) {
		t.Errorf("in the group: %s, want %d", got, r.PID)
	}
}

func textOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func statusOf(t *testing.T, pid int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for line := range strings.Lines(textOf(t, "/proc/"+strconv.Itoa(pid)+"/status")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		out[name] = strings.TrimSpace(value)
	}
	return out
}

// A guest that floods its console fills its own jail and nothing else, and lives.
func TestConsoleIsBounded(t *testing.T) {
	s := settings("1.16.2")
	s.Flood = 8 << 20
	cfg := pretended(t, s)
	d := newDriver(t, cfg)
	id := newID(0)
	created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	destroyed(t, d, id)
	if _, err := d.Open(limited(t), id, created.Ref); err != nil {
		t.Errorf("after the flood: %v", err)
	}
	info, err := os.Stat(d.logFile(id))
	if err != nil || info.Size() < jailRoom/2 || info.Size() > jailRoom {
		t.Errorf("the log: %v, %v", info.Size(), err)
	}
	if words := lastWords(d.logFile(id)); !strings.Contains(words, "the guest says something") || len(words) > maxWords {
		t.Errorf("%q", words)
	}
}

// What is said to which release: the socket's path only to those that know it.
func TestRestoreByRelease(t *testing.T) {
	for version, override := range map[string]bool{"1.10.0": false, "1.15.1": false, "1.16.1": true, "1.17.3": true} {
		t.Run(version, func(t *testing.T) {
			d := newDriver(t, pretended(t, settings(version)))
			save(t, d)
			id := newID(0)
			created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.Browser})
			if err != nil || !created.Restored {
				t.Fatalf("restored %v (%s), %v", created.Restored, created.ColdReason, err)
			}
			destroyed(t, d, id)
			all := requests(t, d, id)
			if len(all) != 1 || all[0].Operation != "PUT /snapshot/load" {
				t.Fatalf("%+v", all)
			}
			if got := strings.Contains(string(all[0].Body), "vsock_override"); got != override {
				t.Errorf("%s", all[0].Body)
			}
		})
	}
}

// A snapshot whose machines do not answer is not kept; machines start cold then.
func TestDeafSnapshot(t *testing.T) {
	s := settings("1.16.2")
	s.Deaf = true
	cfg := pretended(t, s)
	d := newDriver(t, cfg)
	d.proveTime = 3 * time.Second
	if err := d.SaveSnapshot(limited(t), snapshotID(), noWarming); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Fatalf("%v", err)
	}
	if d.HasSnapshot() {
		t.Error("it is kept")
	}
	for _, pattern := range []string{"snapshots/*", "machines/*"} {
		if left, err := filepath.Glob(filepath.Join(cfg.StateDir, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	created, err := d.Create(limited(t), machine.Spec{ID: newID(0), Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	destroyed(t, d, newID(0))
	if created.Restored || !strings.Contains(created.ColdReason, "there is no snapshot") {
		t.Errorf("%+v", created)
	}
}

// A release that is known to restore none is not tried at each start.
func TestNoSnapshotByRelease(t *testing.T) {
	d := newDriver(t, pretended(t, settings("1.16.0")))
	never := func(context.Context, net.Conn) error { return errors.New("it was tried") }
	if err := d.SaveSnapshot(limited(t), snapshotID(), never); err == nil || !strings.Contains(err.Error(), "never answer") {
		t.Errorf("%v", err)
	}
}

// A snapshot serves only what it was made of.
func TestSnapshotKey(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	d := newDriver(t, cfg)
	save(t, d)
	never := func(context.Context, net.Conn) error { return errors.New("it was made again") }
	if err := newDriver(t, cfg).SaveSnapshot(limited(t), snapshotID(), never); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
	for what, spoil := range map[string]func(*Config){
		"another image":    func(c *Config) { c.ImageID = "other" },
		"another size":     func(c *Config) { c.MemoryBytes = 128 << 20 },
		"other processors": func(c *Config) { c.CPUs = 1 },
		"another kernel": func(c *Config) {
			c.Kernel = filepath.Join(t.TempDir(), "vmlinux")
			if err := os.WriteFile(c.Kernel, []byte("\x7fELF2"), 0o644); err != nil {
				t.Fatal(err)
			}
		},
		"no snapshots": func(c *Config) { c.Cold = true },
	} {
		other := cfg
		spoil(&other)
		if newDriver(t, other).HasSnapshot() {
			t.Errorf("%s: the snapshot is used", what)
		}
	}
	// What was saved is nobody's to change, and zeros take no room.
	for _, name := range []string{stateFile, memoryFile} {
		info, err := os.Stat(filepath.Join(d.snapshotDir(), name))
		if err != nil || info.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(d.snapshotDir(), memoryFile), &st); err != nil || st.Blocks*512 > st.Size/2 {
		t.Errorf("%d bytes take %d (%v)", st.Size, st.Blocks*512, err)
	}
}

// A machine with a home ends by itself before it is destroyed, and its home is
// on a disk that others can use.
func TestHome(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	d := newDriver(t, cfg)
	dir := filepath.Join(t.TempDir(), "home")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	id := newID(0)
	created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.CLI, Home: dir})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.Open(limited(t), id, created.Ref)
	if err != nil {
		t.Fatal(err)
	}
	l, err := line.Host(conn)
	if err != nil {
		t.Fatal(err)
	}
	ack, err := guestapi.NewClient(l).Configure(limited(t), guestapi.Configure{MachineID: id, Kind: string(machine.CLI), WallClock: time.Now(), Entropy: make([]byte, 64)})
	if err != nil || ack.Restored || created.Restored {
		t.Errorf("%+v, %v", ack, err)
	}
	_ = l.Close()
	if err := d.Destroy(limited(t), id); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(dir + home.Suffix)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	said := make([]byte, len(fctest.Halted))
	if _, err := f.ReadAt(said, 0); err != nil || string(said) != fctest.Halted {
		t.Errorf("the home begins with %q (%v): it was killed", said, err)
	}
}
