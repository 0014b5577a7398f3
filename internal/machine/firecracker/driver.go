//go:build linux

// Package firecracker makes machines as Firecracker microVMs, each in a jail of
// its own: Debian's kernel on KVM, the golden image as a read-only disk that all
// machines share, no network device, a vsock for the line.
//
// What the host holds of a machine, in the order in which it is made and in
// reverse in which it goes: machines/<id>/ (the marker: it exists before
// anything else does and after everything else is gone), in it the file with its
// user id and the jail (see mountJail), then the control groups that the jailer
// makes, and the Firecracker process.
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
	"regexp"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fcapi"
	"github.com/anteroom/anteroom/internal/machine/process"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

// Config is what a driver needs.
type Config struct {
	Firecracker string // path of the firecracker program
	Jailer      string // path of the jailer program, of the same release
	Kernel      string // path of the guest's kernel, uncompressed (vmlinux)
	Initrd      string // path of its initial file system
	Image       string // path of the golden image (erofs)
	ImageID     string // its content's id
	StateDir    string // the driver's own directory
	UIDs        UIDs   // for machines; zero means DefaultUIDs
	Logger      *slog.Logger
	// MemoryBytes and CPUs limit machines whose Spec does not say; 0 means
	// 1.5 GiB and 2. A machine has as many processors as CPUs, rounded up.
	MemoryBytes int64
	CPUs        float64
	// HomeBytes is the size of a home's file system; 0 means 16 GiB. The file
	// takes what is in it.
	HomeBytes int64
	// MinFreeMemory and MinFreeDisk must be free on the host before a machine
	// is started; bytes. 0 means 512 MiB and 256 MiB.
	MinFreeMemory int64
	MinFreeDisk   int64
	// Cold starts every machine cold, also where there is a snapshot.
	Cold bool
	// Pace is how many times longer things may take than on a KVM of hardware;
	// 0 means 1.
	Pace int
}

const (
	// createTimeout is for Firecracker to start a machine on a host that is busy
	// with ten others, or in software.
	createTimeout  = 60 * time.Second
	destroyTimeout = 45 * time.Second
	// haltTime is how long a machine with a home may take to write what it has
	// not written yet.
	haltTime = 20 * time.Second
	// maxQuoted is how much of what a program says an error repeats.
	maxQuoted = 64
	// guestCID is every guest's own address on its vsock; each has its own.
	guestCID = 3
	// linePort is the vsock port at which the agent in a machine listens.
	linePort = 1024
)

var validID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// Driver implements machine.Driver. It may be used concurrently; one process
// at a time may use a state directory (the server's lock sees to that).
type Driver struct {
	cfg         Config
	version     Version
	program     string // path of firecracker with its symbolic links followed
	programSize int64
	hashes      []string // of files that a snapshot depends on; see snapshotKey
	groups      int      // version of the host's control groups; 0: none that limit
	groupsNote  string
	settings    string // see UseSnapshot
	proveTime   time.Duration

	mu       sync.Mutex          // guards what follows, and the ids below machines/
	conns    map[string]net.Conn // the channel to each machine that was opened last
	verdicts map[string]error    // of snapshots that were checked, by directory
}

// ref is what a machine's row keeps for Driver.
type ref struct {
	PID       int    `json:"pid"`        // of the Firecracker process
	StartTime uint64 `json:"start_time"` // in clock ticks since boot, from /proc/pid/stat
	Program   string `json:"program"`    // its name in the jail
}

// New checks what the driver needs and prepares its directory.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 1536 << 20
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 2
	}
	if cfg.Pace == 0 {
		cfg.Pace = 1
	}
	if cfg.HomeBytes == 0 {
		cfg.HomeBytes = 16 << 30
	}
	if cfg.MinFreeMemory == 0 {
		cfg.MinFreeMemory = 512 << 20
	}
	if cfg.MinFreeDisk == 0 {
		cfg.MinFreeDisk = 256 << 20
	}
	if cfg.UIDs == (UIDs{}) {
		cfg.UIDs = DefaultUIDs()
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("firecracker: machines can only be made by root; start the server as root")
	}
	if err := cfg.UIDs.check(); err != nil {
		return nil, fmt.Errorf("firecracker: %w", err)
	}
	version, err := CheckPrograms(ctx, cfg.Firecracker, cfg.Jailer)
	if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, version: version, proveTime: proveTime * time.Duration(cfg.Pace), conns: map[string]net.Conn{}, verdicts: map[string]error{}}
	if d.program, err = filepath.EvalSymlinks(cfg.Firecracker); err != nil {
		return nil, fmt.Errorf("firecracker: %w", err)
	}
	info, err := os.Stat(d.program)
	if err != nil {
		return nil, fmt.Errorf("firecracker: %w", err)
	}
	d.programSize = info.Size()
	if err := d.hash(); err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.StateDir, d.snapshotRoot(), d.machinesDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("firecracker: %w", err)
		}
	}
	d.groups, d.groupsNote = cgroup.Version("memory", "cpu", "pids")
	return d, nil
}

// hash notes what a machine is made of, and finds what is missing.
func (d *Driver) hash() error {
	if _, err := os.Stat(d.cfg.Image); err != nil {
		return fmt.Errorf("firecracker: the golden image is missing (anteroom image build makes it): %w", err)
	}
	for _, file := range []string{d.program, d.cfg.Kernel, d.cfg.Initrd} {
		h, err := snapshot.FileHash(file)
		if err != nil {
			return fmt.Errorf("firecracker: the guest's kernel or initial file system is missing (anteroom image build makes them): %w", err)
		}
		d.hashes = append(d.hashes, h)
	}
	return nil
}

