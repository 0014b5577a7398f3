package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// collectEvery is how often a cli machine is asked whether a tool has
// refreshed its tokens. What was refreshed later than that, or too often to be
// stored (refreshEvery), is lost if the machine is killed, since its credential
// files are in memory only.
const collectEvery = 5 * time.Second

// guestTime is how long one request to a cli machine may take.
const guestTime = 30 * time.Second

// attachTime is how long a terminal waits for its machine: less than the page
// does for an answer, so that it hears that it may try again.
const attachTime = 5 * time.Second

// cliMachine returns the user's cli machine: the one that runs, adopted after
// a restart, or a new one. What it is to hold, the first round of watch or the
// caller sees to. The caller holds the user's lock.
func (s *Service) cliMachine(ctx context.Context, p *person) (*machine.Machine, error) {
	vm, err := s.db.CLIMachine(ctx, p.id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return s.newCLIMachine(ctx, p.id)
	case err != nil:
		return nil, err
	}
	m, err := s.attachedCLI(ctx, vm)
	if err == nil || ctx.Err() != nil || errors.Is(err, errNotRunning) {
		return m, err
	}
	if err := s.destroy(ctx, vm, "it was no longer running"); err != nil {
		return nil, err
	}
	return s.newCLIMachine(ctx, p.id)
}

// attachedCLI returns the cli machine of a row, adopted if this process has not
// attached to it yet. The caller holds the user's lock.
func (s *Service) attachedCLI(ctx context.Context, vm store.VM) (*machine.Machine, error) {
	if m := s.machine(vm.ID); m != nil {
		select {
		case <-m.Done():
			return nil, machine.ErrGone
		default:
			return m, nil
		}
	}
	m, err := s.adopt(ctx, vm, about{})
	if err != nil {
		return nil, err
	}
	s.watch(vm.UserID, m)
	return m, nil
}

// terminalMachine returns the user's cli machine that has this id, after a wait
// for whoever is starting or adopting it. Errors as OpenTerminal has them.
func (s *Service) terminalMachine(ctx context.Context, userID, id string) (*machine.Machine, error) {
	if m := s.machine(id); m != nil {
		return m, nil
	}
	waiting, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	m, err := s.awaitCLI(waiting, userID, id)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("machine %s is not attached yet: %w", id, session.ErrNotReady)
	}
	return m, err
}

func (s *Service) awaitCLI(ctx context.Context, userID, id string) (*machine.Machine, error) {
	if err := s.awaitReady(ctx); err != nil {
		return nil, err
	}
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return nil, err
	}
	defer p.unlock()
	vm, err := s.Machine(ctx, userID, id) // as it is now that nobody starts it any more
	if err != nil {
		return nil, err
	}
	if vm.Kind != string(machine.CLI) {
		return nil, machine.ErrGone
	}
	return s.attachedCLI(ctx, vm)
}

func (s *Service) newCLIMachine(ctx context.Context, userID string) (*machine.Machine, error) {
	home := s.home(userID)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("the person's home: %w", err)
	}
	vm := store.VM{
		ID: newMachineID(), UserID: userID, Kind: string(machine.CLI),
		Driver: s.cfg.Machines.Driver(), State: store.VMCreating, ImageID: s.cfg.ImageID,
	}
	m, err := s.start(ctx, vm, machine.Spec{ID: vm.ID, Kind: machine.CLI, Home: home}, about{})
	if errors.Is(err, machine.ErrNoMemory) && s.giveWay(ctx) {
		vm.ID = newMachineID()
		m, err = s.start(ctx, vm, machine.Spec{ID: vm.ID, Kind: machine.CLI, Home: home}, about{})
	}
	if err != nil {
		return nil, err
	}
	s.watch(userID, m)
	return m, nil
}

// watch follows a cli machine until it ends or is let go. At once and in every
// round after that, what its tools have refreshed becomes a new version and the
// machine is made to hold what it should; when it ends without having been asked
// to, its row says so.
func (s *Service) watch(userID string, m *machine.Machine) {
	s.goRun(func(ctx context.Context) {
		ticker := time.NewTicker(collectEvery)
		defer ticker.Stop()
		for s.round(ctx, userID, m) {
			select {
			case <-ctx.Done():
				return
			case <-m.Done():
				s.clearAway(ctx, userID, m)
				return
			case <-ticker.C:
			}
		}
	})
}

// round is one round of watch; false says that there is nothing to watch any
// more.
func (s *Service) round(ctx context.Context, userID string, m *machine.Machine) bool {
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return false
	}
	defer p.unlock()
	if s.machine(m.ID()) != m {
		return false // destroyed
	}
	s.collect(ctx, p, m, inPassing)
	s.reconcile(ctx, p, m)
	return true
}

// clearAway destroys what is left of a machine that has ended by itself: under
// the lock, since a delivery may be doing the same.
func (s *Service) clearAway(ctx context.Context, userID string, m *machine.Machine) {
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return
	}
	defer p.unlock()
	if err := s.destroyID(ctx, m.ID(), "it ended by itself"); err != nil {
		s.logger.Error("clearing away a machine that ended", "machine", m.ID(), "err", err)
	}
}
