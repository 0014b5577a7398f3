package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

const maxVMs = 200

const vmColumns = "id, user_id, session_id, kind, driver, state, ref, image_id, restored, reason, created_at, ready_at, destroyed_at"

// gone is the condition of the index vms_live, turned round.
const gone = "('destroyed', 'failed')"

func scanVM(s scanner) (store.VM, error) {
	var v store.VM
	var userID, sessionID sql.NullString
	var ref []byte
	var created, ready, destroyed stamp
	err := s.Scan(&v.ID, &userID, &sessionID, &v.Kind, &v.Driver, &v.State, &ref, &v.ImageID, &v.Restored, &v.Reason,
		&created, &ready, &destroyed)
	v.UserID, v.SessionID, v.Ref = userID.String, session.ID(sessionID.String), json.RawMessage(ref)
	v.CreatedAt, v.ReadyAt, v.DestroyedAt = created.time(), ready.time(), destroyed.time()
	return v, err
}

// InsertVM writes a machine's row, at the database's time and, unless the row
// says otherwise, in the state creating. store.ErrExists if the id was ever
// used, or for a second live CLI machine of one user.
func (db *DB) InsertVM(ctx context.Context, v store.VM) error {
	if v.State == "" {
		v.State = store.VMCreating
	}
	if gone := v.State == store.VMDestroyed || v.State == store.VMFailed; gone {
		return fmt.Errorf("%w: a new machine that is %s", store.ErrInvalid, v.State)
	}
	return db.write(ctx, "insert machine", func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, "INSERT INTO vms ("+vmColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, NULL)",
			v.ID, null(v.UserID), null(v.SessionID), v.Kind, v.Driver, string(v.State), blob(v.Ref), v.ImageID, v.Restored,
			store.Clip(v.Reason, store.MaxDetail), ms(db.now()), ms(v.ReadyAt))
		if err != nil {
			return err
		}
		return db.vmEvent(ctx, tx, v, session.EventMachineCreated)
	})
}

// vmEvent records that a machine was made or is gone, for its owner; one of
// the warm pool has none.
func (db *DB) vmEvent(ctx context.Context, tx *sql.Tx, v store.VM, kind session.EventKind) error {
	if v.UserID == "" {
		return nil
	}
	name, what := "browser", "is being made"
	if v.Kind == "cli" {
		name = "own"
	}
	switch {
	case kind == session.EventMachineCreated && v.State == store.VMRunning:
		what = "was ready"
	case kind == session.EventMachineDestroyed && v.State == store.VMFailed:
		what = "has ended by itself and was cleared away"
	case kind == session.EventMachineDestroyed:
		what = "was destroyed"
	}
	return db.addEvent(ctx, tx, &session.Event{
		SessionID: v.SessionID, UserID: v.UserID, Kind: kind,
		Message: "The " + name + " machine " + what + ".",
	})
}

// UpdateVM changes a machine's row if it is in one of the states of from
// (none: in any that is not final). Nothing leads out of destroyed and failed.
// store.ErrConflict if the row is in another state or has another owner,
// store.ErrNotFound if there is none.
func (db *DB) UpdateVM(ctx context.Context, id string, from []store.VMState, change store.VMChange) error {
	u := vmUpdate(change)
	if change.State == store.VMDestroyed || change.State == store.VMFailed {
		u.set("destroyed_at", ms(db.now()))
	}
	if len(u.columns) == 0 {
		return fmt.Errorf("%w: a change of nothing", store.ErrInvalid)
	}
	u.where("id = ?", id)
	u.where("state NOT IN " + gone)
	if len(from) > 0 {
		states := make([]any, len(from))
		for i, s := range from {
			states[i] = string(s)
		}
		u.where("state IN (?"+strings.Repeat(", ?", len(from)-1)+")", states...)
	}
	return db.write(ctx, "update machine", func(tx *sql.Tx) error {
		was, err := vmIn(ctx, tx, id)
		if err != nil {
			return err
		}
		n, err := exec(ctx, tx, u.sql("vms"), u.args()...)
		if err != nil {
			return err
		}
		is, err := vmIn(ctx, tx, id)
		if err != nil {
			return err
		}
		switch {
		case n > 0 && was.UserID == "" && is.UserID != "":
			return db.vmEvent(ctx, tx, is, session.EventMachineCreated)
		case n > 0 && (change.State == store.VMDestroyed || change.State == store.VMFailed):
			return db.vmEvent(ctx, tx, is, session.EventMachineDestroyed)
		case n > 0:
			return nil
		}
		return fmt.Errorf("machine %s is %s: %w", id, is.State, store.ErrConflict)
	})
}

