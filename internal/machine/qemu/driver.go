//go:build linux

// Package qemu makes machines as virtual machines: QEMU, with KVM where a guest
// really boots on it and in emulation elsewhere, Debian's kernel, the golden image
// as a read-only disk that all machines share, everything written kept in memory,
// no network device.
//
// A QEMU runs as a user of its own, in a network of its own without devices, under
// seccomp, and with nothing of the host but the files that it inherits: the image,
// the kernel and its initrd, the sockets of its line and its monitor (QMP), and for
// cli machines the image of the home.
//
// What the host holds of a machine, in the order in which it is made and in
// reverse in which it goes: machines/<id>/ (the marker: it exists before anything
// else does and after everything else is gone) with the two sockets, the control
// group, and the process.
//
// A person's home is an ext4 file system in a sparse file beside the directory
// that other drivers use: HOME.ext4 for HOME. So it needs neither a network nor a
// file server in QEMU, nobody on the host ever mounts what a guest has written, and
// Firecracker, which has only disks, can use the same. When it is made, it gets
// what is in the directory.
package qemu

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
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/line/serial"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/process"
	"github.com/anteroom/anteroom/internal/machine/socket"
)

// Config is what a driver needs.
type Config struct {
	QEMU     string // path of qemu-system-x86_64
	Image    image.Image
	StateDir string // the driver's own directory
	Logger   *slog.Logger
	// MemoryBytes and CPUs limit machines whose Spec does not say; 0 means
	// 1.5 GiB and 2. QEMU itself may take overhead beside the memory.
	MemoryBytes int64
	CPUs        float64
	// HomeBytes is the size of a home's file system; 0 means 16 GiB. The file
	// takes what is in it.
	HomeBytes int64
	// MinFreeMemory and MinFreeDisk must be free on the host before a machine
	// is started; bytes. 0 means 512 MiB and 256 MiB.
	MinFreeMemory int64
	MinFreeDisk   int64
	// FirstUID is the first of the Users user and group ids that machines get.
	// No account may have one of them. 0 means 1 900 000 000, which is in no
	// range that systemd, containers or distributions give away.
	FirstUID int
	// Cold starts every machine cold, also where there is a snapshot.
	Cold bool
	// Emulate does without KVM, also where there is one.
	Emulate bool
}

// Users is how many machines there can be at a time.
const Users = 4096

const (
	lineSocket = "line.sock"
	qmpSocket  = "qmp.sock"
	kindFile   = "kind"
	userFile   = "uid"

	// overhead is what QEMU takes beside its machine's memory, at most; bytes.
	overhead = 384<<20 + translated
	// maxThreads limits QEMU's.
	maxThreads = 256

	createTimeout  = 60 * time.Second
	destroyTimeout = 45 * time.Second
	// haltTime is how long a machine with a home may take to write what it has
	// not written yet.
	haltTime = 20 * time.Second
)

var validID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// Driver implements machine.Driver. It may be used concurrently; one process
// at a time may use a state directory (the server's lock sees to that).
type Driver struct {
	cfg         Config
	program     string // what QEMU says that it is, and the hash of its file
	accelerator string
	why         string // the accelerator, in a sentence
	cgroups     bool
	cgroupNote  string
	settings    string // see UseSnapshot
	// extra gives machines further devices; only in tests.
	extra func(f *descriptors, id string) ([]string, error)

	mu       sync.Mutex // guards what follows
	conns    map[string]net.Conn
	verdicts map[string]error // of snapshots that were checked, by directory
}

