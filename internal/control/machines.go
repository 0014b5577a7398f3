package control

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func newMachineID() string    { return randomHex(10) }
func newCredentialID() string { return randomHex(12) }

func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand never fails: it ends the program instead
	return hex.EncodeToString(b)
}

// machine returns an attached machine, or nil.
func (s *Service) machine(id string) *machine.Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.machines[id]
}

// about is what a machine is told of the session that it is for; the zero value
// for a cli machine.
type about struct {
	view     guestapi.View
	provider string
}

func aboutOf(now session.Session) about { return about{viewOf(now), now.Provider} }

// rules are what a provider's file says of the names that may be reached. A cli
// machine has no provider of its own.
func (s *Service) rules(provider string) egress.Rules {
	file, err := s.cfg.Providers.Get(provider)
	if err != nil {
		return egress.Rules{}
	}
	return egress.Rules{Allow: file.Reach.Allow, Deny: file.Reach.Deny}
}

// settings are what a machine of this user's is given.
func (s *Service) settings(vm store.VM, of about) machine.Settings {
	c := guestapi.Configure{
		Kind: vm.Kind, CAPEM: s.cfg.CAPEM,
		Locale: s.cfg.Locale, Languages: s.cfg.Languages, TimeZone: of.view.TimeZone,
		Width: of.view.Width, Height: of.view.Height,
	}
	if c.Width == 0 || c.Height == 0 {
		c.Width, c.Height = 1280, 800
	}
	if vm.Kind == string(machine.CLI) {
		c.Providers = s.cfg.Providers.All()
	}
	id := egress.Identity{UserID: vm.UserID, MachineID: vm.ID, SessionID: string(vm.SessionID), Rules: s.rules(of.provider)}
	way := func(ctx context.Context, streams net.Listener) error {
		s.cfg.Ways.Use(vm.UserID)
		defer s.cfg.Ways.Done(vm.UserID)
		return s.cfg.Egress.Serve(ctx, id, streams)
	}
	return machine.Settings{Configure: c, Build: s.cfg.Build, Egress: way}
}

// viewOf is what the person's browser told of itself; the zero view if that
// cannot be read any more, since it decides no more than a size and a time zone.
func viewOf(now session.Session) guestapi.View {
	var v guestapi.View
	_ = json.Unmarshal([]byte(now.View), &v)
	return v
}

// startBrowser gets a machine for a session and returns its id: one of the warm
// pool, or a new one. With cold it is not restored: a snapshot that only seems to
// be whole must not end every attempt.
func (s *Service) startBrowser(ctx context.Context, now session.Session, cold bool) (string, error) {
	if cold {
		s.giveWay(ctx) // else there would be one more than was counted on
	} else if id := s.takeSpare(ctx, now); id != "" {
		return id, nil
	}
	release, err := s.starts.machine(ctx)
	if err != nil {
		return "", err
	}
	defer release()
	vm := store.VM{
		ID: newMachineID(), UserID: now.UserID, SessionID: now.ID, Kind: string(machine.Browser),
		Driver: s.cfg.Machines.Driver(), State: store.VMCreating, ImageID: s.cfg.ImageID,
	}
	_, err = s.start(ctx, vm, machine.Spec{ID: vm.ID, Kind: machine.Browser, Cold: cold}, aboutOf(now))
	return vm.ID, err
}

// start writes a machine's row, makes the machine and notes that it runs.
func (s *Service) start(ctx context.Context, vm store.VM, spec machine.Spec, of about) (*machine.Machine, error) {
	if err := s.db.InsertVM(ctx, vm); err != nil {
		return nil, err
	}
	began := time.Now()
	m, created, err := s.cfg.Machines.Start(ctx, spec, s.settings(vm, of))
	s.cfg.Observe.MachineStarted(spec.Kind, created.Restored, time.Since(began), err)
	if err == nil {
		err = s.db.UpdateVM(ctx, vm.ID, []store.VMState{store.VMCreating}, store.VMChange{
			State: store.VMRunning, Ref: created.Ref, ReadyAt: time.Now(), Restored: created.Restored,
		})
		if err == nil {
			s.changes.tell()
			if err := s.attached(m); err != nil {
				return nil, err // it runs on, for the next server
			}
			return m, nil
		}
		m.Detach()
	}
	return nil, errors.Join(err, s.destroy(context.WithoutCancel(ctx), vm, "it could not be started"))
}

// adopt attaches to a machine that an earlier server has started.
func (s *Service) adopt(ctx context.Context, vm store.VM, of about) (*machine.Machine, error) {
	if vm.State != store.VMRunning {
		return nil, fmt.Errorf("its row says %q: %w", vm.State, machine.ErrGone)
	}
	m, err := s.cfg.Machines.Adopt(ctx, vm.ID, vm.Ref, s.settings(vm, of))
	if err != nil {
		return nil, err
	}
	if err := s.attached(m); err != nil {
		return nil, err
	}
	s.logger.Info("machine adopted", "machine", vm.ID, "kind", vm.Kind)
	return m, nil
}

// attached keeps a machine until it is destroyed or the service stops, which
// must not happen before or after Run: nobody would let go of it then.
func (s *Service) attached(m *machine.Machine) error {
	s.mu.Lock()
	if s.running != nil {
		s.machines[m.ID()] = m
		s.mu.Unlock()
		return nil
	}
	s.mu.Unlock()
	m.Detach()
	return errNotRunning
}

// destroyID destroys a machine by its id; one without a row, or whose row says
// that it is gone, is nothing to do.
func (s *Service) destroyID(ctx context.Context, id, failed string) error {
	vm, err := s.db.VM(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.destroy(ctx, vm, failed)
}

// destroy removes a machine and, last, says so in its row: destroyed, or
// failed for a reason if it did not go because it was asked to. Idempotent.
func (s *Service) destroy(ctx context.Context, vm store.VM, failed string) error {
	ctx = context.WithoutCancel(ctx)
	live := []store.VMState{store.VMCreating, store.VMRunning, store.VMDestroying}
	err := s.db.UpdateVM(ctx, vm.ID, live, store.VMChange{State: store.VMDestroying, Reason: failed})
	if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
		return nil // gone already
	}
	if err != nil && !errors.Is(err, store.ErrDiskFull) {
		return err
	}
	s.mu.Lock()
	m := s.machines[vm.ID]
	delete(s.machines, vm.ID)
	s.mu.Unlock()
	if m != nil {
		m.Detach()
	}
	if err := s.cfg.Machines.Destroy(ctx, vm.ID); err != nil {
		return err
	}
	final := store.VMChange{State: store.VMDestroyed}
	if failed != "" {
		final = store.VMChange{State: store.VMFailed, Reason: failed}
	}
	if err := s.db.UpdateVM(ctx, vm.ID, []store.VMState{store.VMCreating, store.VMRunning, store.VMDestroying}, final); err != nil && !errors.Is(err, store.ErrConflict) {
		return err
	}
	s.changes.tell()
	s.freed()
	return nil
}
