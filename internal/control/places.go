package control

import (
	"context"
	"slices"
	"sync"
)

// places limits how much is being started at the same time. Machines go before
// tools: somebody who still has no screen waits for nobody who has one. What is
// for nobody in particular waits until nothing of that is going on, and then takes
// no place, so that nobody waits for it.
type places struct {
	all int

	mu       sync.Mutex // guards what follows
	free     int
	machines []chan struct{} // those who wait; closed when a place is theirs
	tools    []chan struct{}
	idle     []chan struct{} // those who wait until nothing is being started
}

func newPlaces(n int) *places { return &places{all: n, free: n} }

// machine and tool wait for a place, first come first served. What they return
// gives it back; it may be called more than once.
func (p *places) machine(ctx context.Context) (release func(), err error) {
	return p.take(ctx, &p.machines)
}

func (p *places) tool(ctx context.Context) (release func(), err error) {
	return p.take(ctx, &p.tools)
}

// whenIdle waits until nothing is being started.
func (p *places) whenIdle(ctx context.Context) error {
	p.mu.Lock()
	now := make(chan struct{})
	p.idle = append(p.idle, now)
	p.next()
	p.mu.Unlock()
	select {
	case <-now:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = slices.DeleteFunc(p.idle, func(c chan struct{}) bool { return c == now })
	return context.Cause(ctx)
}

func (p *places) take(ctx context.Context, queue *[]chan struct{}) (func(), error) {
	p.mu.Lock()
	mine := make(chan struct{})
	*queue = append(*queue, mine)
	p.next()
	p.mu.Unlock()
	select {
	case <-mine:
		return sync.OnceFunc(p.release), nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(*queue, mine); i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	} else { // it came at the same moment
		p.free++
		p.next()
	}
	return nil, context.Cause(ctx)
}

func (p *places) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.free++
	p.next()
}

// next gives free places away. The caller holds mu.
func (p *places) next() {
	for _, queue := range []*[]chan struct{}{&p.machines, &p.tools} {
		for p.free > 0 && len(*queue) > 0 {
			close((*queue)[0])
			*queue = (*queue)[1:]
			p.free--
		}
	}
	if p.free == p.all {
		for _, c := range p.idle {
			close(c)
		}
		p.idle = nil
	}
}