func vmUpdate(change store.VMChange) *update {
	u := new(update)
	if change.State != "" {
		u.set("state", string(change.State))
	}
	if change.Ref != nil {
		u.set("ref", blob(change.Ref))
	}
	if !change.ReadyAt.IsZero() {
		u.set("ready_at", ms(change.ReadyAt))
	}
	if change.Restored {
		u.set("restored", true)
	}
	if change.ImageID != "" {
		u.set("image_id", change.ImageID)
	}
	if change.Reason != "" {
		u.set("reason", store.Clip(change.Reason, store.MaxDetail))
	}
	if change.UserID != "" {
		u.set("user_id", change.UserID)
		u.where("(user_id IS NULL OR user_id = ?)", change.UserID)
	}
	if change.SessionID != "" {
		u.set("session_id", string(change.SessionID))
		u.where("(session_id IS NULL OR session_id = ?)", string(change.SessionID))
	}
	return u
}

// blob is bytes as they are stored where none means that there are none.
func blob(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// VM returns one machine's row, or store.ErrNotFound.
func (db *DB) VM(ctx context.Context, id string) (store.VM, error) { return vmIn(ctx, db.reader, id) }

func vmIn(ctx context.Context, q querier, id string) (store.VM, error) {
	return one(ctx, q, "machine", scanVM, "SELECT "+vmColumns+" FROM vms WHERE id = ?", id)
}

// LiveVMs returns all machines that are neither destroyed nor failed, oldest
// first: whatever else is on the host is a leak.
func (db *DB) LiveVMs(ctx context.Context) ([]store.VM, error) {
	return many(ctx, db.reader, "live machines", scanVM,
		"SELECT "+vmColumns+" FROM vms WHERE state NOT IN "+gone+" ORDER BY created_at, id")
}

// VMsOf returns a user's newest 200 machines, newest first, those that are
// live before the others.
func (db *DB) VMsOf(ctx context.Context, userID string) ([]store.VM, error) {
	return many(ctx, db.reader, "machines", scanVM,
		"SELECT "+vmColumns+" FROM vms WHERE user_id = ? ORDER BY state IN "+gone+", created_at DESC, id LIMIT ?", userID, maxVMs)
}

// CLIMachine returns a user's live CLI machine, or store.ErrNotFound.
func (db *DB) CLIMachine(ctx context.Context, userID string) (store.VM, error) {
	return one(ctx, db.reader, "cli machine", scanVM,
		"SELECT "+vmColumns+" FROM vms WHERE user_id = ? AND kind = 'cli' AND state NOT IN "+gone, userID)
}

// Stats counts what there is, all at one moment.
func (db *DB) Stats(ctx context.Context) (store.Stats, error) {
	out := store.Stats{Sessions: map[session.State]int64{}, VMs: []store.VMCount{}, Active: map[string]int64{}}
	for _, s := range session.States() {
		out.Sessions[s] = 0
	}
	err := db.snapshot(ctx, func(tx *sql.Tx) error {
		err := each(ctx, tx, func(s scanner) error {
			var state session.State
			var n int64
			err := s.Scan(&state, &n)
			out.Sessions[state] = n
			return err
		}, "SELECT state, count(*) FROM auth_sessions GROUP BY state")
		if err != nil {
			return err
		}
		err = each(ctx, tx, func(s scanner) error {
			var c store.VMCount
			err := s.Scan(&c.Kind, &c.State, &c.Count)
			out.VMs = append(out.VMs, c)
			return err
		}, "SELECT kind, state, count(*) FROM vms GROUP BY kind, state ORDER BY kind, state")
		if err != nil {
			return err
		}
		err = each(ctx, tx, func(s scanner) error {
			var provider string
			var n int64
			err := s.Scan(&provider, &n)
			out.Active[provider] = n
			return err
		}, "SELECT provider, count(*) FROM provider_credentials WHERE active = 1 GROUP BY provider")
		if err != nil {
			return err
		}
		if err := db.countPorts(ctx, tx, &out); err != nil {
			return err
		}
		return tx.QueryRowContext(ctx, "SELECT count(*) FROM users").Scan(&out.Users)
	})
	if err != nil {
		return store.Stats{}, fmt.Errorf("store: stats: %w", mapError(err))
	}
	return out, nil
}

// snapshot runs f on one unchanging view of the database.
func (db *DB) snapshot(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := db.reader.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	err = f(tx)
	if rb := tx.Rollback(); err == nil {
		err = rb
	}
	return err
}
