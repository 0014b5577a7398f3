package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/stream"
)

// errCancelled is the cause with which a cancelled session's work ends.
var errCancelled = errors.New("the session was cancelled")

// Providers returns what one can sign in to.
func (s *Service) Providers() []*provider.File { return s.cfg.Providers.All() }

// StartSession makes a session and starts to work on it. repeated says that
// the user had made it before with the same idempotency key. store.ErrTooMany
// if they have as many under way as they may, store.ErrQueueFull if it could not
// start now and as many wait as may.
func (s *Service) StartSession(ctx context.Context, userID, providerName, idempotencyKey string, view guestapi.View) (session.Session, bool, error) {
	file, err := s.cfg.Providers.Get(providerName)
	if err != nil {
		return session.Session{}, false, err
	}
	about, err := json.Marshal(view)
	if err != nil {
		return session.Session{}, false, err
	}
	id := session.NewID()
	out, created, err := s.db.CreateSessionWithin(ctx, session.Session{
		ID: id, UserID: userID, Provider: file.Name, State: session.Requested,
		ViewerURL: "/sessions/" + string(id), View: string(about),
		Deadline: time.Now().Add(s.cfg.SessionTime),
	}, idempotencyKey, s.mayAsk)
	if err != nil {
		return session.Session{}, false, err
	}
	if created {
		s.changes.tell()
		s.workOn(out.ID)
	}
	return out, !created, s.inQueue(ctx, &out)
}

// Session returns a session of the user's.
func (s *Service) Session(ctx context.Context, userID string, id session.ID) (session.Session, error) {
	out, err := s.db.Session(ctx, id)
	if err == nil && out.UserID != userID {
		err = store.ErrNotFound
	}
	if err != nil {
		return session.Session{}, err
	}
	return out, s.inQueue(ctx, &out)
}

