package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// failure ends a session without success. err is for the log only.
type failure struct {
	reason session.Reason
	detail string
	err    error
}

func (f *failure) Error() string { return fmt.Sprintf("%s: %s: %v", f.reason, f.detail, f.err) }
func (f *failure) Unwrap() error { return f.err }

func fail(reason session.Reason, err error) error { return &failure{reason: reason, err: err} }

// failFor is fail, but where the host has no room that is the reason.
func failFor(reason session.Reason, err error) error {
	if r := noRoom(err); r != "" {
		reason = r
	}
	return fail(reason, err)
}

// noRoom is the reason of an error which means that the host has no room; empty
// for every other one.
func noRoom(err error) session.Reason {
	switch {
	case errors.Is(err, machine.ErrDiskFull), errors.Is(err, store.ErrDiskFull):
		return session.ReasonDiskFull
	case errors.Is(err, machine.ErrNoMemory):
		return session.ReasonNoMemory
	}
	return ""
}

// errDeadline is the cause with which the work on a session that took too
// long ends.
var errDeadline = errors.New("the session's time is over")

// workOn starts the goroutine that works on a session, unless there is one or
// the service is not ready: the first sweep finds the session then.
func (s *Service) workOn(id session.ID) {
	select {
	case <-s.ready:
	default:
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil || s.running.Err() != nil || s.sessions[id] != nil {
		return
	}
	ctx, cancel := context.WithCancelCause(s.running)
	w := &worker{cancel: cancel, done: make(chan struct{})}
	s.sessions[id] = w
	s.workers.Go(func() {
		defer close(w.done)
		defer func() {
			cancel(nil)
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.sessions, id)
		}()
		s.work(ctx, cancel, id)
	})
}

// interrupt ends the work on a session with a cause, if there is any.
func (s *Service) interrupt(id session.ID, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.sessions[id]; w != nil {
		w.cancel(cause)
	}
}

// work takes a session from whatever state it is in to a final one, and then
// destroys its machine. It stops early, leaving all as it is for another
// server, when ctx ends because the service stops or the lease is lost.
func (s *Service) work(ctx context.Context, cancel context.CancelCauseFunc, id session.ID) {
	logger := s.logger.With("session", id)
	now, err := s.db.Claim(ctx, id, s.cfg.Owner, leaseTime)
	if err != nil {
		if !errors.Is(err, session.ErrConflict) && ctx.Err() == nil {
			logger.Error("claiming the session", "err", err)
		}
		return
	}
	beat := s.heartbeat(ctx, cancel, id)
	defer beat()
	timer := time.AfterFunc(time.Until(now.Deadline), func() { cancel(errDeadline) })
	defer timer.Stop()

	s.cfg.Ways.Use(now.UserID)
	defer s.cfg.Ways.Done(now.UserID)
	for !now.State.Final() {
		began := time.Now()
		next, err := s.step(ctx, now)
		if err == nil {
			s.cfg.Observe.StepTook(now.State, time.Since(began))
			now = next
			timer.Reset(time.Until(now.Deadline))
			s.changes.tell()
			continue
		}
		now, err = s.settle(ctx, now, err)
		if err != nil {
			logger.Info("work on the session stops here", "state", now.State, "err", err)
			s.release(ctx, id)
			return
		}
	}
	s.cfg.Observe.SessionEnded(now.Provider, now.State, now.Reason, now.UpdatedAt.Sub(now.CreatedAt))
	logger.Info("session ended", "state", now.State, "reason", now.Reason, "provider", now.Provider, "attempts", now.Attempt)
	s.cleanUp(ctx, now)
	s.release(ctx, id)
	s.freed()
}

// settle decides what an error of a step means for the session: another state
// that somebody else moved it to, a final state, or (an error) none.
func (s *Service) settle(ctx context.Context, now session.Session, err error) (session.Session, error) {
	// What must be written is written also after ctx has ended.
	writing, done := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer done()
	var interrupted *failure
	if errors.As(context.Cause(ctx), &interrupted) {
		return s.end(writing, now, session.Failed, interrupted)
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errDeadline) && !errors.Is(cause, errCancelled) {
		return now, cause
	}
	if errors.Is(err, session.ErrConflict) || errors.Is(context.Cause(ctx), errCancelled) {
		actual, readErr := s.db.Session(writing, now.ID)
		if readErr != nil {
			return now, readErr
		}
		if actual.State == now.State {
			return now, err // the same state, another owner
		}
		return actual, nil
	}
	to, f := session.Failed, &failure{}
	switch {
	case errors.Is(context.Cause(ctx), errDeadline):
		to, f = session.Expired, &failure{reason: session.ReasonExpired, err: err}
		if now.State == session.Requested {
			f.detail = "No place became free in time."
		}
	case errors.As(err, &f):
		if f.reason == session.ReasonExpired {
			to = session.Expired
		}
	default:
		f = &failure{reason: session.ReasonInternal, err: err}
	}
	return s.end(writing, now, to, f)
}

