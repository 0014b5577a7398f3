package egress

import (
	"context"
)

// way is what a user's machines leave through while it is open.
type way struct {
	up  Upstream
	ctx context.Context // ends when the way is shut: its connections end with it
	end context.CancelFunc
}

// Open lets the machines of a user leave through up from now on. Connections
// through another upstream are ended. Until Open is called, and after Shut,
// everything that they ask for is refused with NoUpstream.
func (p *Proxy) Open(userID string, up Upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if old := p.ways[userID]; old != nil {
		if old.up == up {
			return
		}
		old.end()
	}
	w := &way{up: up}
	w.ctx, w.end = context.WithCancel(p.ctx)
	p.ways[userID] = w
}

// Shut ends every connection of a user's machines and refuses new ones.
// Idempotent.
func (p *Proxy) Shut(userID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.ways[userID]; w != nil {
		w.end()
		delete(p.ways, userID)
	}
}

// wayOf returns a user's way out. There is no other if there is none.
func (p *Proxy) wayOf(userID string) (*way, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.ways[userID]; w != nil {
		return w, nil
	}
	return nil, refusal(NoUpstream, "the user's way out is not open")
}
