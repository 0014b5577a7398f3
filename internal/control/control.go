// Package control holds the use cases of Anteroom and is the only writer of a
// session's state. Every step of a session is a conditional move in the
// database; what is kept in memory (attached machines, running goroutines) can
// be made again from the rows, and is, after a restart.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/vault"
)

// database is what the service keeps its rows in. storetest says what each
// method guarantees.
type database interface {
	CreateSessionWithin(ctx context.Context, s session.Session, idempotencyKey string, allow func(store.Load) error) (session.Session, bool, error)
	Session(ctx context.Context, id session.ID) (session.Session, error)
	SessionsOf(ctx context.Context, userID string, limit int, before time.Time) ([]session.Session, error)
	OpenSessions(ctx context.Context) ([]session.Session, error)
	Claim(ctx context.Context, id session.ID, owner string, ttl time.Duration) (session.Session, error)
	Heartbeat(ctx context.Context, id session.ID, owner string) error
	Release(ctx context.Context, id session.ID, owner string) error
	Move(ctx context.Context, id session.ID, from, to session.State, owner string, change store.Change, message string) (session.Session, error)
	Admit(ctx context.Context, id session.ID, owner string, deadline time.Time, allow func(store.Load) error, message string) (session.Session, error)
	Ahead(ctx context.Context, id session.ID) (int, error)
	Load(ctx context.Context) (store.Load, error)
	SetAttempt(ctx context.Context, id session.ID, owner string, attempt int, vmID, message string) error
	AddEvent(ctx context.Context, e session.Event) (session.Event, error)
	EventsAfter(ctx context.Context, userID string, sessionID session.ID, after int64, limit int) ([]session.Event, error)
	LatestSeq(ctx context.Context, userID string) (int64, error)

	NextVersion(ctx context.Context, userID, provider string) (int, error)
	CommitCredential(ctx context.Context, id session.ID, owner string, c store.Credential, message string) (session.Session, store.Credential, error)
	CommitRefreshed(ctx context.Context, base string, c store.Credential, machineID, message string) (store.Credential, error)
	Credential(ctx context.Context, id string) (store.Credential, error)
	CredentialsOf(ctx context.Context, userID string) ([]store.Credential, error)
	ActiveCredential(ctx context.Context, userID, provider string) (store.Credential, error)
	ActiveCredentials(ctx context.Context, userID string) ([]store.Credential, error)
	MarkDelivered(ctx context.Context, id, machineID string) error
	DeleteCredential(ctx context.Context, userID, id string) error
	LeftOn(ctx context.Context, userID, machineID string) ([]string, error)
	MarkTakenAway(ctx context.Context, userID, provider, machineID string) error

	InsertVM(ctx context.Context, v store.VM) error
	UpdateVM(ctx context.Context, id string, from []store.VMState, change store.VMChange) error
	VM(ctx context.Context, id string) (store.VM, error)
	LiveVMs(ctx context.Context) ([]store.VM, error)
	VMsOf(ctx context.Context, userID string) ([]store.VM, error)
	CLIMachine(ctx context.Context, userID string) (store.VM, error)

	CreateTicket(ctx context.Context, t store.Ticket) error
	ConsumeTicket(ctx context.Context, hash [32]byte, purpose, subjectID string) (store.Ticket, error)
}

// proxy is the host's end of a machine's way out.
type proxy interface {
	// Serve serves the streams of one machine until they end.
	Serve(ctx context.Context, id egress.Identity, streams net.Listener) error
}

// Config is what a Service needs.
type Config struct {
	Database  database
	Vault     *vault.Vault
	Machines  *machine.Manager
	Providers *provider.Set
	Egress    proxy
	Ways      wayOut
	Logger    *slog.Logger
	StateDir  string // homes of the cli machines are below it
	ImageID   string
	Build     string
	CAPEM     string // extra certificates for guests
	Locale    string // of guests; part of the snapshot
	Languages string
	// Owner names this server in leases; another one for each start.
	Owner string
	// SessionTime is how long a session may take until the person has signed in,
	// where its provider does not set a shorter time, and before that how long it
	// may wait for a place; 0 means 30 minutes.
	SessionTime time.Duration
	// StartsAtOnce limits how many machines and, in those that are up, tools are
	// being started at a time; 0 means 4.
	StartsAtOnce int
	// MaxOpenSessions limits how many sessions of one user may be under way, so
	// that nobody takes all machines; 0 means 16.
	MaxOpenSessions int
	// MaxMachines limits how many sessions may have a machine at a time; 0 means
	// that only memory does. Cli machines do not count: a session that has come
	// as far as the delivery must not fail for want of one.
	MaxMachines int
	// MaxWaiting is how many sessions may wait for a place; 0: none.
	MaxWaiting int
	// WarmMachines is how many machines are kept ready that are nobody's; 0: none.
	WarmMachines int
	// Memory tells for how many more machines the host has memory; nil: for any
	// number. It is called often, also while the database is written.
	Memory  func() int
	Observe Observer
	// Deliver hands a version to this computer's own tools, instead of to the
	// user's cli machine: there are none then. It acknowledges as a guest does.
	// The files' contents are cleared when it returns. Optional.
	Deliver func(ctx context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error)
}

// ErrNoMachines says that this service makes no cli machines, since it
// delivers to the computer that it runs on.
var ErrNoMachines = fmt.Errorf("control: this service has no cli machines: %w", store.ErrConflict)