// Name is "firecracker".
func (d *Driver) Name() string { return "firecracker" }

// Version is Firecracker's.
func (d *Driver) Version() Version { return d.version }

// Limits says whether memory and CPU limits are enforced on the host, and why
// not. A guest has no more than its own memory and processors either way.
func (d *Driver) Limits() (enforced bool, reason string) { return d.groups != 0, d.groupsNote }

// Pace is how many times longer than elsewhere things may take.
func (d *Driver) Pace() int { return d.cfg.Pace }

// paced is a time limit at the driver's pace.
func (d *Driver) paced(t time.Duration) time.Duration { return t * time.Duration(d.cfg.Pace) }

// Create starts a machine: restored from the snapshot where there is a usable
// one, cold otherwise.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	snapshot, reason := d.usable(spec)
	return d.createFrom(ctx, spec, source{snapshot: snapshot, reason: reason})
}

// source is what a machine comes from and what becomes of it.
type source struct {
	snapshot string // a directory; empty: it boots
	reason   string // why it boots
	save     string // a directory into which it will be saved
}

func (d *Driver) createFrom(ctx context.Context, spec machine.Spec, from source) (machine.Created, error) {
	if !validID.MatchString(spec.ID) {
		return machine.Created{}, fmt.Errorf("firecracker: bad machine id %q", spec.ID)
	}
	if err := d.mark(ctx, spec.ID); err != nil {
		return machine.Created{}, fmt.Errorf("firecracker: creating machine %s: %w", spec.ID, machine.Classify(err))
	}
	created, err := d.create(ctx, spec, from)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.paced(destroyTimeout))
		defer cancel()
		return machine.Created{}, errors.Join(fmt.Errorf("firecracker: creating machine %s: %w", spec.ID, machine.Classify(err)), d.Destroy(undo, spec.ID))
	}
	return created, nil
}

// mark makes the machine's marker. From then on the id is this machine's, and
// there is something to undo.
func (d *Driver) mark(ctx context.Context, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := machine.Admit(d.cfg.StateDir, d.cfg.MinFreeMemory, d.cfg.MinFreeDisk); err != nil {
		return err
	}
	if _, err := os.Stat(d.cfg.Image); err != nil {
		return fmt.Errorf("the golden image is gone (anteroom image build makes it): %w", err)
	}
	err := os.Mkdir(d.machineDir(id), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return machine.ErrExists
	}
	return err
}

// client speaks to a machine's Firecracker. The caller closes it.
func (d *Driver) client(id string, r ref) *fcapi.Client {
	return fcapi.New(func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, id, r, apiSocket) })
}

// Open closes the channel that there is and connects to the agent in the
// machine, which takes another connection for its line in place of the last.
func (d *Driver) Open(ctx context.Context, id string, raw json.RawMessage) (net.Conn, error) {
	r := parseRef(raw)
	if !validID.MatchString(id) || !d.owns(id, r) {
		return nil, fmt.Errorf("firecracker: line of %s: %w", id, machine.ErrGone)
	}
	d.replaceConn(id, nil)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		if d.Wait(ctx, id, raw) == nil {
			cancel(machine.ErrGone)
		}
	}()
	defer func() { cancel(nil); <-gone }()
	conn, err := dialGuest(ctx, func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, id, r, lineSocket) }, linePort, d.paced(answerTime))
	if err != nil {
		return nil, fmt.Errorf("firecracker: line of %s: %w", id, err)
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

// Wait returns when the machine's Firecracker has ended.
func (d *Driver) Wait(ctx context.Context, _ string, raw json.RawMessage) error {
	r := parseRef(raw)
	return process.Wait(ctx, r.PID, r.StartTime)
}

// parseRef reads what a row keeps; of what is no ref it makes one of no process.
func parseRef(raw json.RawMessage) ref {
	var r ref
	if err := json.Unmarshal(raw, &r); err != nil || r.Program != filepath.Base(r.Program) {
		return ref{}
	}
	return r
}

// Destroy ends the machine and removes every trace of it. One with a home gets
// the time to write what it has not written yet.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("firecracker: bad machine id %q", id)
	}
	d.replaceConn(id, nil)
	if _, err := os.Stat(d.machineDir(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.paced(destroyTimeout))
	defer cancel()
	d.halt(ctx, id)
	if err := d.remove(ctx, id); err != nil {
		return fmt.Errorf("firecracker: destroying machine %s: %w", id, err)
	}
	return nil
}

// List returns the ids of all machines with a marker.
func (d *Driver) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(d.machinesDir())
	if err != nil {
		return nil, fmt.Errorf("firecracker: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}

// Close lets go of what the driver holds. Machines run on. No other method may
// be called meanwhile or afterwards.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id, conn := range d.conns {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
		delete(d.conns, id)
	}
	return errors.Join(errs...)
}

func (d *Driver) machinesDir() string         { return filepath.Join(d.cfg.StateDir, "machines") }
func (d *Driver) machineDir(id string) string { return filepath.Join(d.machinesDir(), id) }
func (d *Driver) jailDir(id string) string    { return filepath.Join(d.machineDir(id), "jail") }

// logFile is where a machine's Firecracker and its guest's console write; not
// in the part of the jail that Firecracker sees.
func (d *Driver) logFile(id string) string { return filepath.Join(d.jailDir(id), "console.log") }
