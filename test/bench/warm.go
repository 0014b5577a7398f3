package main

import (
	"context"
	"fmt"

	"github.com/anteroom/anteroom/test/e2e/harness"
)

// The warm pool of the part that measures it.
const (
	warmFlag     = "--warm-machines"
	warmMachines = 2
)

// ready waits until the warm pool is full, if the subject has one: until nothing
// is being started any more.
func (s *subject) ready(ctx context.Context) error {
	if !s.warm {
		return nil
	}
	err := harness.Until(ctx, func() error {
		n, err := s.user.Metric(ctx, `anteroom_pool_machines{state="ready"}`)
		if err == nil && n != warmMachines {
			err = fmt.Errorf("%g of %d machines are ready", n, warmMachines)
		}
		return err
	})
	if err == nil {
		s.hits, err = s.poolHits(ctx)
	}
	return err
}

// wasWarm fails unless one machine more has come from the pool, where it was to.
func (s *subject) wasWarm(ctx context.Context) error {
	if !s.warm {
		return nil
	}
	hits, err := s.poolHits(ctx)
	if err == nil && hits != s.hits+1 {
		err = fmt.Errorf("the warm pool was of use %d times, want 1", hits-s.hits)
	}
	return err
}

func (s *subject) poolHits(ctx context.Context) (int, error) {
	n, err := s.user.Metric(ctx, `anteroom_pool_takes_total{result="hit"}`)
	return int(n), err
}
