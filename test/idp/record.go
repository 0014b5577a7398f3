package idp

import (
	"context"
	"slices"
	"sync"
	"time"
)

// maxRequests bounds the memory of the record: the oldest go first.
const maxRequests = 1 << 16

// Request is one recorded request. It never holds a query, a body or a secret.
type Request struct {
	At        time.Time
	Method    string
	Host      string
	Path      string   // empty for CONNECT
	Provider  Provider // empty for hosts that belong to none
	ProxyUser string   // who the upstream credentials belong to
	From      string   // the address that it came from
	UserAgent string
	Status    int
	TLS       bool // inside a tunnel
	Refused   bool // refused by the proxy: unknown host, no credentials
	// ForwardedProxyHeader says that the client's Proxy-Authorization reached
	// the site, which a correct forwarder never lets happen.
	ForwardedProxyHeader bool
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	HostRefused    EventKind = "host_refused"    // the proxy refused a request
	PageServed     EventKind = "page_served"     // a sign-in page was sent to a browser
	PageInvalid    EventKind = "page_invalid"    // a sign-in page was asked for with wrong parameters
	SignInRefused  EventKind = "sign_in_refused" // a wrong email address or password, or a fault
	SignedIn       EventKind = "signed_in"       // a code was issued
	TokensIssued   EventKind = "tokens_issued"   // a code was turned into tokens
	TokensRefused  EventKind = "tokens_refused"  // the token endpoint refused
	Refreshed      EventKind = "refreshed"       // a refresh token was used
	RefreshReused  EventKind = "refresh_reused"  // a used refresh token came back; its family is dead
	Revoked        EventKind = "revoked"         // a client revoked a token
	PromptAnswered EventKind = "prompt_answered" // the API answered a prompt
	APIRefused     EventKind = "api_refused"     // the API saw no valid token
)

// Event is something that a test can wait for.
type Event struct {
	Seq      int // counted from 1
	At       time.Time
	Kind     EventKind
	Provider Provider
	Account  string // the email address, where there is one
	Host     string // with HostRefused
	From     string // the address that it came from, where a request led to it
	Detail   string // why something was refused; no secret
}

// recorder keeps requests and events.
type recorder struct {
	mu       sync.Mutex
	requests []Request
	events   []Event
	changed  chan struct{} // closed and replaced at every event
}

func newRecorder() *recorder { return &recorder{changed: make(chan struct{})} }

func (r *recorder) request(q Request) {
	q.At = time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.requests) >= maxRequests {
		r.requests = append(r.requests[:0], r.requests[maxRequests/2:]...)
	}
	r.requests = append(r.requests, q)
}

func (r *recorder) emit(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.At, e.Seq = time.Now(), len(r.events)+1
	r.events = append(r.events, e)
	close(r.changed)
	r.changed = make(chan struct{})
}

// Requests returns what was asked for so far, oldest first.
func (s *Server) Requests() []Request {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	return slices.Clone(s.rec.requests)
}

// Events returns what happened so far, oldest first.
func (s *Server) Events() []Event {
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	return slices.Clone(s.rec.events)
}

// WaitFor returns the first event with Seq > after for which match is true,
// also one that has already happened, or ctx's error. match must not call the
// server.
func (s *Server) WaitFor(ctx context.Context, after int, match func(Event) bool) (Event, error) {
	for {
		s.rec.mu.Lock()
		events, changed := s.rec.events, s.rec.changed
		s.rec.mu.Unlock()
		for ; after < len(events); after++ {
			if match(events[after]) {
				return events[after], nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Of matches the events of one kind and provider.
func Of(p Provider, kind EventKind) func(Event) bool {
	return func(e Event) bool { return e.Provider == p && e.Kind == kind }
}

// IssuedTokens returns every access, refresh and id token ever issued and
// every code, for a scan of the places where none may be found.
func (s *Server) IssuedTokens() []string { return s.ledger.everything() }

// ExpireAccess ends the life of all access tokens of one provider that were
// issued so far: its API answers them with 401 and the client must refresh.
func (s *Server) ExpireAccess(p Provider) { s.ledger.expireAccess(p) }

// SetAccessTTL sets how long the access tokens live that are issued from now
// on. ttl must be positive.
func (s *Server) SetAccessTTL(ttl time.Duration) { s.ledger.setTTL(ttl) }
