//go:build linux

// Package gvisor makes machines as gVisor sandboxes (runsc, systrap): a kernel
// in user space, no way to a network, the golden image as a read-only root that
// all machines share, everything written kept in memory.
//
// What the host holds of a machine, in the order in which it is made and in
// reverse in which it goes: machines/<id>/ (the marker: it exists before
// anything else does and after everything else is gone), the listening socket
// of its line, and what runsc keeps: the sandbox's processes, their state file
// below runsc/ and their cgroup.
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
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/process"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
	"github.com/anteroom/anteroom/internal/machine/socket"
)

// Config is what a driver needs.
type Config struct {
	Runsc    string // path of the runsc program
	Image    string // path of the golden image (erofs)
	ImageID  string // its content's id
	StateDir string // the driver's own directory
	Logger   *slog.Logger
	// MemoryBytes and CPUs limit machines whose Spec does not say; 0 means
	// 1.5 GiB and 2.
	MemoryBytes int64
	CPUs        float64
	// MinFreeMemory and MinFreeDisk must be free on the host before a machine
	// is started; bytes. 0 means 512 MiB and 256 MiB.
	MinFreeMemory int64
	MinFreeDisk   int64
	// Cold starts every machine cold, also where there is a snapshot.
	Cold bool
	// Debug keeps the agent's and runsc's logs in the machine's directory. A
	// guest can then fill the disk.
	Debug bool
}

const (
	lineSocket = "line.sock"
	// createTimeout is for runsc to start a sandbox on a machine that is busy
	// with ten others.
	createTimeout  = 60 * time.Second
	destroyTimeout = 30 * time.Second
)

var validID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// Driver implements machine.Driver. It may be used concurrently; one process
// at a time may use a state directory (the server's lock sees to that).
type Driver struct {
	cfg        Config
	runscHash  string
	cgroups    bool
	cgroupNote string
	settings   string // see UseSnapshot

	mu        sync.Mutex // guards what follows
	listeners map[string]*net.UnixListener
	conns     map[string]net.Conn // the channel to each machine that was opened last
	verdicts  map[string]error    // of snapshots that were checked, by directory
}

// ref is what a machine's row keeps for Driver.
type ref struct {
	PID       int    `json:"pid"`        // of the sandbox process
	StartTime uint64 `json:"start_time"` // in clock ticks since boot, from /proc/pid/stat
}

// New checks what the driver needs and prepares its directory.
func New(cfg Config) (*Driver, error) {
	if cfg.MemoryBytes == 0 {
		cfg.MemoryBytes = 1536 << 20
	}
	if cfg.CPUs == 0 {
		cfg.CPUs = 2
	}
	if cfg.MinFreeMemory == 0 {
		cfg.MinFreeMemory = 512 << 20
	}
	if cfg.MinFreeDisk == 0 {
		cfg.MinFreeDisk = 256 << 20
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("gvisor: machines can only be made by root; start the server as root")
	}
	hash, err := snapshot.FileHash(cfg.Runsc)
	if err != nil {
		return nil, fmt.Errorf("gvisor: runsc is missing (make build builds it): %w", err)
	}
	if _, err := os.Stat(cfg.Image); err != nil {
		return nil, fmt.Errorf("gvisor: the golden image is missing (anteroom image build makes it): %w", err)
	}
	d := &Driver{cfg: cfg, runscHash: hash, listeners: map[string]*net.UnixListener{}, conns: map[string]net.Conn{}, verdicts: map[string]error{}}
	for _, dir := range []string{cfg.StateDir, d.runscRoot(), d.emptyRoot(), d.snapshotRoot(), filepath.Join(cfg.StateDir, "machines")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("gvisor: %w", err)
		}
	}
	d.cgroups, d.cgroupNote = cgroup.Probe()
	return d, nil
}

// Name is "gvisor".
func (d *Driver) Name() string { return "gvisor" }

// Limits says whether memory and CPU limits are enforced, and why not.
func (d *Driver) Limits() (enforced bool, reason string) { return d.cgroups, d.cgroupNote }

// Create starts a machine: restored from the snapshot where there is a usable
// one, cold otherwise.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	if !validID.MatchString(spec.ID) {
		return machine.Created{}, fmt.Errorf("gvisor: bad machine id %q", spec.ID)
	}
	if err := d.mark(ctx, spec.ID); err != nil {
		return machine.Created{}, fmt.Errorf("gvisor: creating machine %s: %w", spec.ID, machine.Classify(err))
	}
	created, err := d.create(ctx, spec)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		return machine.Created{}, errors.Join(fmt.Errorf("gvisor: creating machine %s: %w", spec.ID, machine.Classify(err)), d.Destroy(undo, spec.ID))
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

