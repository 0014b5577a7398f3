package control

import (
	"context"
	"strings"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// A session's log keeps at most this many lines, of at most this many bytes:
// a guest can make as many as it likes.
const (
	maxLogLines = 200
	maxLogLine  = 1024
	maxLogFrom  = 1 << 30
)

// logReader writes what is new in a guest's status as events of the session.
type logReader struct {
	s      *Service
	id     session.ID
	userID string
	next   int // the number of the first line that has not been written
	count  int // how many were written
	opened bool
}

// logReader returns a reader that goes on where an earlier one, perhaps of an
// earlier process, has stopped. (Of a tool that wrote faster than it was read,
// some lines may come twice then.)
func (s *Service) logReader(ctx context.Context, now session.Session) *logReader {
	r := &logReader{s: s, id: now.ID, userID: now.UserID}
	after := int64(0)
	for {
		events, err := s.db.EventsAfter(ctx, now.UserID, now.ID, after, 500)
		if err != nil || len(events) == 0 {
			return r
		}
		for _, e := range events {
			after = e.Seq
			switch {
			case e.Kind == session.EventLog:
				r.next++
				r.count++
			case e.Kind == session.EventProgress && strings.HasPrefix(e.Message, messageOpened):
				r.opened = true
			}
		}
	}
}

const messageOpened = "The sign-in page is open; sign in as you would on your own computer."

func (r *logReader) read(ctx context.Context, status guestapi.AuthStatus) error {
	if status.Phase == guestapi.PhaseOpened && !r.opened {
		message := messageOpened
		if status.UserCode != "" {
			message += " The code to type in is " + store.Clip(status.UserCode, 32) + "."
		}
		if err := r.add(ctx, session.EventProgress, message); err != nil {
			return err
		}
		r.opened = true
	}
	if status.LogFrom < 0 || status.LogFrom > maxLogFrom {
		return nil // no honest tool has come so far
	}
	for i, line := range status.Log {
		n := status.LogFrom + i
		if n < r.next || r.count >= maxLogLines {
			continue
		}
		if err := r.add(ctx, session.EventLog, store.Clip(line, maxLogLine)); err != nil {
			return err
		}
		r.next = n + 1
		r.count++
	}
	return nil
}

func (r *logReader) add(ctx context.Context, kind session.EventKind, message string) error {
	_, err := r.s.db.AddEvent(ctx, session.Event{SessionID: r.id, UserID: r.userID, Kind: kind, State: session.Waiting, Message: message})
	if err == nil {
		r.s.changes.tell()
	}
	return err
}
