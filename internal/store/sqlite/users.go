package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// lastUsedStep is how exactly a token's last use is known; a write for each
// request would cost each request a disk flush.
const lastUsedStep = time.Minute

const userColumns = "id, name, admin, created_at"

func scanUser(s scanner) (store.User, error) {
	var u store.User
	var created stamp
	err := s.Scan(&u.ID, &u.Name, &u.Admin, &created)
	u.CreatedAt = created.time()
	return u, err
}

// CreateUser adds a user with a fresh id. The name is 1 to 64 bytes of
// printable text without spaces at its ends (else store.ErrInvalid) and unique
// (else store.ErrExists). The first user is an administrator.
func (db *DB) CreateUser(ctx context.Context, name string) (store.User, error) {
	u := store.User{ID: string(session.NewID()), Name: name, CreatedAt: db.now()}
	unprintable := strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) })
	if name == "" || len(name) > 64 || strings.TrimSpace(name) != name || unprintable || !utf8.ValidString(name) {
		return store.User{}, fmt.Errorf("%w: a user's name is 1 to 64 printable characters", store.ErrInvalid)
	}
	err := db.write(ctx, "create user", func(tx *sql.Tx) error {
		return tx.QueryRowContext(ctx, "INSERT INTO users ("+userColumns+") VALUES (?, ?, NOT EXISTS (SELECT 1 FROM users), ?) RETURNING admin",
			u.ID, u.Name, ms(u.CreatedAt)).Scan(&u.Admin)
	})
	if err != nil {
		return store.User{}, err
	}
	return u, nil
}

// SetAdmin says whether a user is an administrator. store.ErrConflict for the
// last one, store.ErrNotFound if there is no such user.
func (db *DB) SetAdmin(ctx context.Context, userID string, admin bool) error {
	return db.write(ctx, "set administrator", func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, "UPDATE users SET admin = ? WHERE id = ?", admin, userID)
		if err != nil {
			return err
		}
		if n == 0 {
			return store.ErrNotFound
		}
		var left int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM users WHERE admin = 1").Scan(&left); err != nil || left > 0 {
			return err
		}
		return fmt.Errorf("there must be an administrator: %w", store.ErrConflict)
	})
}

// UserByName returns the user with that name, or store.ErrNotFound.
func (db *DB) UserByName(ctx context.Context, name string) (store.User, error) {
	return one(ctx, db.reader, "user", scanUser, "SELECT "+userColumns+" FROM users WHERE name = ?", name)
}

// UserByID returns the user with that id, or store.ErrNotFound.
func (db *DB) UserByID(ctx context.Context, id string) (store.User, error) {
	return one(ctx, db.reader, "user", scanUser, "SELECT "+userColumns+" FROM users WHERE id = ?", id)
}

// Users returns all users, by name.
func (db *DB) Users(ctx context.Context) ([]store.User, error) {
	return many(ctx, db.reader, "users", scanUser, "SELECT "+userColumns+" FROM users ORDER BY name")
}

const tokenColumns = "id, user_id, kind, label, created_at, expires_at, last_used_at"

func scanToken(s scanner) (store.Token, error) {
	var t store.Token
	var created, expires, used stamp
	err := s.Scan(&t.ID, &t.UserID, &t.Kind, &t.Label, &created, &expires, &used)
	t.CreatedAt, t.ExpiresAt, t.LastUsedAt = created.time(), expires.time(), used.time()
	return t, err
}

// CreateToken adds a token whose secret has the given SHA-256, and returns it
// as stored: with an id if it had none, and the time of creation. Expired
// tokens of everybody are removed on the way. store.ErrNotFound if there is no
// such user.
func (db *DB) CreateToken(ctx context.Context, t store.Token, hash [32]byte) (store.Token, error) {
	if t.ID == "" {
		t.ID = string(session.NewID())
	}
	t.Label = store.Clip(t.Label, store.MaxLabel)
	t.CreatedAt, t.LastUsedAt = db.now(), time.Time{}
	t.ExpiresAt = stored(t.ExpiresAt)
	err := db.write(ctx, "create token", func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, "DELETE FROM tokens WHERE expires_at <= ?", ms(t.CreatedAt)); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "INSERT INTO tokens (hash, "+tokenColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
			hash[:], t.ID, t.UserID, string(t.Kind), t.Label, ms(t.CreatedAt), ms(t.ExpiresAt))
		return err
	})
	if err != nil {
		return store.Token{}, err
	}
	return t, nil
}