// end moves a session to a final state without success; somebody else may have
// moved it in between.
func (s *Service) end(ctx context.Context, now session.Session, to session.State, f *failure) (session.Session, error) {
	message := f.reason.Sentence()
	if now.State == session.Delivering && s.cfg.Deliver == nil { // where the vault stays
		f.detail = storedAnyway(f.reason)
		message = strings.TrimSpace(message + " " + f.detail)
	}
	s.logger.Warn("session fails", "session", now.ID, "state", now.State, "to", to, "reason", f.reason, "detail", f.detail, "err", f.err)
	next, err := s.db.Move(ctx, now.ID, now.State, to, s.cfg.Owner, store.Change{Reason: &f.reason, Detail: &f.detail}, message)
	if errors.Is(err, session.ErrConflict) {
		next, err = s.db.Session(ctx, now.ID)
	}
	if err != nil {
		return now, err
	}
	s.changes.tell()
	return next, nil
}

// heartbeat keeps the lease until the returned function is called; a lost
// lease ends the work.
func (s *Service) heartbeat(ctx context.Context, cancel context.CancelCauseFunc, id session.ID) (stop func()) {
	beating, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(heartbeatEvery)
		defer ticker.Stop()
		for {
			select {
			case <-beating.Done():
				return
			case <-ticker.C:
			}
			if err := s.db.Heartbeat(beating, id, s.cfg.Owner); errors.Is(err, session.ErrConflict) {
				cancel(fmt.Errorf("the lease is lost: %w", err))
				return
			}
		}
	}()
	return func() { end(); <-done }
}

func (s *Service) release(ctx context.Context, id session.ID) {
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer done()
	if err := s.db.Release(ctx, id, s.cfg.Owner); err != nil && !errors.Is(err, session.ErrConflict) {
		s.logger.Warn("releasing the session", "session", id, "err", err)
	}
}

// step does the work of one state and returns the session in the next.
func (s *Service) step(ctx context.Context, now session.Session) (session.Session, error) {
	switch now.State {
	case session.Requested:
		return s.stepRequested(ctx, now)
	case session.Starting:
		return s.stepStarting(ctx, now)
	case session.Waiting:
		return s.stepWaiting(ctx, now)
	case session.Capturing:
		return s.stepCapturing(ctx, now)
	case session.Storing:
		return s.stepStoring(ctx, now)
	case session.Delivering:
		return s.stepDelivering(ctx, now)
	default:
		return now, fmt.Errorf("no work is known for state %q", now.State)
	}
}

// stepStarting makes the session's machine, in up to maxAttempts attempts. The
// session names the machine only once it runs; one that a restart cut off in
// the middle is found by its row, and destroyed before this step runs again.
func (s *Service) stepStarting(ctx context.Context, now session.Session) (session.Session, error) {
	file, err := s.cfg.Providers.Get(now.Provider)
	if err != nil {
		return now, fail(session.ReasonProviderGone, err)
	}
	opening, stop := context.WithCancel(ctx)
	defer stop()
	way := s.openWay(opening, now, file)
	last := errors.New("the server was restarted in every attempt")
	for attempt := now.Attempt + 1; attempt <= maxAttempts; attempt++ {
		message := fmt.Sprintf("Starting a browser machine (attempt %d of %d).", attempt, maxAttempts)
		if err := s.db.SetAttempt(ctx, now.ID, s.cfg.Owner, attempt, "", message); err != nil {
			return now, err
		}
		s.changes.tell()
		vm, err := s.startBrowser(ctx, now, attempt > 1 && attempt == maxAttempts)
		if err == nil {
			select {
			case out := <-way:
				return s.machineStarted(ctx, now, vm, file, out)
			case <-ctx.Done():
				return s.machineStarted(ctx, now, vm, file, opened{err: ctx.Err()})
			}
		}
		if ctx.Err() != nil {
			return now, err
		}
		last = err
		s.logger.Warn("browser machine did not start", "session", now.ID, "attempt", attempt, "err", err)
		// A full disk or memory is not mended by trying again at once, unless
		// there was something in it that can go.
		if errors.Is(err, machine.ErrNoMemory) && s.giveWay(ctx) {
			continue
		}
		if noRoom(err) != "" {
			break
		}
	}
	return now, failFor(session.ReasonMachineStart, last)
}

// machineStarted notes the session's machine and where it leaves from; one that
// the session will not know of, or that has no way out, is destroyed. From here
// on the person has the provider's time, if that is less than the session's.
func (s *Service) machineStarted(ctx context.Context, now session.Session, vm string, file *provider.File, out opened) (session.Session, error) {
	var next session.Session
	err := out.err
	if err == nil {
		change := throughWay(store.Change{VMID: &vm}, out.way)
		if end := time.Now().Add(file.Login.TimeLimit()); end.Before(now.Deadline) {
			change.Deadline = &end
		}
		next, err = s.db.Move(ctx, now.ID, session.Starting, session.Waiting, s.cfg.Owner, change, "The browser machine is up; the tool is asking for its sign-in page.")
	}
	if err == nil {
		s.pool.kick()
		return next, nil
	}
	if destroyErr := s.destroyID(context.WithoutCancel(ctx), vm, ""); destroyErr != nil {
		s.logger.Error("destroying a machine that its session does not know; the sweep tries again", "session", now.ID, "machine", vm, "err", destroyErr)
	}
	return now, err
}

