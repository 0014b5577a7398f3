package fake

import (
	"context"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Login is a sign-in in a machine, to be led by a script. Its methods may be
// called concurrently.
type Login struct {
	request guestapi.AuthRequest

	mu      sync.Mutex // guards what follows
	status  guestapi.AuthStatus
	files   guestapi.Credentials
	changed chan struct{}
}

func newLogin(request guestapi.AuthRequest) *Login {
	return &Login{
		request: request, changed: make(chan struct{}),
		status: guestapi.AuthStatus{Seq: 1, SessionID: request.SessionID, Phase: guestapi.PhaseRunning},
	}
}

// Request is what was asked for.
func (l *Login) Request() guestapi.AuthRequest { return l.request }

// Open says that the sign-in page is open, with the one-time code of a device
// flow or "".
func (l *Login) Open(code string) {
	l.Change(func(s *guestapi.AuthStatus) { s.Phase, s.UserCode = guestapi.PhaseOpened, code })
}

// Print adds lines to the tool's log.
func (l *Login) Print(lines ...string) {
	l.Change(func(s *guestapi.AuthStatus) { s.Log = append(s.Log[:len(s.Log):len(s.Log)], lines...) })
}

// Fail says that the sign-in has failed.
func (l *Login) Fail(reason, detail string) {
	l.Change(func(s *guestapi.AuthStatus) { s.Phase, s.Reason, s.Detail = guestapi.PhaseFailed, reason, detail })
}

// Capture says that the tool has written these files.
func (l *Login) Capture(files []guestapi.File, account string) {
	l.Hand(guestapi.Credentials{
		SessionID: l.request.SessionID, Provider: l.request.Provider.Name, Files: files, Account: account,
	})
}

// Hand is Capture with everything that is answered for the files, also what no
// honest agent says.
func (l *Login) Hand(c guestapi.Credentials) {
	l.mu.Lock()
	l.files = c
	l.mu.Unlock()
	l.Change(func(s *guestapi.AuthStatus) { s.Phase = guestapi.PhaseCaptured })
}

// Change changes the status in any way, also to what no honest agent says.
func (l *Login) Change(change func(*guestapi.AuthStatus)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status.Seq++
	change(&l.status)
	close(l.changed)
	l.changed = make(chan struct{})
}

// wait returns the status once it is newer than after, at the latest after d.
func (l *Login) wait(ctx context.Context, after int64, d time.Duration) guestapi.AuthStatus {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		l.mu.Lock()
		status, changed := l.status, l.changed
		l.mu.Unlock()
		if status.Seq > after {
			return status
		}
		select {
		case <-changed:
		case <-timer.C:
			return status
		case <-ctx.Done():
			return status
		}
	}
}

func (l *Login) credentials() (guestapi.Credentials, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files, l.status.Phase == guestapi.PhaseCaptured
}
