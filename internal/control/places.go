package control

import (
	"context"
	"slices"
	"sync"
)

// places limits how much is being started at the same time. Machines go before
// tools: somebody who still has no screen waits for nobody who has one. A machine
// that is nobody's is started while nothing else is.
type places struct {
	all int

	mu       sync.Mutex // guards what follows
	free     int
	machines []chan struct{} // those who wait; closed when a place is theirs
	tools    []chan struct{}
	spares   []chan struct{}
}

func newPlaces(n int) *places { return &places{all: n, free: n} }

// machine, tool and spare wait for a place, first come first served. What they return
// gives it back; it may be called more than once.
func (p *places) machine(ctx context.Context) (release func(), err error) {
	return p.take(ctx, &p.machines)
}

func (p *places) tool(ctx context.Context) (release func(), err error) {
	return p.take(ctx, &p.tools)
}

func (p *places) spare(ctx context.Context) (release func(), err error) {
	return p.take(ctx, &p.spares)
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
			p.give(queue)
		}
	}
	if p.free == p.all && len(p.spares) > 0 {
		p.give(&p.spares)
	}
}

// give gives a place to the first of a queue. The caller holds mu.
func (p *places) give(queue *[]chan struct{}) {
	close((*queue)[0])
	*queue = (*queue)[1:]
	p.free--
}
