package egress

import (
	"context"
	"time"
)

// expectTime is how long a connection waits for a way that is being opened.
const expectTime = 10 * time.Second

// way is what a user's machines leave through, or will.
type way struct {
	up     Upstream
	opened chan struct{}   // closed once it is decided: up is set, or it is shut
	ctx    context.Context // ends when the way is shut: its connections end with it
	end    context.CancelFunc
}

// Expect has connections of a user's machines wait a little for Open, where
// they would be refused. It does nothing while a way is open.
func (p *Proxy) Expect(userID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ways[userID] == nil {
		p.ways[userID] = newWay()
	}
}

func newWay() *way {
	w := &way{opened: make(chan struct{})}
	w.ctx, w.end = context.WithCancel(context.Background()) // Close ends connections by itself
	return w
}

// Open lets the machines of a user leave through up from now on. Connections
// through another upstream are ended. Until Open is called, and after Shut,
// everything that they ask for is refused with NoUpstream.
func (p *Proxy) Open(userID string, up Upstream) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.ways[userID]
	switch {
	case w == nil:
		w = newWay()
	case !w.decided(): // it was expected
	case w.up == up:
		return
	default:
		w.end()
		w = newWay()
	}
	w.up = up
	close(w.opened)
	p.ways[userID] = w
}

// Shut ends every connection of a user's machines and refuses new ones.
// Idempotent.
func (p *Proxy) Shut(userID string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.ways[userID]; w != nil {
		w.end()
		if !w.decided() {
			close(w.opened)
		}
		delete(p.ways, userID)
	}
}

// decided is called with the lock held, as is every change of it.
func (w *way) decided() bool {
	select {
	case <-w.opened:
		return true
	default:
		return false
	}
}

// wayOf returns a user's way out, waiting for one that is expected. There is no
// other if there is none.
func (p *Proxy) wayOf(ctx context.Context, userID string) (*way, error) {
	p.mu.Lock()
	w := p.ways[userID]
	p.mu.Unlock()
	none := refusal(NoUpstream, "the user's way out is not open")
	if w == nil {
		return nil, none
	}
	timer := time.NewTimer(expectTime)
	defer timer.Stop()
	select {
	case <-w.opened:
	case <-timer.C:
		return nil, none
	case <-ctx.Done():
		return nil, none
	}
	if w.ctx.Err() != nil {
		return nil, none
	}
	return w, nil
}
