package httpapi

import (
	"sync"
	"time"
)

const (
	maxFailures    = 10
	failureWindow  = time.Minute
	maxFailureKeys = 4096
)

// attempts counts wrong sign-ins by client. A code cannot be guessed; this
// keeps those who try from keeping the database busy.
type attempts struct {
	clock func() time.Time

	mu     sync.Mutex
	seen   map[string]failures
	pruned time.Time // when the old ones were last removed
}

type failures struct {
	since time.Time
	count int
}

func newAttempts(clock func() time.Time) *attempts {
	return &attempts{clock: clock, seen: make(map[string]failures)}
}

// allowed says whether a client may try now.
func (a *attempts) allowed(client string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	f, ok := a.seen[a.key(client)]
	return !ok || f.count < maxFailures || a.clock().Sub(f.since) >= failureWindow
}

// failed counts a wrong try.
func (a *attempts) failed(client string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock()
	if len(a.seen) >= maxFailureKeys && now.Sub(a.pruned) >= failureWindow {
		a.pruned = now
		for k, f := range a.seen {
			if now.Sub(f.since) >= failureWindow {
				delete(a.seen, k)
			}
		}
	}
	k := a.key(client)
	f := a.seen[k]
	if now.Sub(f.since) >= failureWindow {
		f = failures{since: now}
	}
	f.count++
	a.seen[k] = f
}

// key is the client itself, or, once too many are counted to add another, one
// key for all the new ones: memory stays bounded and the flood is slowed.
func (a *attempts) key(client string) string {
	if _, ok := a.seen[client]; ok || len(a.seen) < maxFailureKeys {
		return client
	}
	return "others"
}
