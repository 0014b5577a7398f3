package control

import (
	"context"
	"errors"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// recover makes rows and host agree again after a restart: machines that
// belong to nothing are destroyed, cli machines are adopted. The browser
// machines of open sessions are adopted by the work on those. Those of the warm
// pool are destroyed beside everything else: nobody waits for that.
func (s *Service) recover(ctx context.Context) error {
	open, err := s.db.OpenSessions(ctx)
	if err != nil {
		return err
	}
	byID := map[session.ID]session.Session{}
	for _, one := range open {
		byID[one.ID] = one
	}
	vms, err := s.db.LiveVMs(ctx)
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, vm := range vms {
		if keeps(vm, byID) {
			keep[vm.ID] = true
			if vm.Kind == string(machine.CLI) {
				s.goRun(func(ctx context.Context) { s.adoptCLI(ctx, vm) })
			}
			continue
		}
		if vm.UserID == "" {
			keep[vm.ID] = true
			s.pool.see(vm.ID)
			s.goRun(func(ctx context.Context) { s.discard(ctx, vm.ID, "") })
			continue
		}
		if err := s.destroy(ctx, vm, "the server was restarted"); err != nil {
			s.logger.Error("destroying a machine of the last run", "machine", vm.ID, "err", err)
		}
	}
	gone, err := s.cfg.Machines.Reclaim(ctx, keep)
	if err != nil {
		s.logger.Error("reclaiming machines that no row names", "err", err)
	}
	s.logger.Info("took over", "sessions", len(open), "machines", len(keep), "reclaimed", len(gone))
	return nil
}

// keeps says whether a machine of the last run is still wanted.
func keeps(vm store.VM, open map[session.ID]session.Session) bool {
	if vm.State != store.VMRunning {
		return false
	}
	if vm.Kind == string(machine.CLI) {
		return true
	}
	one, ok := open[vm.SessionID]
	return ok && one.VMID == vm.ID && one.State != session.Starting
}

// adoptCLI attaches to a cli machine at the server's start, so that its
// terminals work at once.
func (s *Service) adoptCLI(ctx context.Context, vm store.VM) {
	p, err := s.lockPerson(ctx, vm.UserID)
	if err != nil {
		return
	}
	defer p.unlock()
	_, err = s.attachedCLI(ctx, vm)
	if err == nil || ctx.Err() != nil || errors.Is(err, errNotRunning) {
		return
	}
	s.logger.Warn("cli machine of the last run is gone; it is made again at need", "machine", vm.ID, "err", err)
	if err := s.destroy(ctx, vm, "it was no longer running after a restart of the server"); err != nil {
		s.logger.Error("destroying it", "machine", vm.ID, "err", err)
	}
}

// sweep starts work on sessions that nobody works on, and destroys browser
// machines whose session has ended without that.
func (s *Service) sweep(ctx context.Context) error {
	open, err := s.db.OpenSessions(ctx)
	if err != nil {
		return err
	}
	for _, one := range open {
		s.workOn(one.ID)
	}
	vms, err := s.db.LiveVMs(ctx)
	if err != nil {
		return err
	}
	for _, vm := range vms {
		if vm.Kind != string(machine.Browser) || s.working(vm.SessionID) {
			continue
		}
		if vm.UserID == "" {
			if err := s.sweepSpare(ctx, vm.ID); err != nil {
				return err
			}
			continue
		}
		one, err := s.db.Session(ctx, vm.SessionID)
		if err == nil && !one.State.Final() {
			continue
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		if err := s.destroy(ctx, vm, vm.Reason); err != nil {
			s.logger.Error("destroying a machine whose session has ended", "machine", vm.ID, "err", err)
		}
	}
	return nil
}

// sweepSpare destroys a machine that is nobody's and that the warm pool does not
// know of. The pool knows it from before its row is written until it has an
// owner or is given up: so what it does not know, and has no owner after that,
// will never have one.
func (s *Service) sweepSpare(ctx context.Context, id string) error {
	if s.pool.knows(id) {
		return nil
	}
	vm, err := s.db.VM(ctx, id)
	if err != nil || vm.UserID != "" {
		return err
	}
	s.discard(ctx, id, vm.Reason)
	return nil
}

func (s *Service) working(id session.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id] != nil
}
