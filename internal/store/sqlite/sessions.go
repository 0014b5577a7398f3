package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

const maxSessions = 500

const sessionColumns = "id, user_id, provider, state, attempt, reason, detail, vm_id, viewer_url, view, " +
	"exit_address, credential_id, lease_owner, last_heartbeat, deadline, created_at, updated_at"

// final is the condition of the index auth_sessions_open, turned round.
const final = "('completed', 'failed', 'expired', 'cancelled')"

func scanSession(s scanner) (session.Session, error) {
	var v session.Session
	var vm, credential sql.NullString
	var heartbeat, deadline, created, updated stamp
	err := s.Scan(&v.ID, &v.UserID, &v.Provider, &v.State, &v.Attempt, &v.Reason, &v.Detail, &vm, &v.ViewerURL, &v.View,
		&v.ExitAddress, &credential, &v.LeaseOwner, &heartbeat, &deadline, &created, &updated)
	v.VMID, v.CredentialID = vm.String, credential.String
	v.LastHeartbeat, v.Deadline = heartbeat.time(), deadline.time()
	v.CreatedAt, v.UpdatedAt = created.time(), updated.time()
	return v, err
}

// CreateSession writes a session in the state requested and its first event in
// one transaction. Of s it takes ID (made if empty), UserID, Provider,
// ViewerURL and Deadline. If the user has used the idempotency key (1 to 255
// bytes; empty for none) before, the earlier session is returned with false;
// store.ErrExists if that one was for another provider.
func (db *DB) CreateSession(ctx context.Context, s session.Session, idempotencyKey string) (session.Session, bool, error) {
	return db.CreateSessionWithin(ctx, s, idempotencyKey, func(store.Load) error { return nil })
}

// CreateSessionWithin is CreateSession if allow has no objection to one more:
// its error is returned, and nothing is written. It is asked once, inside the
// transaction: of any number of calls at once each knows of the others. What an
// earlier session answers for its key is not asked.
func (db *DB) CreateSessionWithin(ctx context.Context, s session.Session, idempotencyKey string, allow func(store.Load) error) (session.Session, bool, error) {
	if s.ID == "" {
		s.ID = session.NewID()
	}
	if err := s.ID.Validate(); err != nil {
		return session.Session{}, false, fmt.Errorf("%w: %w", store.ErrInvalid, err)
	}
	if len(idempotencyKey) > 255 || store.Clip(idempotencyKey, 255) != idempotencyKey {
		return session.Session{}, false, fmt.Errorf("%w: an idempotency key is up to 255 bytes of text", store.ErrInvalid)
	}
	var out session.Session
	created := false
	err := db.write(ctx, "create session", func(tx *sql.Tx) error {
		var err error
		if idempotencyKey != "" {
			out, err = scanSession(tx.QueryRowContext(ctx, "SELECT "+sessionColumns+
				" FROM auth_sessions WHERE user_id = ? AND idempotency_key = ?", s.UserID, idempotencyKey))
			if err == nil && out.Provider != s.Provider {
				return fmt.Errorf("the key was used for %s: %w", out.Provider, store.ErrExists)
			}
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		load, err := loadIn(ctx, tx)
		if err != nil {
			return err
		}
		// By the index of what is open, which is little, and not by the user's.
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM auth_sessions WHERE +user_id = ? AND state NOT IN "+final, s.UserID).Scan(&load.Mine); err != nil {
			return err
		}
		if err := allow(load); err != nil {
			return err
		}
		created = true
		out, err = db.insertSession(ctx, tx, s, idempotencyKey)
		return err
	})
	if err != nil {
		return session.Session{}, false, err
	}
	return out, created, nil
}

func (db *DB) insertSession(ctx context.Context, tx *sql.Tx, s session.Session, key string) (session.Session, error) {
	// No two sessions of a user have the same time, so that a page of
	// SessionsOf ends between two of them.
	var last stamp
	if err := tx.QueryRowContext(ctx, "SELECT max(created_at) FROM auth_sessions WHERE user_id = ?", s.UserID).Scan(&last); err != nil {
		return s, err
	}
	now := db.now()
	if last.Valid && !now.After(last.time()) {
		now = last.time().Add(time.Millisecond)
	}
	out, err := scanSession(tx.QueryRowContext(ctx, `INSERT INTO auth_sessions (id, user_id, provider, state, attempt, reason, detail,
		viewer_url, view, idempotency_key, lease_owner, deadline, created_at, updated_at)
		VALUES (?, ?, ?, ?, 0, '', '', ?, ?, ?, '', ?, ?, ?) RETURNING `+sessionColumns,
		string(s.ID), s.UserID, s.Provider, string(session.Requested), s.ViewerURL, s.View, null(key), ms(s.Deadline), ms(now), ms(now)))
	if err != nil {
		return s, err
	}
	return out, db.addEvent(ctx, tx, &session.Event{
		SessionID: out.ID, UserID: out.UserID, Kind: session.EventState, State: out.State, Message: "The sign-in was asked for.",
	})
}

// Session returns one session, or store.ErrNotFound.
func (db *DB) Session(ctx context.Context, id session.ID) (session.Session, error) {
	return db.sessionIn(ctx, db.reader, id)
}

func (db *DB) sessionIn(ctx context.Context, q querier, id session.ID) (session.Session, error) {
	return one(ctx, q, "session", scanSession, "SELECT "+sessionColumns+" FROM auth_sessions WHERE id = ?", string(id))
}