// ref is what a machine's row keeps for Driver.
type ref struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"start_time"` // in clock ticks since boot, from /proc/pid/stat
	Program   string `json:"program"`    // its executable's path
}

// running says whether the machine's process is there.
func (r ref) running() bool {
	if !process.Running(r.PID, r.StartTime) {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", r.PID))
	return err == nil && strings.TrimSuffix(exe, " (deleted)") == r.Program
}

// New checks what the driver needs and prepares its directory. Where it has not
// been tried since the host's start, it tries whether a guest boots on KVM, which
// takes up to some seconds; ctx limits it. This process can dump no core from then
// on, nor can what it starts.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	cfg.complete()
	if os.Geteuid() != 0 {
		return nil, errors.New("qemu: machines can only be made by root; start the server as root")
	}
	// Inherited by what this process starts: a machine's memory is a person's.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return nil, fmt.Errorf("qemu: limit of core files: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(cfg.QEMU)
	if err != nil {
		return nil, fmt.Errorf("qemu: qemu-system-x86_64 is missing (Debian's package qemu-system-x86 has it): %w", err)
	}
	cfg.QEMU = resolved
	program, err := version(ctx, cfg.QEMU)
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	for _, file := range []string{cfg.Image.Path, cfg.Image.Vmlinux(), cfg.Image.Initrd()} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("qemu: the golden image is missing (anteroom image build makes it): %w", err)
		}
	}
	d := &Driver{cfg: cfg, program: program, conns: map[string]net.Conn{}, verdicts: map[string]error{}}
	for _, dir := range []string{cfg.StateDir, d.snapshotRoot(), d.machinesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("qemu: %w", err)
		}
	}
	d.cgroups, d.cgroupNote = cgroup.Probe()
	works, why := false, "the configuration says so"
	if !cfg.Emulate {
		works, why = d.kvm(ctx)
	}
	if d.accelerator, d.why = emulated, "software emulation: "+why; works {
		d.accelerator, d.why = withKVM, "KVM: "+why
	}
	return d, nil
}

func (c *Config) complete() {
	if c.MemoryBytes == 0 {
		c.MemoryBytes = 1536 << 20
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.HomeBytes == 0 {
		c.HomeBytes = 16 << 30
	}
	if c.MinFreeMemory == 0 {
		c.MinFreeMemory = 512 << 20
	}
	if c.MinFreeDisk == 0 {
		c.MinFreeDisk = 256 << 20
	}
	if c.FirstUID == 0 {
		c.FirstUID = 1_900_000_000
	}
}

// Name is "qemu".
func (d *Driver) Name() string { return "qemu" }

// Limits says whether memory and CPU limits are enforced, and why not. Memory is
// limited in any case: it is all that the machine has.
func (d *Driver) Limits() (enforced bool, reason string) { return d.cgroups, d.cgroupNote }

// Acceleration says whether machines run on KVM, and why or why not.
func (d *Driver) Acceleration() (kvm bool, why string) { return d.accelerator == withKVM, d.why }

// Pace is how many times longer than elsewhere things may take.
func (d *Driver) Pace() int {
	if d.accelerator == withKVM {
		return 1
	}
	return 6
}

// Create starts a machine: restored from the snapshot where there is a usable
// one, cold otherwise.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	if !validID.MatchString(spec.ID) {
		return machine.Created{}, fmt.Errorf("qemu: bad machine id %q", spec.ID)
	}
	if err := d.mark(ctx, spec); err != nil {
		return machine.Created{}, fmt.Errorf("qemu: creating machine %s: %w", spec.ID, machine.Classify(err))
	}
	created, err := d.create(ctx, spec)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		return machine.Created{}, errors.Join(fmt.Errorf("qemu: creating machine %s: %w", spec.ID, machine.Classify(err)), d.Destroy(undo, spec.ID))
	}
	return created, nil
}

// mark makes the machine's marker. From then on the id is this machine's, and
// there is something to undo.
func (d *Driver) mark(ctx context.Context, spec machine.Spec) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := machine.Admit(d.cfg.StateDir, d.cfg.MinFreeMemory, d.cfg.MinFreeDisk); err != nil {
		return err
	}
	if _, err := os.Stat(d.cfg.Image.Path); err != nil {
		return fmt.Errorf("the golden image is gone (anteroom image build makes it): %w", err)
	}
	err := os.Mkdir(d.machineDir(spec.ID), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return machine.ErrExists
	}
	return err
}

func (d *Driver) create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout*time.Duration(d.Pace()))
	defer cancel()
	if spec.MemoryBytes == 0 {
		spec.MemoryBytes = d.cfg.MemoryBytes
	}
	if spec.CPUs == 0 {
		spec.CPUs = d.cfg.CPUs
	}
	if err := os.WriteFile(filepath.Join(d.machineDir(spec.ID), kindFile), []byte(spec.Kind), 0o600); err != nil {
		return machine.Created{}, err
	}
	uid, err := d.takeUID(spec.ID)
	if err != nil {
		return machine.Created{}, err
	}
	if d.cgroups {
		limits := cgroup.Limits{Memory: spec.MemoryBytes + overhead, CPUs: spec.CPUs, PIDs: maxThreads}
		if err := cgroup.Make(spec.ID, limits); err != nil {
			return machine.Created{}, err
		}
	}
	state, coldReason := d.usable(spec)
	if state != "" {
		r, err := d.restore(ctx, spec, uid, state)
		if err == nil {
			return created(r, true, "")
		}
		if ctx.Err() != nil {
			return machine.Created{}, err
		}
		coldReason = fmt.Sprintf("the snapshot could not be restored: %v", err)
		if err := process.Kill(ctx, d.works(spec.ID)); err != nil {
			return machine.Created{}, err
		}
	}
	r, err := d.boot(ctx, spec, uid)
	if err != nil {
		return machine.Created{}, err
	}
	return created(r, false, coldReason)
}

func created(r ref, restored bool, coldReason string) (machine.Created, error) {
	raw, err := json.Marshal(r)
	return machine.Created{Ref: raw, Restored: restored, ColdReason: coldReason}, err
}

// takeUID finds a user id that no other machine has and notes it.
func (d *Driver) takeUID(id string) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	files, err := filepath.Glob(filepath.Join(d.machinesDir(), "*", userFile))
	if err != nil {
		return 0, err
	}
	taken := map[string]bool{}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			taken[string(b)] = true
		}
	}
	for uid := d.cfg.FirstUID; uid < d.cfg.FirstUID+Users; uid++ {
		if text := fmt.Sprint(uid); !taken[text] {
			return uid, os.WriteFile(filepath.Join(d.machineDir(id), userFile), []byte(text), 0o600)
		}
	}
	return 0, fmt.Errorf("there are %d machines already", Users)
}

// Open closes the channel that there is and opens another to the agent, once it
// answers.
func (d *Driver) Open(ctx context.Context, id string, raw json.RawMessage) (net.Conn, error) {
	r := parseRef(raw)
	if !r.running() {
		return nil, fmt.Errorf("qemu: line of %s: %w", id, machine.ErrGone)
	}
	d.replaceConn(id, nil)
	conn, err := socket.Dial(ctx, d.machineDir(id), lineSocket)
	if err == nil {
		conn, err = serial.Open(ctx, conn)
	}
	if err != nil && ctx.Err() == nil && !r.running() || errors.Is(err, fs.ErrNotExist) {
		err = machine.ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("qemu: line of %s: %w", id, err)
	}
	d.replaceConn(id, conn)
	return conn, nil
}

// replaceConn closes the channel to a machine and notes the one that takes its
// place, or nil.
func (d *Driver) replaceConn(id string, conn net.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.conns[id]; old != nil {
		_ = old.Close()
	}
	if delete(d.conns, id); conn != nil {
		d.conns[id] = conn
	}
}

// Wait returns when QEMU has ended.
func (d *Driver) Wait(ctx context.Context, _ string, raw json.RawMessage) error {
	r := parseRef(raw)
	if !r.running() {
		return nil
	}
	return process.Wait(ctx, r.PID, r.StartTime)
}

// parseRef reads what a row keeps; of what is no ref it makes one of no process.
func parseRef(raw json.RawMessage) ref {
	var r ref
	if err := json.Unmarshal(raw, &r); err != nil {
		return ref{}
	}
	return r
}

// Destroy ends the machine and removes every trace of it, but for a home, for
// which the machine gets the time to write what it has not written yet.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("qemu: bad machine id %q", id)
	}
	d.replaceConn(id, nil)
	if _, err := os.Stat(d.machineDir(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, destroyTimeout)
	defer cancel()
	d.halt(ctx, id)
	if err := d.remove(ctx, id); err != nil {
		return fmt.Errorf("qemu: destroying machine %s: %w", id, err)
	}
	return nil
}

// halt has a machine with a home write all of it, and returns when it has ended
// or will not.
func (d *Driver) halt(ctx context.Context, id string) {
	kind, err := os.ReadFile(filepath.Join(d.machineDir(id), kindFile))
	if err != nil || string(kind) != string(machine.CLI) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, haltTime)
	defer cancel()
	m, err := openMonitor(ctx, d.machineDir(id))
	if err != nil {
		return // it has ended already, or never began
	}
	defer m.close()
	keys := []map[string]any{{"type": "qcode", "data": "ctrl"}, {"type": "qcode", "data": "alt"}, {"type": "qcode", "data": "delete"}}
	if err := m.call(ctx, "send-key", map[string]any{"keys": keys}, nil); err != nil {
		d.cfg.Logger.Warn("a machine could not be told to end; what it has not written is lost", "machine", id, "err", err)
		return
	}
	if _, err := m.await(ctx, "SHUTDOWN"); err != nil && !errors.Is(err, net.ErrClosed) {
		d.cfg.Logger.Warn("a machine did not end in time; what it has not written is lost", "machine", id, "err", err)
	}
}

// remove removes all of a machine, the marker last. A QEMU that an earlier server
// has just started may not have been there to be found at first.
func (d *Driver) remove(ctx context.Context, id string) error {
	for {
		if err := process.Kill(ctx, d.works(id)); err != nil {
			return err
		}
		if err := cgroup.Remove(ctx, id); err != nil {
			return err
		}
		if err := os.RemoveAll(d.machineDir(id)); err != nil {
			return err
		}
		again, err := process.KillOnce(ctx, d.works(id))
		if err != nil || !again {
			return err
		}
	}
}

// works matches the QEMU of a machine: its name is the machine's directory.
func (d *Driver) works(id string) func(args [][]byte) bool {
	name := d.machineDir(id)
	return func(args [][]byte) bool {
		for i, arg := range args {
			if i > 0 && string(args[i-1]) == "-name" && string(arg) == name {
				return true
			}
		}
		return false
	}
}

// List returns the ids of all machines with a marker.
func (d *Driver) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(d.machinesDir())
	if err != nil {
		return nil, fmt.Errorf("qemu: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// Close lets go of what the driver holds. Machines run on. No other method may be
// called meanwhile or afterwards.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, conn := range d.conns {
		_ = conn.Close()
		delete(d.conns, id)
	}
	return nil
}

func (d *Driver) machinesDir() string         { return filepath.Join(d.cfg.StateDir, "machines") }
func (d *Driver) machineDir(id string) string { return filepath.Join(d.machinesDir(), id) }
