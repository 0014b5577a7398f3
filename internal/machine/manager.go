package machine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
)

// Time limits. They are for a host that is busy with ten machines at once, and of
// a driver that is Paced, its multiple of them.
const (
	openTimeout      = 30 * time.Second
	configureTimeout = 60 * time.Second
	destroyTimeout   = 60 * time.Second
	maxClockError    = 5 * time.Second

	// A line that broke is opened again at once; one that keeps breaking, after
	// waits that grow from reopenFirst to reopenLast, until it has lasted for
	// reopenCalm. A guest that breaks its line in a loop costs little by that.
	reopenFirst = 100 * time.Millisecond
	reopenLast  = 5 * time.Second
	reopenCalm  = 10 * time.Second
	// waitAgain is the time between two tries of a Wait that failed.
	waitAgain = time.Second
	// maxQuoted is how much of a guest's words an error repeats.
	maxQuoted = 64
)

// ErrRefused says that a guest did not acknowledge its configuration as it
// should: it is no machine then.
var ErrRefused = errors.New("machine: the guest did not acknowledge its configuration")

// Egress serves the streams that a guest opens, until streams is closed.
type Egress func(ctx context.Context, streams net.Listener) error

// Settings are what a machine is given at its start.
type Settings struct {
	Configure guestapi.Configure // id, entropy and clock are filled in
	Egress    Egress
	Build     string // what the guest's build must be
}

// Manager starts, adopts and destroys machines of one driver. Its methods may
// be called concurrently, for different machines.
type Manager struct {
	driver Driver
	logger *slog.Logger
}

// NewManager returns the manager of a driver's machines.
func NewManager(driver Driver, logger *slog.Logger) *Manager {
	return &Manager{driver: driver, logger: logger}
}

// Driver returns the driver's name, as stored in rows.
func (m *Manager) Driver() string { return m.driver.Name() }

// Start makes a machine and returns it once the guest has acknowledged its
// configuration. After an error nothing of it is left. The caller has written
// the machine's durable marker before.
func (m *Manager) Start(ctx context.Context, spec Spec, settings Settings) (*Machine, Created, error) {
	created, err := m.create(ctx, spec)
	if err != nil {
		return nil, Created{}, err
	}
	mc, err := m.attach(ctx, spec.ID, created.Ref, settings, fresh)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		return nil, Created{}, errors.Join(err, m.driver.Destroy(undo, spec.ID))
	}
	return mc, created, nil
}

// create has the driver make a machine, and says so where that takes longer than
// it would from a snapshot.
func (m *Manager) create(ctx context.Context, spec Spec) (Created, error) {
	created, err := m.driver.Create(ctx, spec)
	if err == nil && !created.Restored {
		m.logger.Info("machine starts cold", "machine", spec.ID, "kind", spec.Kind, "why", created.ColdReason)
	}
	return created, err
}

// Adopt attaches to a machine that an earlier process started. ErrGone says
// that it no longer runs.
func (m *Manager) Adopt(ctx context.Context, id string, ref json.RawMessage, settings Settings) (*Machine, error) {
	return m.attach(ctx, id, ref, settings, known)
}

// Destroy removes every trace of a machine. Idempotent.
func (m *Manager) Destroy(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer cancel()
	return m.driver.Destroy(ctx, id)
}

// Reclaim destroys the machines on this host that keep does not name, and
// returns their ids.
func (m *Manager) Reclaim(ctx context.Context, keep map[string]bool) ([]string, error) {
	ids, err := m.driver.List(ctx)
	if err != nil {
		return nil, err
	}
	var gone []string
	var errs []error
	for _, id := range ids {
		if keep[id] {
			continue
		}
		if err := m.Destroy(ctx, id); err != nil {
			errs = append(errs, err)
			continue
		}
		gone = append(gone, id)
	}
	return gone, errors.Join(errs...)
}

// Machine is a machine that runs and is configured. Its line is opened again
// whenever it breaks, until the machine ends or Detach is called.
type Machine struct {
	id       string
	ref      json.RawMessage
	manager  *Manager
	settings Settings
	logger   *slog.Logger

	stop  context.CancelFunc
	pace  time.Duration   // what time limits are multiplied by
	ended <-chan struct{} // closed when the machine no longer runs or was let go
	work  sync.WaitGroup
	done  chan struct{} // closed when the machine no longer runs

	mu    sync.Mutex // guards what follows
	guest *guestapi.Client
	up    chan struct{} // closed while guest is set
}

// history is whether a machine may have been configured before.
type history bool

const (
	fresh history = false
	known history = true
)

// attach opens the machine's line, configures the guest and keeps the line up.
func (m *Manager) attach(ctx context.Context, id string, ref json.RawMessage, settings Settings, before history) (*Machine, error) {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	mc := &Machine{
		id: id, ref: ref, manager: m, settings: settings, logger: m.logger.With("machine", id),
		stop: stop, pace: time.Duration(PaceOf(m.driver)), ended: run.Done(), done: make(chan struct{}), up: make(chan struct{}),
	}
	first, err := mc.connect(ctx, run, before)
	if err != nil {
		mc.Detach()
		return nil, err
	}
	mc.work.Go(func() { mc.watch(run) })
	mc.work.Go(func() { mc.keep(run, first) })
	return mc, nil
}

// watch notes when the machine ends.
func (mc *Machine) watch(run context.Context) {
	if mc.manager.awaitEnd(run, mc.id, mc.ref) {
		close(mc.done)
		mc.stop()
	}
}

