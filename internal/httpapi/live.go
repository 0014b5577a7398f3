package httpapi

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/stream"
)

var (
	errTooManyStreams = errors.New("httpapi: too many streams")
	errStopping       = errors.New("httpapi: the server is stopping")
)

// liveStreams are the event streams, viewers and terminals that are open, so
// that they end with the sign-in that opened them, and with the server.
type liveStreams struct {
	perUser int

	mu      sync.Mutex
	stopped bool
	streams map[*liveStream]struct{}
	users   map[string]int
	idle    chan struct{} // closed when stopped and empty
}

type liveStream struct {
	user, token string
	cancel      context.CancelCauseFunc
}

func newLiveStreams(perUser int) *liveStreams {
	return &liveStreams{
		perUser: perUser,
		streams: make(map[*liveStream]struct{}),
		users:   make(map[string]int),
		idle:    make(chan struct{}),
	}
}

// begin registers a stream. Its context is cancelled with stream.ErrSignedOut
// when the token is no longer good, looked at every interval, and with
// stream.ErrStopping when the server stops. The caller calls end, which returns
// when nothing of it runs any more.
func (l *liveStreams) begin(ctx context.Context, id identity, interval time.Duration, good func(context.Context) bool) (_ context.Context, end func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	st := &liveStream{user: id.user.ID, token: id.token.ID, cancel: cancel}
	if err := l.add(st); err != nil {
		cancel(err)
		return nil, nil, err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if !good(ctx) {
				cancel(stream.ErrSignedOut)
			}
		}
	})
	return ctx, func() {
		cancel(nil)
		wg.Wait()
		l.remove(st)
	}, nil
}

func (l *liveStreams) add(st *liveStream) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return errStopping
	}
	if l.users[st.user] >= l.perUser {
		return errTooManyStreams
	}
	l.users[st.user]++
	l.streams[st] = struct{}{}
	return nil
}

func (l *liveStreams) remove(st *liveStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.streams, st)
	if l.users[st.user]--; l.users[st.user] == 0 {
		delete(l.users, st.user)
	}
	if l.stopped && len(l.streams) == 0 {
		close(l.idle)
	}
}

// signOut ends all streams that were opened with a token.
func (l *liveStreams) signOut(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for st := range l.streams {
		if st.token == token {
			st.cancel(stream.ErrSignedOut)
		}
	}
}

// stop ends all streams, lets no more in, and waits for them.
func (l *liveStreams) stop(ctx context.Context) error {
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		if len(l.streams) == 0 {
			close(l.idle)
		}
		for st := range l.streams {
			st.cancel(stream.ErrStopping)
		}
	}
	l.mu.Unlock()
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
