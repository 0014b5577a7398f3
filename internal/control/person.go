package control

import (
	"context"
	"time"
)

// What a cli machine does not take is tried again after a wait that doubles
// each time: a machine that refuses for ever must cost little.
const (
	firstRetry = 10 * time.Second
	lastRetry  = 15 * time.Minute
)

// What a tool has refreshed is stored each time, up to refreshBurst times, and
// then once every refreshEvery: a machine in the wrong hands has something
// fresher in every round, for ever, and each version is a row that stays.
const (
	refreshBurst = 5
	refreshEvery = time.Minute
)

// person is what this process remembers of one user's cli machine. Whoever has
// the place owns the rest.
type person struct {
	id    string
	place chan struct{} // taken by the one start, delivery or collection that is under way

	machine string                // what later is about; another machine may take what this one did not
	later   map[string]*postponed // by what it is

	rested map[string]time.Time // by provider: when refreshBurst may be stored at once again
}

// postponed is something that a machine did not take.
type postponed struct {
	wait  time.Duration
	until time.Time
}

// lockPerson lets one start, delivery or collection at a time be under way for
// a user's cli machine. It waits for as long as ctx allows; the caller unlocks.
func (s *Service) lockPerson(ctx context.Context, userID string) (*person, error) {
	s.mu.Lock()
	p := s.people[userID]
	if p == nil {
		p = &person{id: userID, place: make(chan struct{}, 1), rested: map[string]time.Time{}}
		s.people[userID] = p
	}
	s.mu.Unlock()
	select {
	case p.place <- struct{}{}:
		return p, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *person) unlock() { <-p.place }

// postponedOn is what a machine did not take; what an earlier one did not is
// forgotten.
func (p *person) postponedOn(machineID string) map[string]*postponed {
	if p.machine != machineID {
		p.machine, p.later = machineID, map[string]*postponed{}
	}
	return p.later
}

// due says whether a machine is to be asked (again) to take something.
func (p *person) due(machineID, what string) bool {
	is := p.postponedOn(machineID)[what]
	return is == nil || !time.Now().Before(is.until)
}

// refused notes that a machine did not take something, and says whether that is
// news.
func (p *person) refused(machineID, what string) (first bool) {
	later := p.postponedOn(machineID)
	is := later[what]
	if is == nil {
		is, first = &postponed{wait: firstRetry / 2}, true
		later[what] = is
	}
	is.wait = min(2*is.wait, lastRetry)
	is.until = time.Now().Add(is.wait)
	return first
}

// took notes that a machine took it after all.
func (p *person) took(machineID, what string) { delete(p.postponedOn(machineID), what) }

// mayStore says whether one more refreshed version may be stored now.
func (p *person) mayStore(providerName string) bool {
	return time.Until(p.rested[providerName]) <= (refreshBurst-1)*refreshEvery
}

// hasStored counts a refreshed version that was stored.
func (p *person) hasStored(providerName string) {
	from := p.rested[providerName]
	if now := time.Now(); now.After(from) {
		from = now
	}
	p.rested[providerName] = from.Add(refreshEvery)
}