// awaitEnd returns true when the machine no longer runs, or false when run ends.
// A Wait that fails (no descriptors left, say) tells nothing of the machine: it
// is asked again.
func (m *Manager) awaitEnd(run context.Context, id string, ref json.RawMessage) bool {
	for {
		err := m.driver.Wait(run, id, ref)
		if err == nil {
			return true
		}
		if run.Err() != nil {
			return false
		}
		m.logger.Error("watching the machine; it is tried again", "machine", id, "err", err)
		if !pause(run, waitAgain) {
			return false
		}
	}
}

// pause waits for d and says whether run still goes on.
func pause(run context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-run.Done():
		return false
	case <-timer.C:
		return run.Err() == nil
	}
}

// connect opens the line once, hands the guest's streams to the egress, and
// configures the guest. The line lives as long as run does.
func (mc *Machine) connect(ctx, run context.Context, before history) (*line.Line, error) {
	l, err := openLine(ctx, mc.manager.driver, mc.id, mc.ref)
	if err != nil {
		return nil, err
	}
	client := guestapi.NewClient(l)
	if err := mc.configure(ctx, client, before); err != nil {
		_ = l.Close()
		return nil, err
	}
	mc.work.Go(func() {
		defer func() { _ = l.Close() }()
		stop := context.AfterFunc(run, func() { _ = l.Close() })
		defer stop()
		if err := mc.settings.Egress(run, l); err != nil && run.Err() == nil {
			mc.logger.Warn("egress of the machine ended", "err", err)
		}
	})
	mc.set(client)
	return l, nil
}

// openLine opens the line of a machine.
func openLine(ctx context.Context, driver Driver, id string, ref json.RawMessage) (*line.Line, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout*time.Duration(PaceOf(driver)))
	defer cancel()
	conn, err := driver.Open(ctx, id, ref)
	if err != nil {
		return nil, fmt.Errorf("opening the line: %w", err)
	}
	return line.Host(conn)
}

// configure sends the configuration and checks the acknowledgement.
func (mc *Machine) configure(ctx context.Context, client *guestapi.Client, before history) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout*mc.pace)
	defer cancel()
	in := mc.settings.Configure
	in.MachineID = mc.id
	in.Entropy = make([]byte, 64)
	if _, err := rand.Read(in.Entropy); err != nil {
		return err
	}
	sum := sha256.Sum256(in.Entropy)
	in.WallClock = time.Now()
	ack, err := client.Configure(ctx, in)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	switch {
	case ack.MachineID != mc.id:
		return fmt.Errorf("%w: it answers as %.*q", ErrRefused, maxQuoted, ack.MachineID)
	case ack.Build != mc.settings.Build:
		return fmt.Errorf("%w: its agent is build %.*q, this server's is %q (build the image again)", ErrRefused, maxQuoted, ack.Build, mc.settings.Build)
	case ack.Again && before == fresh:
		return fmt.Errorf("%w: it says that it has been configured before", ErrRefused)
	case !ack.Again && ack.Entropy != hex.EncodeToString(sum[:]):
		return fmt.Errorf("%w: it has not taken the entropy", ErrRefused)
	// Read somewhere between the question and its answer, however long that was.
	case ack.Clock.Before(in.WallClock.Add(-maxClockError)) || ack.Clock.After(time.Now().Add(maxClockError)):
		return fmt.Errorf("%w: its clock says %s", ErrRefused, ack.Clock.UTC())
	}
	if ack.Uncaught != "" {
		mc.logger.Warn("programs that ignore the proxy variables reach nothing in this machine", "why", fmt.Sprintf("%.*q", maxQuoted, ack.Uncaught))
	}
	return nil
}

// keep opens the line again whenever it has broken.
func (mc *Machine) keep(run context.Context, l *line.Line) {
	var wait time.Duration
	for {
		since := time.Now()
		select {
		case <-run.Done():
			_ = l.Close()
			return
		case <-l.Done():
		}
		mc.unset()
		if time.Since(since) >= reopenCalm {
			wait = 0
		}
		for l = nil; l == nil; {
			if !pause(run, wait) {
				return
			}
			wait = min(max(2*wait, reopenFirst), reopenLast)
			next, err := mc.connect(run, run, known)
			if err == nil {
				l = next
				mc.logger.Info("line is up again")
			} else if run.Err() == nil {
				mc.logger.Warn("line could not be opened again", "err", err)
			}
		}
	}
}

func (mc *Machine) set(client *guestapi.Client) {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	mc.guest = client
	close(mc.up)
}

func (mc *Machine) unset() {
	mc.mu.Lock()
	defer mc.mu.Unlock()
	mc.guest = nil
	mc.up = make(chan struct{})
}

// ID is the machine's id.
func (mc *Machine) ID() string { return mc.id }

// Done is closed once the machine no longer runs.
func (mc *Machine) Done() <-chan struct{} { return mc.done }

// Guest returns a client for the agent, waiting for the line to be up. ErrGone
// says that the machine has ended, or that this process has let go of it.
func (mc *Machine) Guest(ctx context.Context) (*guestapi.Client, error) {
	for {
		select {
		case <-mc.ended:
			return nil, ErrGone
		default:
		}
		mc.mu.Lock()
		client, up := mc.guest, mc.up
		mc.mu.Unlock()
		if client != nil {
			return client, nil
		}
		select {
		case <-up:
		case <-mc.ended:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Detach lets go of the machine, which runs on; it returns when nothing of
// this process is attached to it any more. Idempotent.
func (mc *Machine) Detach() {
	mc.stop()
	mc.work.Wait()
}