// Sessions returns the user's sessions, newest first, after the one named.
func (s *Service) Sessions(ctx context.Context, userID string, limit int, before session.ID) ([]session.Session, error) {
	var from time.Time
	if before != "" {
		last, err := s.Session(ctx, userID, before)
		if err != nil {
			return nil, err
		}
		from = last.CreatedAt
	}
	all, err := s.db.SessionsOf(ctx, userID, limit, from)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if err := s.inQueue(ctx, &all[i]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Cancel ends a session of the user's; one that has ended is a conflict. What it
// has stored by then stays, and the session says so.
func (s *Service) Cancel(ctx context.Context, userID string, id session.ID) (session.Session, error) {
	for {
		now, err := s.Session(ctx, userID, id)
		if err != nil {
			return session.Session{}, err
		}
		reason, detail := session.ReasonCancelled, ""
		if now.State == session.Delivering {
			detail = storedAnyway(reason)
		}
		out, err := s.db.Move(ctx, id, now.State, session.Cancelled, "", store.Change{Reason: &reason, Detail: &detail},
			strings.TrimSpace(reason.Sentence()+" "+detail))
		var conflict *session.ConflictError
		if errors.As(err, &conflict) && !now.State.Final() && !conflict.Actual.Final() {
			continue // it moved on in between
		}
		if err != nil {
			return session.Session{}, err
		}
		s.changes.tell()
		s.freed()
		s.interrupt(id, errCancelled)
		return out, nil
	}
}

// EventsAfter returns the user's events after one that was seen.
func (s *Service) EventsAfter(ctx context.Context, userID string, id session.ID, after int64, limit int) ([]session.Event, error) {
	return s.db.EventsAfter(ctx, userID, id, after, limit)
}

// LatestSeq returns the number of the user's newest event; 0 if there is none.
func (s *Service) LatestSeq(ctx context.Context, userID string) (int64, error) {
	return s.db.LatestSeq(ctx, userID)
}

// Changed returns a channel that is closed at the next event.
func (s *Service) Changed() <-chan struct{} { return s.changes.wait() }

// Credentials returns the user's active credentials, without their secrets.
func (s *Service) Credentials(ctx context.Context, userID string) ([]store.Credential, error) {
	return s.db.CredentialsOf(ctx, userID)
}

// Credential returns one credential of the user's.
func (s *Service) Credential(ctx context.Context, userID, id string) (store.Credential, error) {
	c, err := s.db.Credential(ctx, id)
	if err == nil && c.UserID != userID {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.Credential{}, err
	}
	return c, nil
}

// DeleteCredential forgets all versions of a credential. Their files are taken
// away from the user's machine, as soon as that can be reached and whatever
// happens until then.
func (s *Service) DeleteCredential(ctx context.Context, userID, id string) error {
	if _, err := s.Credential(ctx, userID, id); err != nil {
		return err
	}
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return err
	}
	defer p.unlock()
	if err := s.db.DeleteCredential(ctx, userID, id); err != nil {
		return err
	}
	s.changes.tell()
	// What does not come of this now is left to the machine's next round.
	if vm, err := s.db.CLIMachine(ctx, userID); err == nil {
		if m := s.machine(vm.ID); m != nil {
			s.reconcile(ctx, p, m)
		}
	}
	return nil
}

// Deliver hands the credential to the user's machine again and returns the
// version that was delivered: one that is newer than id, where the tool on the
// machine has refreshed it meanwhile. store.ErrReplaced if id is not the active
// version.
func (s *Service) Deliver(ctx context.Context, userID, id string) (store.Credential, error) {
	c, err := s.Credential(ctx, userID, id)
	if err != nil {
		return store.Credential{}, err
	}
	if err := s.awaitReady(ctx); err != nil {
		return store.Credential{}, err
	}
	if !c.Active {
		return store.Credential{}, fmt.Errorf("version %d: %w", c.Version, store.ErrReplaced)
	}
	handed, err := s.deliver(ctx, userID, c.Provider)
	if err != nil {
		return store.Credential{}, err
	}
	return s.Credential(ctx, userID, handed.ID)
}

// Machines returns the user's machines that exist.
func (s *Service) Machines(ctx context.Context, userID string) ([]store.VM, error) {
	all, err := s.db.VMsOf(ctx, userID)
	if err != nil {
		return nil, err
	}
	live := all[:0]
	for _, vm := range all {
		if vm.State != store.VMDestroyed && vm.State != store.VMFailed {
			live = append(live, vm)
		}
	}
	return live, nil
}

// Machine returns a machine of the user's, also one that is gone.
func (s *Service) Machine(ctx context.Context, userID, id string) (store.VM, error) {
	vm, err := s.db.VM(ctx, id)
	if err == nil && vm.UserID != userID {
		err = store.ErrNotFound
	}
	if err != nil {
		return store.VM{}, err
	}
	return vm, nil
}

// EnsureMachine returns the user's cli machine, running and with all active
// credentials delivered that it takes; it makes it at first need. ErrNoMachines
// where this computer is what is delivered to: the machine would be a second
// holder of the same tokens.
func (s *Service) EnsureMachine(ctx context.Context, userID string) (store.VM, error) {
	if s.cfg.Deliver != nil {
		return store.VM{}, ErrNoMachines
	}
	if err := s.awaitReady(ctx); err != nil {
		return store.VM{}, err
	}
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return store.VM{}, err
	}
	defer p.unlock()
	m, err := s.cliMachine(ctx, p)
	if err != nil {
		return store.VM{}, err
	}
	s.reconcile(ctx, p, m)
	return s.db.VM(ctx, m.ID())
}

// DestroyMachine destroys the user's cli machine; its home stays. The browser
// machine of a session goes with the session: cancel that.
func (s *Service) DestroyMachine(ctx context.Context, userID, id string) error {
	vm, err := s.Machine(ctx, userID, id)
	if err != nil {
		return err
	}
	if vm.Kind != string(machine.CLI) {
		return fmt.Errorf("a session's browser machine cannot be destroyed apart from it: %w", store.ErrConflict)
	}
	if err := s.awaitReady(ctx); err != nil {
		return err
	}
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return err
	}
	defer p.unlock()
	if vm, err = s.db.VM(ctx, id); err != nil {
		return err
	}
	if m, err := s.attachedCLI(ctx, vm); err == nil {
		s.collect(ctx, p, m, lastChance)
	}
	return s.destroy(ctx, vm, "")
}

