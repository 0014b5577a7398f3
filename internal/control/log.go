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
	maxCodes    = 5 // a tool may renew the code that its person is to type in
)

// logReader writes what is new in a guest's status as events of the session.
type logReader struct {
	s      *Service
	id     session.ID
	userID string
	next   int    // the number of the first line that has not been written
	count  int    // how many were written
	opened bool   // the person was told that the page is open
	code   string // the last sentence that told them a code
	codes  int    // how many there were
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
			case e.Kind == session.EventProgress:
				r.opened = r.opened || strings.HasPrefix(e.Message, messageOpened)
				if i := strings.Index(e.Message, messageCode); i >= 0 {
					r.code = e.Message[i:]
					r.codes++
				}
			}
		}
	}
}

// Beginnings of what a person is told at the sign-in page.
const (
	messageOpened = "The sign-in page is open; sign in as you would on your own computer."
	messageCode   = "The code to type in is "
)

func (r *logReader) read(ctx context.Context, status guestapi.AuthStatus) error {
	if status.Phase == guestapi.PhaseOpened {
		if err := r.readPage(ctx, status.UserCode); err != nil {
			return err
		}
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

// readPage tells once that the page is open, and each new code whenever it
// comes.
func (r *logReader) readPage(ctx context.Context, userCode string) error {
	message, code := "", ""
	if !r.opened {
		message = messageOpened
	}
	if userCode != "" && r.codes < maxCodes {
		code = messageCode + store.Clip(userCode, 32) + "."
	}
	if code != r.code {
		message = strings.TrimSpace(message + " " + code)
	}
	if message == "" {
		return nil
	}
	if err := r.add(ctx, session.EventProgress, message); err != nil {
		return err
	}
	r.opened = true
	if code != "" && code != r.code {
		r.code = code
		r.codes++
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