// UserByToken returns the owner of the token whose secret has that SHA-256, if
// it is of one of the kinds and has not expired; else store.ErrNotFound. At
// least one kind must be named: a sign-in link must not pass for a cookie.
// LastUsedAt is kept to the minute, and not being able to keep it is no error.
func (db *DB) UserByToken(ctx context.Context, hash [32]byte, kinds ...store.TokenKind) (store.User, store.Token, error) {
	now := db.now()
	t, err := one(ctx, db.reader, "token", scanToken,
		"SELECT "+tokenColumns+" FROM tokens WHERE hash = ? AND (expires_at IS NULL OR expires_at > ?)", hash[:], ms(now))
	if err != nil {
		return store.User{}, store.Token{}, err
	}
	if !slices.Contains(kinds, t.Kind) {
		return store.User{}, store.Token{}, fmt.Errorf("store: token of another kind: %w", store.ErrNotFound)
	}
	u, err := db.UserByID(ctx, t.UserID)
	if err != nil {
		return store.User{}, store.Token{}, err
	}
	if t.LastUsedAt.IsZero() || now.Sub(t.LastUsedAt) >= lastUsedStep {
		t.LastUsedAt = db.touch(ctx, t, now)
	}
	return u, t, nil
}

// touch notes the use of a token and returns when it was last noted.
func (db *DB) touch(ctx context.Context, t store.Token, now time.Time) time.Time {
	err := db.write(ctx, "note a token's use", func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, "UPDATE tokens SET last_used_at = ? WHERE id = ? AND (last_used_at IS NULL OR last_used_at <= ?)",
			ms(now), t.ID, ms(now.Add(-lastUsedStep)))
		return err
	})
	if err != nil {
		db.log.WarnContext(ctx, "a token's use was not noted", "token", t.ID, "error", err)
		return t.LastUsedAt
	}
	return now
}

// ConsumeLink uses up the sign-in link whose secret has that SHA-256 and
// returns its owner. Of any number of callers, in any process, one succeeds;
// the others, and everybody once it has expired, get store.ErrNotFound.
func (db *DB) ConsumeLink(ctx context.Context, hash [32]byte) (store.User, error) {
	var u store.User
	err := db.write(ctx, "consume sign-in link", func(tx *sql.Tx) error {
		var userID string
		err := tx.QueryRowContext(ctx,
			"DELETE FROM tokens WHERE hash = ? AND kind = ? AND (expires_at IS NULL OR expires_at > ?) RETURNING user_id",
			hash[:], string(store.TokenLink), ms(db.now())).Scan(&userID)
		if err != nil {
			return err
		}
		u, err = scanUser(tx.QueryRowContext(ctx, "SELECT "+userColumns+" FROM users WHERE id = ?", userID))
		return err
	})
	if err != nil {
		return store.User{}, err
	}
	return u, nil
}

// Tokens returns a user's tokens, oldest first; expired ones may be among them.
func (db *DB) Tokens(ctx context.Context, userID string) ([]store.Token, error) {
	return many(ctx, db.reader, "tokens", scanToken,
		"SELECT "+tokenColumns+" FROM tokens WHERE user_id = ? ORDER BY created_at, id", userID)
}

// DeleteToken removes a user's own token; store.ErrNotFound if there is none.
func (db *DB) DeleteToken(ctx context.Context, userID, id string) error {
	return db.write(ctx, "delete token", func(tx *sql.Tx) error {
		n, err := exec(ctx, tx, "DELETE FROM tokens WHERE id = ? AND user_id = ?", id, userID)
		if err == nil && n == 0 {
			return store.ErrNotFound
		}
		return err
	})
}

// CreateTicket adds a ticket, which must say when it expires. Expired ones are
// removed on the way.
func (db *DB) CreateTicket(ctx context.Context, t store.Ticket) error {
	if t.ExpiresAt.IsZero() {
		return fmt.Errorf("%w: a ticket without an end", store.ErrInvalid)
	}
	return db.write(ctx, "create ticket", func(tx *sql.Tx) error {
		if _, err := exec(ctx, tx, "DELETE FROM tickets WHERE expires_at <= ?", ms(db.now())); err != nil {
			return err
		}
		_, err := exec(ctx, tx, "INSERT INTO tickets (hash, user_id, purpose, subject_id, expires_at) VALUES (?, ?, ?, ?, ?)",
			t.Hash[:], t.UserID, t.Purpose, t.SubjectID, ms(t.ExpiresAt))
		return err
	})
}

// ConsumeTicket uses up a ticket for the purpose and subject that it was made
// for. Of any number of callers, in any process, one succeeds; whatever does
// not fit, was used or has expired is store.ErrNotFound.
func (db *DB) ConsumeTicket(ctx context.Context, hash [32]byte, purpose, subjectID string) (store.Ticket, error) {
	t := store.Ticket{Hash: hash, Purpose: purpose, SubjectID: subjectID}
	err := db.write(ctx, "consume ticket", func(tx *sql.Tx) error {
		var expires stamp
		err := tx.QueryRowContext(ctx, `DELETE FROM tickets
			WHERE hash = ? AND purpose = ? AND subject_id = ? AND expires_at > ? RETURNING user_id, expires_at`,
			hash[:], purpose, subjectID, ms(db.now())).Scan(&t.UserID, &expires)
		t.ExpiresAt = expires.time()
		return err
	})
	if err != nil {
		return store.Ticket{}, err
	}
	return t, nil
}
