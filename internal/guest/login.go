//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
)

// Errors of a sign-in that callers tell apart.
var (
	// ErrSignedIn: there are credential files already, so that nobody could say
	// whether they came from this sign-in.
	ErrSignedIn = errors.New("the home directory holds credential files already")
	// ErrNotCaptured: the sign-in has no credentials, or not yet.
	ErrNotCaptured = errors.New("no credentials were captured")
)

// LoginConfig says what to sign in to, and how.
type LoginConfig struct {
	File      *provider.File
	SessionID string
	User      User
	Env       []string // the tool's whole environment, before what its file adds
	CABundle  string   // the path that File.CAEnv's variables get; "" for none

	HookDir     string // a directory of the login's own, for the hooks' names
	HookSocket  string
	HookProgram string // a program whose main calls HookMain under those names

	// Open opens the sign-in page in the browser. It is called from one
	// goroutine at a time.
	Open   func(ctx context.Context, url string) error
	Logger *slog.Logger

	// The waits below have defaults for 0.
	PageTimeout  time.Duration // until the tool asks for its page; 2 minutes
	PatternGrace time.Duration // how long a hook has before an address in the output is taken; 3 s
	Poll         time.Duration // how often the files are looked at; 250 ms
	// Settle is how long the files must have been valid and unchanged before a
	// tool that need not exit is stopped; 1 s. One that should exit by itself
	// has SlowSettle; 1 minute.
	Settle, SlowSettle time.Duration
	StopGrace          time.Duration // between SIGTERM and SIGKILL; 3 s
}

