package rtc

import (
	"sync"
	"time"
)

const (
	rememberParting  = time.Minute
	rememberPartings = 4096
)

// parting is what a page may ask about a connection when it is over, and it has
// typed on it: how far what it did has come.
type parting struct {
	id, user, session string
	known             chan struct{} // closed once nothing more is handed on
	input             uint32        // read after known
	at                time.Time     // guarded by partings' lock
}

// partings are those of the connections that there are, and of those that have
// ended lately. The zero value has none.
type partings struct {
	mu    sync.Mutex
	all   map[string]*parting
	ended []*parting // the oldest first
}

// expect is called before anybody can know the connection's id.
func (ps *partings) expect(id string, r Request) *parting {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := &parting{id: id, user: r.User, session: r.Session, known: make(chan struct{})}
	if ps.all == nil {
		ps.all = make(map[string]*parting)
	}
	ps.all[id] = p
	return p
}

// over says how far the input came, and forgets who has not asked in time.
func (ps *partings) over(p *parting, input uint32) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.input, p.at = input, time.Now()
	close(p.known)
	ps.ended = append(ps.ended, p)
	n := 0
	for n < len(ps.ended) && (len(ps.ended)-n > rememberPartings || p.at.Sub(ps.ended[n].at) > rememberParting) {
		delete(ps.all, ps.ended[n].id)
		n++
	}
	ps.ended = append([]*parting(nil), ps.ended[n:]...)
}

func (ps *partings) find(user, session, id string) *parting {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p := ps.all[id]; p != nil && p.user == user && p.session == session {
		return p
	}
	return nil
}
