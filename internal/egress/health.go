package egress

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// restAfter is how many connections in a row an upstream must fail before
	// it is left alone for a while: restFirst, then twice as long with every
	// further failure, up to restLast.
	restAfter = 3
	restFirst = time.Second
	restLast  = time.Minute
)

// health is how an upstream has been doing. It rests while it fails, so that
// a dead port costs its users one error and not a wait, and is not hammered.
type health struct {
	mu       sync.Mutex
	failures int       // in a row
	until    time.Time // when it may be tried again
	trying   bool      // one connection tries whether it is back
}

// ask says whether a connection may be tried now. After a rest one may, and
// the others when that one has come through.
func (h *health) ask(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failures < restAfter {
		return nil
	}
	if now.Before(h.until) || h.trying {
		return refusal(UpstreamResting, "it failed %d times in a row and is left alone for a while", h.failures)
	}
	h.trying = true
	return nil
}

// verdict is what a connection has shown of its upstream.
type verdict int

const (
	unknown verdict = iota // whoever asked gave up first
	works
	fails
)

// tell takes what a connection that ask allowed has shown. changed says that
// the upstream begins to fail, or works again.
func (h *health) tell(now time.Time, v verdict) (changed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failing := h.failures >= restAfter
	h.trying = false
	switch v {
	case works:
		h.failures = 0
	case fails:
		if h.failures++; h.failures >= restAfter {
			h.until = now.Add(min(restFirst<<min(h.failures-restAfter, 10), restLast))
		}
	case unknown:
	}
	return failing != (h.failures >= restAfter)
}

// judge says what an error shows of the upstream. Only what happens before a
// destination is named, and the upstream's view of its credentials, is its own
// fault: else one guest could have it rest for others by asking for the right
// name.
func judge(err error, reached bool) verdict {
	switch {
	case errors.Is(err, context.Canceled):
		return unknown
	case !reached || codeOf(err, Allowed) == UpstreamAuth:
		return fails
	}
	return works
}

// healthOf returns the record of an upstream.
func (p *Proxy) healthOf(up Upstream) *health {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.health[up.Addr()]
	if h == nil {
		h = &health{}
		p.health[up.Addr()] = h
	}
	return h
}

// Failing says whether an upstream has failed so often in a row that it rests.
func (p *Proxy) Failing(up Upstream) bool {
	h := p.healthOf(up)
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failures >= restAfter
}