func (c *LoginConfig) setDefaults() {
	for p, d := range map[*time.Duration]time.Duration{
		&c.PageTimeout: 2 * time.Minute, &c.PatternGrace: 3 * time.Second, &c.Poll: 250 * time.Millisecond,
		&c.Settle: time.Second, &c.SlowSettle: time.Minute, &c.StopGrace: 3 * time.Second,
	} {
		if *p == 0 {
			*p = d
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Login is one run of a tool's own sign-in. Methods may be called concurrently.
type Login struct {
	cfg    LoginConfig
	cancel context.CancelFunc
	done   chan struct{}

	mu       sync.Mutex // guards all below
	status   guestapi.AuthStatus
	log      lineLog
	changed  chan struct{} // closed at the next change
	captured *Captured
}

// StartLogin starts the tool's own sign-in command, unmodified, as the person,
// and returns at once. It ends by itself, when ctx ends, or by Stop, which the
// caller must call in any case. Errors: an invalid provider file, ErrSignedIn.
// Whatever goes wrong later is in the status.
func StartLogin(ctx context.Context, cfg LoginConfig) (*Login, error) {
	cfg.setDefaults()
	if err := cfg.File.Validate(); err != nil {
		return nil, err
	}
	there, err := present(cfg.File, cfg.User)
	if err != nil {
		return nil, fmt.Errorf("looking for credential files: %w", err)
	}
	if there {
		return nil, ErrSignedIn
	}
	ctx, cancel := context.WithCancel(ctx)
	l := &Login{
		cfg: cfg, cancel: cancel, done: make(chan struct{}), changed: make(chan struct{}),
		status: guestapi.AuthStatus{Seq: 1, SessionID: cfg.SessionID, Phase: guestapi.PhaseRunning},
		log:    lineLog{redact: cfg.File.Redactor()},
	}
	go l.run(ctx)
	return l, nil
}

// Stop ends the sign-in if it still runs, with the tool and everything that it
// started, and returns when all of it has ended. Captured credentials stay.
func (l *Login) Stop() {
	l.cancel()
	<-l.done
}

// SessionID is the session that the sign-in is for.
func (l *Login) SessionID() string { return l.cfg.SessionID }

// Status returns the status as soon as its Seq is above after, at the latest
// after wait or when ctx ends.
func (l *Login) Status(ctx context.Context, after int64, wait time.Duration) guestapi.AuthStatus {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		l.mu.Lock()
		s, changed := l.status, l.changed
		s.Log, s.LogFrom = slices.Clone(l.log.lines), l.log.from
		l.mu.Unlock()
		if s.Seq > after {
			return s
		}
		select {
		case <-changed:
		case <-timer.C:
			return s
		case <-ctx.Done():
			return s
		}
	}
}

// Credentials returns what was captured, or ErrNotCaptured.
func (l *Login) Credentials() (guestapi.Credentials, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.captured == nil {
		return guestapi.Credentials{}, ErrNotCaptured
	}
	return guestapi.Credentials{
		SessionID: l.cfg.SessionID,
		Provider:  l.cfg.File.Name,
		Files:     slices.Clone(l.captured.Files),
		Account:   l.captured.Account,
		ExpiresAt: l.captured.ExpiresAt,
	}, nil
}

// update changes the status and wakes whoever waits for it.
func (l *Login) update(change func(s *guestapi.AuthStatus)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.status)
	l.wake()
}

// wake is called with the lock held.
func (l *Login) wake() {
	l.status.Seq++
	close(l.changed)
	l.changed = make(chan struct{})
}

// keep adds a line to the log.
func (l *Login) keep(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log.add(line) {
		l.wake()
	}
}

// outcome is how a sign-in ended. A zero reason with take says that the files
// are to be captured.
type outcome struct {
	take   bool
	reason session.Reason
	detail string
	exit   *int
	err    error // for the agent's log
}

func (l *Login) run(ctx context.Context) {
	defer close(l.done)
	defer l.cancel()
	o, captured := l.attempt(ctx)
	if o.err != nil {
		l.cfg.Logger.Warn("sign-in failed", "provider", l.cfg.File.Name, "reason", o.reason, "err", o.err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.captured = captured
	l.status.ExitCode = o.exit
	l.status.Phase = guestapi.PhaseCaptured
	if captured == nil {
		l.status.Phase, l.status.Reason, l.status.Detail = guestapi.PhaseFailed, string(o.reason), o.detail
	}
	l.wake()
}

var errLoginOver = errors.New("the time for the sign-in is over")

// attempt runs the tool to its end and captures the files once it is stopped.
func (l *Login) attempt(ctx context.Context) (outcome, *Captured) {
	f := l.cfg.File
	ctx, cancel := context.WithTimeoutCause(ctx, f.Login.TimeLimit(), errLoginOver)
	defer cancel()
	hooks, err := listenHooks(l.cfg.HookSocket, l.cfg.User)
	if err != nil {
		return outcome{reason: session.ReasonInternal, err: err}, nil
	}
	defer hooks.close()
	env, err := l.environment()
	if err != nil {
		return outcome{reason: session.ReasonInternal, err: err}, nil
	}
	t, err := startTool(f, l.cfg.User, env, l.keep)
	switch {
	case errors.Is(err, errNotInstalled): // a provider file brings no program along
		return outcome{reason: session.ReasonToolMissing, err: err}, nil
	case err != nil:
		return outcome{reason: session.ReasonInternal, detail: f.Title + " could not be started.", err: err}, nil
	}
	o := (&loginWatch{Login: l, tool: t, hooks: hooks}).untilEnd(ctx)
	t.stop(l.cfg.StopGrace)
	if !o.take {
		return o, nil
	}
	captured, err := Capture(f, l.cfg.User)
	switch {
	case errors.Is(err, errNoFiles) && o.exit != nil:
		return outcome{reason: session.ReasonLoginExited, detail: f.Title + " ended without having signed in.", exit: o.exit, err: err}, nil
	case err != nil:
		return outcome{reason: session.ReasonCaptureInvalid, exit: o.exit, err: err}, nil
	}
	return o, &captured
}

// environment is what the tool sees.
func (l *Login) environment() ([]string, error) {
	f := l.cfg.File
	env := withEnv(l.cfg.Env, f.Login.Env)
	if l.cfg.CABundle != "" {
		env = withEnv(env, caEnv(f, l.cfg.CABundle))
	}
	hooks, err := installHooks(l.cfg.HookDir, l.cfg.HookProgram, f.URL.Hooks, env)
	if err != nil {
		return nil, err
	}
	hooks[hookSocketVar] = l.cfg.HookSocket
	return withEnv(env, hooks), nil
}

// caEnv gives f's variables for certificates their value.
func caEnv(f *provider.File, bundle string) map[string]string {
	env := make(map[string]string, len(f.CAEnv))
	for _, name := range f.CAEnv {
		env[name] = bundle
	}
	return env
}