// sessionMachine returns the session's running machine, adopted if this
// process has not attached to it yet.
func (s *Service) sessionMachine(ctx context.Context, now session.Session) (*machine.Machine, error) {
	if m := s.machine(now.VMID); m != nil {
		return m, nil
	}
	vm, err := s.db.VM(ctx, now.VMID)
	if err != nil {
		return nil, fail(session.ReasonMachineLost, err)
	}
	m, err := s.adopt(ctx, vm, aboutOf(now))
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, fail(session.ReasonMachineLost, err)
	}
	return m, nil
}

// toolTime is how long a tool that starts keeps others from starting, if it does
// not get as far as its sign-in page.
const toolTime = 15 * time.Second

// statusWait is how long a guest is asked to wait for news; statusPause how
// long it is left alone after an answer: a guest that has news all the time
// must cost little.
const (
	statusWait  = 25 * time.Second
	statusPause = 100 * time.Millisecond
)

// stepWaiting has the tool sign in, and waits until the person has done it.
func (s *Service) stepWaiting(ctx context.Context, now session.Session) (session.Session, error) {
	file, err := s.cfg.Providers.Get(now.Provider)
	if err != nil {
		return now, fail(session.ReasonProviderGone, err)
	}
	m, err := s.sessionMachine(ctx, now)
	if err != nil {
		return now, err
	}
	s.keepWay(ctx, now, file)
	log := s.logReader(ctx, now)
	release, err := s.starts.tool(ctx)
	if err != nil {
		return now, err
	}
	defer release()
	defer time.AfterFunc(toolTime, release).Stop()
	var status guestapi.AuthStatus
	for started := false; ; {
		guest, err := m.Guest(ctx)
		if err != nil {
			return now, lost(err)
		}
		if !started {
			// Asked again after a restart, the guest answers with what there is.
			status, err = guest.StartAuth(ctx, guestapi.AuthRequest{SessionID: string(now.ID), Provider: file})
			started = err == nil
		} else {
			status, err = guest.Status(ctx, status.Seq, statusWait)
		}
		switch {
		case answered(err):
			return now, fail(session.ReasonMachineLost, err)
		case err != nil:
			// The line broke or the machine ended: m.Guest tells which.
			if err := pause(ctx, brokenPause); err != nil {
				return now, err
			}
			continue
		}
		if err := log.read(ctx, status); err != nil {
			return now, err
		}
		switch status.Phase {
		case guestapi.PhaseOpened:
			release()
		case guestapi.PhaseCaptured:
			end := time.Now().Add(finishTime)
			return s.db.Move(ctx, now.ID, session.Waiting, session.Capturing, s.cfg.Owner, store.Change{Deadline: &end}, "You are signed in; taking over the credential files.")
		case guestapi.PhaseFailed:
			return now, guestFailure(status)
		}
		if err := pause(ctx, statusPause); err != nil {
			return now, err
		}
	}
}

// brokenPause is how long a request that did not get through waits before it is
// tried again.
const brokenPause = 50 * time.Millisecond

// answered says whether an error is a guest's answer, of whatever kind, and not
// that of a line that broke.
func answered(err error) bool {
	var refused *guestapi.StatusError
	return errors.As(err, &refused) || errors.Is(err, guestapi.ErrResponse)
}

// guestFailure turns what a guest says of its failure into a known reason.
func guestFailure(status guestapi.AuthStatus) error {
	f := &failure{reason: session.ReasonLoginExited, err: errors.New("the guest reported it")}
	switch r := session.Reason(status.Reason); r {
	case session.ReasonLoginExited, session.ReasonLoginURL, session.ReasonLoginTimeout, session.ReasonCaptureInvalid,
		session.ReasonUpstream, session.ReasonExpired, session.ReasonToolMissing, session.ReasonInternal:
		f.reason = r
	}
	f.detail = store.Clip(status.Detail, 300)
	return f
}

func lost(err error) error {
	if errors.Is(err, machine.ErrGone) {
		return fail(session.ReasonMachineLost, err)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// cleanUp destroys the machine of a session that has ended.
func (s *Service) cleanUp(ctx context.Context, now session.Session) {
	if now.VMID == "" {
		return
	}
	ctx = context.WithoutCancel(ctx)
	failed := ""
	if now.Reason == session.ReasonMachineLost || now.Reason == session.ReasonMachineStart {
		failed = string(now.Reason)
	}
	if err := s.destroyID(ctx, now.VMID, failed); err != nil {
		s.logger.Error("destroying the session's machine; the sweep tries again", "session", now.ID, "machine", now.VMID, "err", err)
	}
}
