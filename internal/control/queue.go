package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// queueEvery is how often whoever waits for a place looks without news: memory
// becomes free without any. queueGrace is how long they have waited before they
// are told so: most wait no longer than a few transactions take.
const (
	queueEvery = 2 * time.Second
	queueGrace = 250 * time.Millisecond
)

// manyPlaces stands for no limit.
const manyPlaces = math.MaxInt32

// Capacity is how much room there is for sign-ins at a moment.
type Capacity struct {
	Free    int // how many more could begin now; math.MaxInt32 or more is no limit
	Waiting int // for a place
	Ready   int // machines in the warm pool
	Making  int // machines that are being made for it
}

// Capacity tells how much room there is for sign-ins now.
func (s *Service) Capacity(ctx context.Context) (Capacity, error) {
	load, err := s.db.Load(ctx)
	if err != nil {
		return Capacity{}, err
	}
	ready, making := s.pool.count()
	return Capacity{Free: max(0, s.free(load)-load.Waiting), Waiting: load.Waiting, Ready: ready, Making: making}, nil
}

// memory is for how many more machines the host has memory.
func (s *Service) memory() int {
	if s.cfg.Memory == nil {
		return manyPlaces
	}
	return s.cfg.Memory()
}

// free is how many more sessions could begin to start under a load. Machines of
// the warm pool are as good as free memory, and what starts has not yet taken
// the memory that it will take.
func (s *Service) free(load store.Load) int {
	ready, _ := s.pool.count()
	n := s.memory() + ready - load.Starting
	if load.Busy == 0 {
		// Nobody could be waited for. The driver decides, and says what is short.
		n = max(n, 1)
	}
	if s.cfg.MaxMachines > 0 {
		n = min(n, s.cfg.MaxMachines-load.Busy)
	}
	return max(n, 0)
}

// mayAsk says whether one more session may be made.
func (s *Service) mayAsk(load store.Load) error {
	switch {
	case load.Mine >= s.cfg.MaxOpenSessions:
		return fmt.Errorf("%d are open: %w", load.Mine, store.ErrTooMany)
	case load.Waiting >= s.free(load)+s.cfg.MaxWaiting:
		return fmt.Errorf("%d wait: %w", load.Waiting, store.ErrQueueFull)
	}
	return nil
}

// mayStart says whether the session that is next may begin to start.
func (s *Service) mayStart(load store.Load) error {
	if s.free(load) < 1 {
		return store.ErrNoPlace
	}
	return nil
}

// freed has those who wait look whether it is their turn, and the pool whether
// there is room.
func (s *Service) freed() {
	s.queue.tell()
	s.pool.kick()
}

// stepRequested waits until it is the session's turn and there is a place, and
// tells its person how many are before it. From here on they have the whole of
// a session's time.
func (s *Service) stepRequested(ctx context.Context, now session.Session) (session.Session, error) {
	began, said := time.Now(), -1
	for {
		news := s.queue.wait()
		ahead, err := s.db.Ahead(ctx, now.ID)
		if err != nil {
			return now, err
		}
		if ahead == 0 {
			next, err := s.db.Admit(ctx, now.ID, s.cfg.Owner, time.Now().Add(s.cfg.SessionTime), s.mayStart, "Starting a browser machine.")
			if !errors.Is(err, store.ErrNoPlace) {
				if err == nil {
					s.queue.tell()
				}
				return next, err
			}
		}
		wait := queueEvery
		if left := queueGrace - time.Since(began); left > 0 {
			wait = left
		} else if ahead != said {
			said = ahead
			s.progress(ctx, now, session.QueueSentence(ahead))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-news:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return now, ctx.Err()
		}
	}
}

// inQueue fills in where a session stands that waits for a place.
func (s *Service) inQueue(ctx context.Context, one *session.Session) error {
	if one.State != session.Requested {
		return nil
	}
	ahead, err := s.db.Ahead(ctx, one.ID)
	one.Position = ahead + 1
	return err
}
