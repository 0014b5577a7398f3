package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// The queue is the sessions in the state requested, in the order of created_at
// and id: it needs no table, and no restart can lose or reorder it.

// loadQuery counts who waits, who starts, and whose places are taken. The plus sign
// has it look through what is live, which is little, and not through all that was.
const loadQuery = `SELECT
	(SELECT count(*) FROM auth_sessions WHERE state = 'requested'),
	(SELECT count(*) FROM auth_sessions WHERE state = 'starting'),
	(SELECT count(*) FROM (
		SELECT id FROM auth_sessions WHERE state IN ('starting', 'waiting', 'capturing', 'storing', 'delivering')
		UNION SELECT session_id FROM vms WHERE state NOT IN ` + gone + ` AND +session_id IS NOT NULL))`

// aheadQuery counts who waits before a session.
const aheadQuery = `SELECT count(*) FROM auth_sessions AS mine JOIN auth_sessions AS other ON other.state = 'requested'
	AND (other.created_at, other.id) < (mine.created_at, mine.id) WHERE mine.id = ?`

// Load returns how much is under way on the whole server.
func (db *DB) Load(ctx context.Context) (store.Load, error) {
	load, err := loadIn(ctx, db.reader)
	if err != nil {
		return store.Load{}, fmt.Errorf("store: load: %w", mapError(err))
	}
	return load, nil
}

func loadIn(ctx context.Context, q querier) (store.Load, error) {
	var out store.Load
	err := q.QueryRowContext(ctx, loadQuery).Scan(&out.Waiting, &out.Starting, &out.Busy)
	return out, err
}

// Ahead returns how many sessions in the state requested were made before a
// session; 0 if there is no such session.
func (db *DB) Ahead(ctx context.Context, id session.ID) (int, error) {
	var n int
	if err := db.reader.QueryRowContext(ctx, aheadQuery, string(id)).Scan(&n); err != nil {
		return 0, fmt.Errorf("store: queue: %w", mapError(err))
	}
	return n, nil
}

// Admit takes a session from requested to starting, with a new deadline, if
// nobody waits before it and allow has no objection to the load as it is before
// that; its error is returned, and nothing is written. It is asked inside the
// transaction, so that of any number of calls at once each knows of the others.
// store.ErrNoPlace if somebody waits before it; a *session.ConflictError if the
// session is in another state or owner does not hold its lease.
func (db *DB) Admit(ctx context.Context, id session.ID, owner string, deadline time.Time, allow func(store.Load) error, message string) (session.Session, error) {
	var out session.Session
	err := db.write(ctx, "admit session", func(tx *sql.Tx) error {
		var ahead int
		if err := tx.QueryRowContext(ctx, aheadQuery, string(id)).Scan(&ahead); err != nil {
			return err
		}
		if ahead > 0 {
			return fmt.Errorf("%d are before it: %w", ahead, store.ErrNoPlace)
		}
		load, err := loadIn(ctx, tx)
		if err != nil {
			return err
		}
		if err := allow(load); err != nil {
			return err
		}
		out, err = db.move(ctx, tx, id, session.Requested, session.Starting, owner, store.Change{Deadline: &deadline}, message, nil)
		return err
	})
	if err != nil {
		return session.Session{}, err
	}
	return out, nil
}