// ViewerTicket makes a ticket for one connection to a session's screen.
func (s *Service) ViewerTicket(ctx context.Context, userID string, id session.ID) (string, time.Time, error) {
	now, err := s.Session(ctx, userID, id)
	if err != nil {
		return "", time.Time{}, err
	}
	if now.State.Final() {
		return "", time.Time{}, &session.ConflictError{ID: id, Actual: now.State}
	}
	return s.ticket(ctx, userID, "viewer", string(id))
}

// TerminalTicket makes a ticket for one terminal of the user's cli machine; it
// waits for that as OpenTerminal does.
func (s *Service) TerminalTicket(ctx context.Context, userID, machineID string) (string, time.Time, error) {
	vm, err := s.Machine(ctx, userID, machineID)
	if err != nil {
		return "", time.Time{}, err
	}
	if vm.Kind != string(machine.CLI) {
		return "", time.Time{}, machine.ErrGone
	}
	if _, err := s.terminalMachine(ctx, userID, machineID); err != nil {
		return "", time.Time{}, err
	}
	return s.ticket(ctx, userID, "terminal", machineID)
}

func (s *Service) ticket(ctx context.Context, userID, purpose, subject string) (string, time.Time, error) {
	secret, hash := stream.NewTicket()
	expires := time.Now().Add(ticketTime)
	err := s.db.CreateTicket(ctx, store.Ticket{Hash: hash, UserID: userID, Purpose: purpose, SubjectID: subject, ExpiresAt: expires})
	return secret, expires, err
}

func (s *Service) consume(ctx context.Context, userID, purpose, subject, ticket string) error {
	hash, err := stream.HashTicket(ticket)
	if err != nil {
		return store.ErrNotFound
	}
	t, err := s.db.ConsumeTicket(ctx, hash, purpose, subject)
	if err == nil && t.UserID != userID {
		err = store.ErrNotFound
	}
	return err
}

// OpenViewer consumes a ticket and connects to the screen of the session's own
// machine; the caller closes the stream.
func (s *Service) OpenViewer(ctx context.Context, userID string, id session.ID, ticket string) (io.ReadWriteCloser, error) {
	guest, err := s.openScreen(ctx, userID, id, ticket)
	if err != nil {
		return nil, err
	}
	return guest.VNC(ctx)
}

// OpenScreen consumes a ticket and connects to the screen of the session's own
// machine, as video of a codec; the caller closes the stream.
func (s *Service) OpenScreen(ctx context.Context, userID string, id session.ID, ticket, codec string) (io.ReadWriteCloser, error) {
	guest, err := s.openScreen(ctx, userID, id, ticket)
	if err != nil {
		return nil, err
	}
	return guest.Screen(ctx, codec)
}

// openScreen consumes a viewer's ticket, for whatever kind of screen.
func (s *Service) openScreen(ctx context.Context, userID string, id session.ID, ticket string) (*guestapi.Client, error) {
	if err := s.consume(ctx, userID, "viewer", string(id), ticket); err != nil {
		return nil, err
	}
	now, err := s.Session(ctx, userID, id)
	if err != nil {
		return nil, err
	}
	m := s.machine(now.VMID)
	if now.State.Final() || m == nil {
		return nil, &session.ConflictError{ID: id, Actual: now.State}
	}
	return m.Guest(ctx)
}

// OpenTerminal consumes a ticket and opens a shell in the user's cli machine;
// the caller closes the stream. A machine that is just being started, or that
// this server has not attached to yet, it waits for: session.ErrNotReady says
// that the wait was in vain and may be tried again, machine.ErrGone that there is
// nothing to wait for.
func (s *Service) OpenTerminal(ctx context.Context, userID, machineID, ticket string, cols, rows int) (io.ReadWriteCloser, error) {
	if err := s.consume(ctx, userID, "terminal", machineID, ticket); err != nil {
		return nil, err
	}
	m, err := s.terminalMachine(ctx, userID, machineID)
	if err != nil {
		return nil, err
	}
	guest, err := m.Guest(ctx)
	if err != nil {
		return nil, err
	}
	return guest.Terminal(ctx, cols, rows)
}