// here is the holder of what was delivered without a machine.
const here = "this-computer"

// Observer is told of what is worth measuring.
type Observer interface {
	SessionEnded(provider string, state session.State, reason session.Reason, took time.Duration)
	MachineStarted(kind machine.Kind, restored bool, took time.Duration, err error)
	StepTook(step session.State, took time.Duration)
	// SpareTaken is told when a session asked the warm pool for a machine: TakeHit,
	// TakeMiss or TakeFailed, and how long that took.
	SpareTaken(result string, took time.Duration)
}

const (
	maxAttempts    = 3
	leaseTime      = 20 * time.Second
	heartbeatEvery = 5 * time.Second
	sweepEvery     = 5 * time.Second
	ticketTime     = 30 * time.Second
	// finishTime is what a session has for the rest once its person has signed in.
	finishTime = 5 * time.Minute
	// readyTime is how long a request waits for the service to have taken over.
	readyTime = 30 * time.Second
)

// Service is the use cases. Run must be running for sessions to make progress;
// the other methods may be called concurrently.
type Service struct {
	cfg    Config
	db     database
	logger *slog.Logger
	starts *places
	ready  chan struct{} // closed once Run has taken over from the last run
	over   chan struct{} // closed when Run ends

	pool    *pool
	changes changes
	queue   changes // of who waits for a place, and of the places

	mu       sync.Mutex      // guards what follows
	running  context.Context // of Run; nil before it and after it
	workers  sync.WaitGroup
	sessions map[session.ID]*worker
	machines map[string]*machine.Machine
	people   map[string]*person // by user
}

// errNotRunning says that a machine was asked for before Run or after it.
var errNotRunning = fmt.Errorf("control: %w", session.ErrNotReady)

// worker is the goroutine that works on one session.
type worker struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
}

// New returns a service that is not running yet.
func New(cfg Config) (*Service, error) {
	if cfg.Database == nil || cfg.Vault == nil || cfg.Machines == nil || cfg.Providers == nil || cfg.Egress == nil || cfg.Ways == nil || cfg.Owner == "" {
		return nil, errors.New("control: the configuration is not complete")
	}
	if cfg.SessionTime == 0 {
		cfg.SessionTime = 30 * time.Minute
	}
	if cfg.StartsAtOnce == 0 {
		cfg.StartsAtOnce = 4
	}
	if cfg.MaxOpenSessions == 0 {
		cfg.MaxOpenSessions = 16
	}
	if cfg.Observe == nil {
		cfg.Observe = unobserved{}
	}
	return &Service{
		cfg: cfg, db: cfg.Database, logger: cfg.Logger,
		starts:   newPlaces(cfg.StartsAtOnce),
		pool:     newPool(cfg.WarmMachines),
		ready:    make(chan struct{}),
		over:     make(chan struct{}),
		sessions: map[session.ID]*worker{},
		machines: map[string]*machine.Machine{},
		people:   map[string]*person{},
	}, nil
}

// Run takes over what an earlier server left, then works on sessions until ctx
// ends. It returns when every goroutine of the service has ended; machines run
// on, for the next server to adopt. It is called once.
//
// The other methods may be called before it has taken over. Nothing is started
// until then, since it would be cleared away with what the last run has left.
func (s *Service) Run(ctx context.Context) error {
	s.mu.Lock()
	s.running = ctx
	s.mu.Unlock()
	defer s.stop()
	if err := s.recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil // the next server takes over what is left
		}
		return fmt.Errorf("taking over from the last run: %w", err)
	}
	close(s.ready)
	if s.pool.size > 0 {
		s.goRun(s.fill)
	}
	ticker := time.NewTicker(sweepEvery)
	defer ticker.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.logger.Error("looking for sessions to work on", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// stop waits for the workers, whose context has ended, lets go of machines that
// are somebody's and destroys those that are nobody's.
func (s *Service) stop() {
	close(s.over)
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
	s.workers.Wait()
	s.drain(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, m := range s.machines {
		m.Detach()
		delete(s.machines, id)
	}
}

// awaitReady waits until Run has taken over; session.ErrNotReady if it does not
// come to that in time, or has ended.
func (s *Service) awaitReady(ctx context.Context) error {
	timer := time.NewTimer(readyTime)
	defer timer.Stop()
	select {
	case <-s.ready:
	case <-s.over:
	case <-timer.C:
		return errNotRunning
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-s.over:
		return errNotRunning
	default:
		return nil
	}
}

// Ready says whether the service has taken over from the last run and still
// runs: session.ErrNotReady if not. It does not wait.
func (s *Service) Ready() error {
	select {
	case <-s.over:
		return errNotRunning
	default:
	}
	select {
	case <-s.ready:
		return nil
	default:
		return errNotRunning
	}
}

// goRun runs f as one of the service's goroutines; it is dropped while the
// service is not running.
func (s *Service) goRun(f func(ctx context.Context)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx := s.running; ctx != nil && ctx.Err() == nil {
		s.workers.Go(func() { f(ctx) })
	}
}

func (s *Service) home(userID string) string { return filepath.Join(s.cfg.StateDir, "homes", userID) }

type unobserved struct{}

func (unobserved) SessionEnded(string, session.State, session.Reason, time.Duration) {}
func (unobserved) MachineStarted(machine.Kind, bool, time.Duration, error)           {}
func (unobserved) StepTook(session.State, time.Duration)                             {}
func (unobserved) SpareTaken(string, time.Duration)                                  {}
