package sqlite

import (
	"context"
	"database/sql"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

const maxEvents = 1000

const eventColumns = "seq, session_id, user_id, kind, state, reason, message, at"

func scanEvent(s scanner) (session.Event, error) {
	var e session.Event
	var sessionID sql.NullString
	var at stamp
	err := s.Scan(&e.Seq, &sessionID, &e.UserID, &e.Kind, &e.State, &e.Reason, &e.Message, &at)
	e.SessionID, e.At = session.ID(sessionID.String), at.time()
	return e, err
}

// addEvent writes an event and fills in its number, its time and its message
// as stored. Numbers grow in the order of commits, because there is one writer
// at a time: a reader that has seen n finds whatever it misses after n.
func (db *DB) addEvent(ctx context.Context, tx *sql.Tx, e *session.Event) error {
	e.At, e.Message = db.now(), store.Clip(e.Message, store.MaxMessage)
	n, err := tx.ExecContext(ctx, "INSERT INTO events (session_id, user_id, kind, state, reason, message, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
		null(e.SessionID), e.UserID, string(e.Kind), string(e.State), string(e.Reason), e.Message, ms(e.At))
	if err != nil {
		return err
	}
	e.Seq, err = n.LastInsertId()
	return err
}

// AddEvent writes an event, at the database's time, and returns it as stored:
// a message over store.MaxMessage bytes is cut. store.ErrNotFound if the
// session is not that user's.
func (db *DB) AddEvent(ctx context.Context, e session.Event) (session.Event, error) {
	err := db.write(ctx, "add event", func(tx *sql.Tx) error { return db.addEvent(ctx, tx, &e) })
	if err != nil {
		return session.Event{}, err
	}
	return e, nil
}

// EventsAfter returns a user's events with a number above after, in order, at
// most limit (0 or more than 1000 is 1000); of one session, or of everything
// if sessionID is empty.
func (db *DB) EventsAfter(ctx context.Context, userID string, sessionID session.ID, after int64, limit int) ([]session.Event, error) {
	limit = clampLimit(limit, maxEvents)
	if sessionID == "" {
		return many(ctx, db.reader, "events", scanEvent,
			"SELECT "+eventColumns+" FROM events WHERE user_id = ? AND seq > ? ORDER BY seq LIMIT ?", userID, after, limit)
	}
	return many(ctx, db.reader, "events", scanEvent,
		"SELECT "+eventColumns+" FROM events WHERE session_id = ? AND user_id = ? AND seq > ? ORDER BY seq LIMIT ?",
		string(sessionID), userID, after, limit)
}

// LatestSeq returns the number of a user's newest event; 0 if there is none.
func (db *DB) LatestSeq(ctx context.Context, userID string) (int64, error) {
	return one(ctx, db.reader, "latest event", func(s scanner) (int64, error) {
		var n int64
		err := s.Scan(&n)
		return n, err
	}, "SELECT coalesce(max(seq), 0) FROM events WHERE user_id = ?", userID)
}
