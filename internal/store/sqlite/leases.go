package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// Claim gives the session's lease to owner: if nobody has it, if owner has it,
// or if its holder's last heartbeat is more than ttl ago. Of any number of
// claimers, in any process, one succeeds. store.ErrConflict (a
// *session.ConflictError) if another holds it or the session has ended,
// store.ErrNotFound if there is none.
func (db *DB) Claim(ctx context.Context, id session.ID, owner string, ttl time.Duration) (session.Session, error) {
	if owner == "" {
		return session.Session{}, fmt.Errorf("%w: a lease without an owner", store.ErrInvalid)
	}
	var out session.Session
	err := db.write(ctx, "claim session", func(tx *sql.Tx) error {
		var err error
		now := db.now()
		out, err = scanSession(tx.QueryRowContext(ctx, `UPDATE auth_sessions SET lease_owner = ?, last_heartbeat = ?
			WHERE id = ? AND state NOT IN `+final+` AND (lease_owner IN ('', ?) OR last_heartbeat < ?) RETURNING `+sessionColumns,
			owner, ms(now), string(id), owner, ms(now.Add(-ttl))))
		if errors.Is(err, sql.ErrNoRows) {
			return db.notHeld(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return session.Session{}, err
	}
	return out, nil
}

// Heartbeat renews owner's lease; store.ErrConflict once it is another's.
func (db *DB) Heartbeat(ctx context.Context, id session.ID, owner string) error {
	return db.write(ctx, "heartbeat", func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, "UPDATE auth_sessions SET last_heartbeat = ? WHERE id = ? AND lease_owner = ? AND lease_owner <> ''",
			ms(db.now()), string(id), owner)
		if err == nil && n == 0 {
			return db.notHeld(ctx, tx, id)
		}
		return err
	})
}

// Release gives owner's lease back. Idempotent: nil too if owner had none.
func (db *DB) Release(ctx context.Context, id session.ID, owner string) error {
	return db.write(ctx, "release session", func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, "UPDATE auth_sessions SET lease_owner = '' WHERE id = ? AND lease_owner = ?", string(id), owner)
		return err
	})
}

// SetAttempt notes, for a session in the state starting whose lease owner
// holds, the number of the attempt and its machine ("" for none yet), with an
// event that says message, in one transaction. store.ErrConflict (a
// *session.ConflictError) if the session is in another state or another's.
func (db *DB) SetAttempt(ctx context.Context, id session.ID, owner string, attempt int, vmID, message string) error {
	return db.write(ctx, "set attempt", func(tx *sql.Tx) error {
		now := db.now()
		var userID string
		err := tx.QueryRowContext(ctx, `UPDATE auth_sessions SET attempt = ?, vm_id = ?, updated_at = ?, last_heartbeat = ?
			WHERE id = ? AND state = ? AND lease_owner = ? AND lease_owner <> '' RETURNING user_id`,
			attempt, null(vmID), ms(now), ms(now), string(id), string(session.Starting), owner).Scan(&userID)
		if errors.Is(err, sql.ErrNoRows) {
			return db.notHeld(ctx, tx, id)
		}
		if err != nil {
			return err
		}
		return db.addEvent(ctx, tx, &session.Event{SessionID: id, UserID: userID, Kind: session.EventProgress, Message: message})
	})
}

// notHeld says why a statement that needs the lease matched no row.
func (db *DB) notHeld(ctx context.Context, q querier, id session.ID) error {
	is, err := db.sessionIn(ctx, q, id)
	if err != nil {
		return err
	}
	return &session.ConflictError{ID: id, From: is.State, Actual: is.State}
}
