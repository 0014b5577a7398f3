package idp

import (
	"context"
	"net/http"
	"sync"
	"time"
)

// garbage is what a faulty endpoint answers: neither JSON nor HTML nor HTTP.
const garbage = "\x00\xff\xfe{{{<!garbage>\x1b[31m}}} not what you asked for \xc3\x28\r\n"

// Stage is where a fault strikes.
type Stage string

// The stages.
const (
	AtConnect Stage = "connect" // the CONNECT for one of the provider's hosts
	AtPage    Stage = "page"    // the sign-in page is shown; Refuse: a 503
	AtSignIn  Stage = "sign_in" // its form is sent; Refuse: sent back with access_denied
	AtToken   Stage = "token"   // a code is turned into tokens
	AtRefresh Stage = "refresh" // a refresh token is used
	AtAPI     Stage = "api"     // profile, quota, prompts
)

// Fault is what goes wrong. Delay comes first, then at most one of the others
// (the first that is set, in this order: Drop, Garbage, Refuse, Instead).
type Fault struct {
	// Delay is how long the answer waits; it ends early with the connection.
	Delay time.Duration
	// Drop cuts the connection in the middle of the answer.
	Drop bool
	// Garbage answers 200 with bytes that mean nothing.
	Garbage bool
	// Refuse answers as the provider does when it says no.
	Refuse bool
	// Instead answers in the place of the endpoint; not AtConnect.
	Instead http.HandlerFunc
	// Times is how often the fault strikes before it is gone; 0: until it is
	// cleared.
	Times int
}

type faultKey struct {
	provider Provider
	stage    Stage
}

type faultSet struct {
	mu sync.Mutex
	m  map[faultKey]Fault
}

func newFaultSet() *faultSet { return &faultSet{m: make(map[faultKey]Fault)} }

// SetFault makes something go wrong from the next request on, replacing the
// fault that was set for the same provider and stage.
func (s *Server) SetFault(p Provider, at Stage, f Fault) {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.m[faultKey{p, at}] = f
}

// ClearFaults ends all faults of all providers.
func (s *Server) ClearFaults() {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	clear(s.faults.m)
}

// wait takes the fault of a stage and waits its delay. ok is false if the
// client was gone before.
func (f *faultSet) wait(ctx context.Context, p Provider, at Stage) (fault Fault, ok bool) {
	f.mu.Lock()
	fault, found := f.m[faultKey{p, at}]
	if found && fault.Times > 0 {
		fault.Times--
		if f.m[faultKey{p, at}] = fault; fault.Times == 0 {
			delete(f.m, faultKey{p, at})
		}
	}
	f.mu.Unlock()
	if fault.Delay <= 0 {
		return fault, true
	}
	t := time.NewTimer(fault.Delay)
	defer t.Stop()
	select {
	case <-t.C:
		return fault, true
	case <-ctx.Done():
		return fault, false
	}
}

// strike waits the delay and carries out the fault of a stage. It returns true
// if the answer has been given; refused says how the provider says no.
func (s *Server) strike(w http.ResponseWriter, r *http.Request, p Provider, at Stage, refused http.HandlerFunc) bool {
	f, ok := s.faults.wait(r.Context(), p, at)
	switch {
	case !ok:
		panic(http.ErrAbortHandler)
	case f.Drop:
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "4096")
		w.WriteHeader(http.StatusOK)
		_, _ = w.Write([]byte(`{"access_`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case f.Garbage:
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(garbage))
		return true
	case f.Refuse:
		refused(w, r)
		return true
	case f.Instead != nil:
		f.Instead(w, r)
		return true
	}
	return false
}