func (d *Driver) create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	if err := d.prepare(spec); err != nil {
		return machine.Created{}, err
	}
	var created machine.Created
	saved, coldReason := d.usable(spec)
	if saved != "" {
		err := d.runsc(ctx, spec.ID, "restore", "--detach", "--background", "--image-path", saved, "--pid-file", d.pidFile(spec.ID), "--bundle", d.machineDir(spec.ID), spec.ID)
		if err == nil {
			created.Restored = true
		} else if ctx.Err() != nil {
			return created, err
		} else {
			coldReason = fmt.Sprintf("the snapshot could not be restored: %v", err)
			_ = d.runsc(ctx, spec.ID, "delete", "--force", spec.ID)
		}
	}
	if !created.Restored {
		created.ColdReason = coldReason
		if err := d.runsc(ctx, spec.ID, "run", "--detach", "--pid-file", d.pidFile(spec.ID), "--bundle", d.machineDir(spec.ID), spec.ID); err != nil {
			return created, err
		}
	}
	pid, err := readPID(d.pidFile(spec.ID))
	if err != nil {
		return created, err
	}
	start, err := process.StartTime(pid)
	if err != nil {
		return created, err
	}
	created.Ref, err = json.Marshal(ref{PID: pid, StartTime: start})
	return created, err
}

// prepare makes the bundle and the line's listener.
func (d *Driver) prepare(spec machine.Spec) error {
	if spec.MemoryBytes == 0 {
		spec.MemoryBytes = d.cfg.MemoryBytes
	}
	if spec.CPUs == 0 {
		spec.CPUs = d.cfg.CPUs
	}
	if err := os.Mkdir(d.lineDir(spec.ID), 0o700); err != nil {
		return err
	}
	config, err := json.Marshal(d.bundle(spec))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.machineDir(spec.ID), "config.json"), config, 0o600); err != nil {
		return err
	}
	_, err = d.listen(spec.ID)
	return err
}

// listen returns the listener of the machine's line, made anew after a restart.
func (d *Driver) listen(id string) (*net.UnixListener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.listeners[id]; l != nil {
		return l, nil
	}
	l, err := socket.Listen(d.lineDir(id), lineSocket)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, machine.ErrGone
	}
	if err != nil {
		return nil, err
	}
	d.listeners[id] = l
	return l, nil
}

// Open closes the channel that there is and waits for the agent in the machine
// to call. The agent calls again whenever its line has broken.
func (d *Driver) Open(ctx context.Context, id string, raw json.RawMessage) (net.Conn, error) {
	if r := parseRef(raw); !process.Running(r.PID, r.StartTime) {
		return nil, fmt.Errorf("gvisor: line of %s: %w", id, machine.ErrGone)
	}
	l, err := d.listen(id)
	if err != nil {
		return nil, fmt.Errorf("gvisor: line of %s: %w", id, err)
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
	conn, err := acceptContext(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("gvisor: line of %s: %w", id, err)
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

// acceptContext accepts one connection, or ends with ctx's cause.
func acceptContext(ctx context.Context, l *net.UnixListener) (net.Conn, error) {
	if err := l.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := l.Accept()
	if ctx.Err() != nil {
		if err == nil {
			_ = conn.Close()
		}
		return nil, context.Cause(ctx)
	}
	if errors.Is(err, net.ErrClosed) {
		return nil, machine.ErrGone
	}
	return conn, err
}

// Wait returns when the sandbox's process has ended.
func (d *Driver) Wait(ctx context.Context, _ string, raw json.RawMessage) error {
	r := parseRef(raw)
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

// Destroy ends the machine and removes every trace of it.
func (d *Driver) Destroy(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("gvisor: bad machine id %q", id)
	}
	d.replaceConn(id, nil)
	d.mu.Lock()
	if l := d.listeners[id]; l != nil {
		_ = l.Close()
		delete(d.listeners, id)
	}
	d.mu.Unlock()
	if _, err := os.Stat(d.machineDir(id)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, destroyTimeout)
	defer cancel()
	if err := d.remove(ctx, id); err != nil {
		return fmt.Errorf("gvisor: destroying machine %s: %w", id, err)
	}
	return nil
}

// remove removes all of a machine, the marker last. A runsc that an earlier
// server has just started may not have been there to be found at first; once
// the marker is gone it cannot begin any more.
func (d *Driver) remove(ctx context.Context, id string) error {
	for {
		if err := d.removeSandbox(ctx, id); err != nil {
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

// List returns the ids of all machines with a marker.
func (d *Driver) List(context.Context) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.cfg.StateDir, "machines"))
	if err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	ids := make([]string, 0, len(entries))
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids, nil
}