// SessionsOf returns a user's sessions, newest first, at most limit (0 or more
// than 500 is 500). With before, only those created before it: the CreatedAt
// of one page's last row gives the next page, none lost, none twice.
func (db *DB) SessionsOf(ctx context.Context, userID string, limit int, before time.Time) ([]session.Session, error) {
	query, args := "SELECT "+sessionColumns+" FROM auth_sessions WHERE user_id = ?", []any{userID}
	if !before.IsZero() {
		query, args = query+" AND created_at < ?", append(args, ms(before))
	}
	return many(ctx, db.reader, "sessions", scanSession, query+" ORDER BY created_at DESC LIMIT ?",
		append(args, clampLimit(limit, maxSessions))...)
}

// OpenSessions returns all sessions that have not ended, oldest first.
func (db *DB) OpenSessions(ctx context.Context) ([]session.Session, error) {
	return many(ctx, db.reader, "open sessions", scanSession,
		"SELECT "+sessionColumns+" FROM auth_sessions WHERE state NOT IN "+final+" ORDER BY created_at, id")
}

// Move takes a session from one state to another and writes the event, in one
// transaction. With an owner, only while that owner holds the lease, which it
// renews. A move that the table forbids or that matches no row changes nothing
// and is a *session.ConflictError; store.ErrNotFound if there is no such
// session. The move to delivering is CommitCredential's (store.ErrInvalid
// here).
func (db *DB) Move(ctx context.Context, id session.ID, from, to session.State, owner string, change store.Change, message string) (session.Session, error) {
	if to == session.Delivering {
		return session.Session{}, fmt.Errorf("%w: only a stored credential takes a session to %s", store.ErrInvalid, to)
	}
	var out session.Session
	err := db.write(ctx, "move session", func(tx *sql.Tx) error {
		var err error
		out, err = db.move(ctx, tx, id, from, to, owner, change, message, nil)
		return err
	})
	if err != nil {
		return session.Session{}, err
	}
	return out, nil
}

// move is Move inside a transaction; credentialID is set if not nil.
func (db *DB) move(ctx context.Context, tx *sql.Tx, id session.ID, from, to session.State, owner string,
	change store.Change, message string, credentialID *string) (session.Session, error) {
	if !session.CanMove(from, to) {
		return session.Session{}, &session.ConflictError{ID: id, From: from, To: to}
	}
	reason, err := reasonFor(to, change.Reason)
	if err != nil {
		return session.Session{}, err
	}
	now := db.now()
	var u update
	u.set("state", string(to))
	u.set("updated_at", ms(now))
	u.set("reason", string(reason))
	if owner != "" {
		u.set("last_heartbeat", ms(now))
	}
	if change.VMID != nil {
		u.set("vm_id", null(*change.VMID))
	}
	if change.ViewerURL != nil {
		u.set("viewer_url", *change.ViewerURL)
	}
	if change.Attempt != nil {
		u.set("attempt", *change.Attempt)
	}
	if change.Detail != nil {
		u.set("detail", store.Clip(*change.Detail, store.MaxDetail))
	}
	if change.ExitAddress != nil {
		u.set("exit_address", *change.ExitAddress)
	}
	if change.Deadline != nil {
		u.set("deadline", ms(*change.Deadline))
	}
	if credentialID != nil {
		u.set("credential_id", *credentialID)
	}
	u.where("id = ?", string(id))
	u.where("state = ?", string(from))
	if owner != "" {
		u.where("lease_owner = ?", owner)
	}
	out, err := scanSession(tx.QueryRowContext(ctx, u.sql("auth_sessions")+" RETURNING "+sessionColumns, u.args()...))
	if errors.Is(err, sql.ErrNoRows) {
		return out, db.conflict(ctx, tx, id, from, to)
	}
	if err != nil {
		return out, err
	}
	return out, db.addEvent(ctx, tx, &session.Event{
		SessionID: out.ID, UserID: out.UserID, Kind: session.EventState, State: to, Reason: reason, Message: message,
	})
}

// conflict says why a conditional UPDATE matched no row.
func (db *DB) conflict(ctx context.Context, q querier, id session.ID, from, to session.State) error {
	is, err := db.sessionIn(ctx, q, id)
	if err != nil {
		return err
	}
	return &session.ConflictError{ID: id, From: from, To: to, Actual: is.State}
}

// reasonFor gives the reason that a state needs. A move to failed without one
// must not fail for it: the session would stay open.
func reasonFor(to session.State, given *session.Reason) (session.Reason, error) {
	var reason session.Reason
	switch to {
	case session.Failed:
		reason = session.ReasonInternal
	case session.Expired:
		reason = session.ReasonExpired
	case session.Cancelled:
		reason = session.ReasonCancelled
	}
	if given == nil || *given == reason {
		return reason, nil
	}
	if reason == "" || !slices.Contains(session.Reasons(), *given) {
		return "", fmt.Errorf("%w: reason %q for the state %s", store.ErrInvalid, *given, to)
	}
	return *given, nil
}

// update builds one UPDATE statement from constant column names.
type update struct {
	columns, conditions []string
	values, matched     []any
}

func (u *update) set(column string, value any) {
	u.columns, u.values = append(u.columns, column+" = ?"), append(u.values, value)
}

func (u *update) where(condition string, values ...any) {
	u.conditions, u.matched = append(u.conditions, condition), append(u.matched, values...)
}

func (u *update) sql(table string) string {
	return "UPDATE " + table + " SET " + strings.Join(u.columns, ", ") + " WHERE " + strings.Join(u.conditions, " AND ")
}

func (u *update) args() []any { return append(slices.Clone(u.values), u.matched...) }
