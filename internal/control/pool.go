package control

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// A spare that could not be made, or that has ended by itself, is made again
// after a wait that doubles each time, until one has lasted for spareCalm: what
// breaks every machine must not cost all that the host has.
const (
	spareRetryFirst = time.Second
	spareRetryLast  = time.Minute
	spareCalm       = 30 * time.Second
)

// pool is the warm pool: machines of this server's driver and image that run
// and are nobody's. A machine is in it from before its row is written until it
// is taken or destroyed. It belongs to one run of the service: what an earlier
// run has left has no line that could be trusted to have carried nothing, and
// may be of another image, so it is destroyed and not taken over.
type pool struct {
	size   int // how many there are to be; 0: there is no pool
	change chan struct{}

	mu     sync.Mutex // guards what follows
	ready  []*machine.Spare
	known  map[string]bool // ids of all that are nobody's and that somebody sees to: also those in the making and in the undoing
	making int
	wait   time.Duration // before the next is made; see spareRetryFirst
	calm   time.Time     // when that is forgotten
}

func newPool(size int) *pool {
	return &pool{size: size, change: make(chan struct{}, 1), known: map[string]bool{}}
}

// kick has the pool looked at again.
func (p *pool) kick() {
	select {
	case p.change <- struct{}{}:
	default:
	}
}

// count says how many are ready and how many are being made.
func (p *pool) count() (ready, making int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready), p.making
}

// pop takes the machine that has been ready for longest; nil if there is none.
func (p *pool) pop() *machine.Spare {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return nil
	}
	first := p.ready[0]
	p.ready = p.ready[1:]
	return first
}

// drop takes one machine out, if it is still in.
func (p *pool) drop(one *machine.Spare) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.ready, one)
	if i < 0 {
		return false
	}
	p.ready = slices.Delete(p.ready, i, i+1)
	return true
}

func (p *pool) knows(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[id]
}

func (p *pool) forget(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, id)
}

// see notes a machine of an earlier run that is being destroyed.
func (p *pool) see(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[id] = true
}

// begin notes a machine that is about to be made, end what came of it.
func (p *pool) begin(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[id] = true
	p.making++
}

func (p *pool) end(one *machine.Spare) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.making--
	if one != nil {
		p.ready = append(p.ready, one)
	}
}

// failed notes that one was not made, did not last, or had to go; pause is for
// how long none is made.
func (p *pool) failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().After(p.calm) {
		p.wait = 0
	}
	p.wait = min(max(2*p.wait, spareRetryFirst), spareRetryLast)
	p.calm = time.Now().Add(p.wait + spareCalm)
}

// pause is how long none is to be made from now on.
func (p *pool) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.calm.Add(-spareCalm))
}

// fill keeps the pool at its size until ctx ends, one machine after the other,
// whenever nothing else is being started.
func (s *Service) fill(ctx context.Context) {
	for {
		wait := poolEvery
		switch want, err := s.wanted(ctx); {
		case err != nil:
			if ctx.Err() == nil {
				s.logger.Error("looking how large the warm pool may be", "err", err)
			}
		case want > 0:
			if pause := s.pool.pause(); pause > 0 {
				wait = pause
			} else if s.addSpare(ctx) {
				continue
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.pool.change:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// poolEvery is how often the pool is looked at without news: memory becomes free
// without any.
const poolEvery = 5 * time.Second

// wanted is how many machines the pool lacks, as far as there is room for them.
func (s *Service) wanted(ctx context.Context) (int, error) {
	ready, _ := s.pool.count()
	lacks := s.pool.size - ready
	if lacks < 1 {
		return 0, nil
	}
	load, err := s.db.Load(ctx)
	if err != nil {
		return 0, err
	}
	if load.Waiting > 0 || load.Starting > 0 || s.memory() < 1 {
		return 0, nil
	}
	if s.cfg.MaxMachines > 0 {
		lacks = min(lacks, s.cfg.MaxMachines-load.Busy-ready)
	}
	return lacks, nil
}

// addSpare makes one machine for the pool, and says whether it did.
func (s *Service) addSpare(ctx context.Context) bool {
	if err := s.starts.whenIdle(ctx); err != nil {
		return false
	}
	// It may have been a long wait.
	if want, err := s.wanted(ctx); err != nil || want < 1 {
		return false
	}
	vm := store.VM{
		ID: newMachineID(), Kind: string(machine.Browser), Driver: s.cfg.Machines.Driver(),
		State: store.VMCreating, ImageID: s.cfg.ImageID,
	}
	s.pool.begin(vm.ID)
	one, err := s.makeSpare(ctx, vm)
	s.pool.end(one)
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Warn("a machine for the warm pool did not start", "machine", vm.ID, "err", err)
			s.pool.failed()
		}
		return false
	}
	s.goRun(func(ctx context.Context) { s.watchSpare(ctx, one) })
	// Somebody may have begun to start meanwhile who did not wait for it.
	if load, err := s.db.Load(ctx); err == nil && s.tooMany(load) {
		s.giveWay(ctx)
	}
	s.freed()
	return true
}

// tooMany says whether the pool has more machines than people leave room for.
func (s *Service) tooMany(load store.Load) bool {
	ready, _ := s.pool.count()
	return s.cfg.MaxMachines > 0 && load.Busy+ready > s.cfg.MaxMachines
}

// makeSpare writes a row without an owner and makes its machine.
func (s *Service) makeSpare(ctx context.Context, vm store.VM) (*machine.Spare, error) {
	if err := s.db.InsertVM(ctx, vm); err != nil {
		s.pool.forget(vm.ID)
		return nil, err
	}
	began := time.Now()
	one, created, err := s.cfg.Machines.Spare(ctx, machine.Spec{ID: vm.ID, Kind: machine.Browser})
	s.cfg.Observe.MachineStarted(machine.Browser, created.Restored, time.Since(began), err)
	if err == nil {
		err = s.db.UpdateVM(ctx, vm.ID, []store.VMState{store.VMCreating}, store.VMChange{
			State: store.VMRunning, Ref: created.Ref, ReadyAt: time.Now(), Restored: created.Restored,
		})
		if err == nil {
			return one, nil
		}
		one.Detach()
	}
	s.discard(ctx, vm.ID, "it could not be started")
	return nil, err
}

// watchSpare notices when a machine of the pool ends by itself.
func (s *Service) watchSpare(ctx context.Context, one *machine.Spare) {
	select {
	case <-ctx.Done():
		return
	case <-one.Over():
	}
	if s.pool.drop(one) { // else it was taken, or given up
		s.logger.Warn("a machine of the warm pool has ended by itself", "machine", one.ID())
		s.pool.failed()
		one.Detach()
		s.discard(ctx, one.ID(), "it ended by itself")
		s.pool.kick()
	}
}

// discard destroys a machine that is nobody's, or was to be somebody's; what is
// left of it is found by the sweep.
func (s *Service) discard(ctx context.Context, id, failed string) {
	if err := s.destroyID(context.WithoutCancel(ctx), id, failed); err != nil {
		s.logger.Error("destroying a machine of the warm pool; the sweep tries again", "machine", id, "err", err)
	}
	s.pool.forget(id)
}

// giveWay destroys one machine of the pool, so that what it takes is there for
// somebody; false if there is none. Another is not made at once.
func (s *Service) giveWay(ctx context.Context) bool {
	one := s.pool.pop()
	if one == nil {
		return false
	}
	s.pool.failed()
	one.Detach()
	s.discard(ctx, one.ID(), "")
	return true
}

// drain destroys the whole pool.
func (s *Service) drain(ctx context.Context) {
	var all sync.WaitGroup
	for one := s.pool.pop(); one != nil; one = s.pool.pop() {
		all.Go(func() {
			one.Detach()
			s.discard(ctx, one.ID(), "")
		})
	}
	all.Wait()
}

// Takes of a machine from the pool, as the Observer is told of them.
const (
	TakeHit    = "hit"    // it is the session's
	TakeMiss   = "miss"   // there was none
	TakeFailed = "failed" // there was one, and it did not become the session's
)

// takeSpare gives a machine of the pool to a session and returns its id, or "" if
// that comes to nothing: then one is to be started. The row is the session's, in
// one conditional UPDATE, before the machine hears of it.
func (s *Service) takeSpare(ctx context.Context, now session.Session) string {
	if s.pool.size == 0 {
		return ""
	}
	began := time.Now()
	one := s.pool.pop()
	if one == nil {
		s.cfg.Observe.SpareTaken(TakeMiss, 0)
		return ""
	}
	defer s.pool.kick()
	err := s.takeRow(ctx, now, one)
	if err == nil {
		s.cfg.Observe.SpareTaken(TakeHit, time.Since(began))
		return one.ID()
	}
	s.logger.Warn("a machine of the warm pool could not be taken; another is started", "session", now.ID, "machine", one.ID(), "err", err)
	s.cfg.Observe.SpareTaken(TakeFailed, time.Since(began))
	one.Detach()
	s.discard(ctx, one.ID(), "it could not be taken from the warm pool")
	return ""
}

func (s *Service) takeRow(ctx context.Context, now session.Session, one *machine.Spare) error {
	err := s.db.UpdateVM(ctx, one.ID(), []store.VMState{store.VMRunning}, store.VMChange{UserID: now.UserID, SessionID: now.ID})
	if err != nil {
		return err
	}
	s.changes.tell()
	vm := store.VM{ID: one.ID(), UserID: now.UserID, SessionID: now.ID, Kind: string(machine.Browser)}
	m, err := one.Take(ctx, s.settings(vm, aboutOf(now)))
	if err != nil {
		return err
	}
	s.pool.forget(one.ID())
	return s.attached(m)
}
