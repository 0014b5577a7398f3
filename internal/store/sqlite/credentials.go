package sqlite

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

const (
	credentialColumns = "id, user_id, provider, version, active, session_id, account, expires_at, created_at, delivered_at, " +
		"delivered_to, seal_schema, kek_id, wrapped_dek, ciphertext, sha256"
	// Without the ciphertext, and without the wrapped key.
	wrapColumns = "id, user_id, provider, version, active, session_id, account, expires_at, created_at, delivered_at, " +
		"delivered_to, seal_schema, kek_id, wrapped_dek, NULL, sha256"
	metaColumns = "id, user_id, provider, version, active, session_id, account, expires_at, created_at, delivered_at, " +
		"delivered_to, seal_schema, kek_id, NULL, NULL, sha256"

	maxSealed = 1000
)

func scanCredential(s scanner) (store.Credential, error) {
	var c store.Credential
	var sessionID sql.NullString
	var digest []byte
	var expires, created, delivered stamp
	err := s.Scan(&c.ID, &c.UserID, &c.Provider, &c.Version, &c.Active, &sessionID, &c.Account, &expires, &created, &delivered,
		&c.DeliveredTo, &c.Sealed.Schema, &c.Sealed.KEKID, &c.Sealed.WrappedDEK, &c.Sealed.Ciphertext, &digest)
	c.SessionID = session.ID(sessionID.String)
	c.ExpiresAt, c.CreatedAt, c.DeliveredAt = expires.time(), created.time(), delivered.time()
	copy(c.Sealed.SHA256[:], digest)
	return c, err
}

// NextVersion returns the number that the next version of a user's credentials
// for a provider has. Numbers of deleted versions are not used again.
func (db *DB) NextVersion(ctx context.Context, userID, provider string) (int, error) {
	n, err := nextVersion(ctx, db.reader, userID, provider)
	if err != nil {
		return 0, fmt.Errorf("store: next version: %w", mapError(err))
	}
	return n, nil
}

func nextVersion(ctx context.Context, q querier, userID, provider string) (int, error) {
	var n int
	err := q.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) + 1 FROM provider_credentials WHERE user_id = ? AND provider = ?",
		userID, provider).Scan(&n)
	return n, err
}

// CommitCredential stores a sealed version as the session's and moves the
// session from storing to delivering, with the events and the audit entry, in
// one transaction: all of it or nothing. The version before it is replaced: it
// becomes inactive and loses its content, as DeleteCredential says of the file;
// what is known of it stays.
//
// Of c it takes ID, UserID, Provider, Version, Account, ExpiresAt and Sealed.
// A *session.ConflictError if the session is in another state or, with an
// owner, another's. A plain store.ErrConflict if the version is not the next
// one, or the root key was retired meanwhile: ask NextVersion, seal again and
// try again.
func (db *DB) CommitCredential(ctx context.Context, id session.ID, owner string, c store.Credential, message string) (session.Session, store.Credential, error) {
	c.SessionID, c.DeliveredAt, c.DeliveredTo = id, time.Time{}, ""
	var out session.Session
	err := db.commit(ctx, &c, func(tx *sql.Tx) error {
		is, err := db.sessionIn(ctx, tx, id)
		if err != nil {
			return err
		}
		if is.UserID != c.UserID || is.Provider != c.Provider {
			return fmt.Errorf("%w: the credential is not the session's", store.ErrInvalid)
		}
		if is.State != session.Storing {
			return &session.ConflictError{ID: id, From: session.Storing, To: session.Delivering, Actual: is.State}
		}
		return nil
	}, func(tx *sql.Tx) error {
		e := credentialEvent(c, session.EventCredentialStored, "The credentials were sealed and stored.")
		if err := db.addEvent(ctx, tx, e); err != nil {
			return err
		}
		if err := db.audit(ctx, tx, store.AuditStored, c, "session "+string(id)); err != nil {
			return err
		}
		var err error
		out, err = db.move(ctx, tx, id, session.Storing, session.Delivering, owner, store.Change{}, message, &c.ID)
		return err
	})
	if err != nil {
		return session.Session{}, store.Credential{}, err
	}
	return out, c, nil
}

// CommitRefreshed stores a version that the machine itself has made of the
// version base, as the one that is active and delivered there, with event and
// audit entries, in one transaction. Of c it takes what CommitCredential
// takes; the session is base's. store.ErrConflict if base is not the active
// version that was delivered to that machine (an older one must never replace
// a newer), if the version is not the next one, or if the root key was
// retired.
func (db *DB) CommitRefreshed(ctx context.Context, base string, c store.Credential, machineID, message string) (store.Credential, error) {
	err := db.commit(ctx, &c, func(tx *sql.Tx) error {
		was, err := credentialIn(ctx, tx, base)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("version %s is gone: %w", base, store.ErrConflict)
		}
		if err != nil {
			return err
		}
		if was.UserID != c.UserID || was.Provider != c.Provider {
			return fmt.Errorf("%w: the credential is not made of that one", store.ErrInvalid)
		}
		if !was.Active || machineID == "" || was.DeliveredTo != machineID {
			return fmt.Errorf("version %d is not what machine %s has to work with: %w", was.Version, machineID, store.ErrConflict)
		}
		c.SessionID, c.DeliveredAt, c.DeliveredTo = was.SessionID, c.CreatedAt, machineID
		return nil
	}, func(tx *sql.Tx) error {
		if err := db.addEvent(ctx, tx, credentialEvent(c, session.EventCredentialStored, message)); err != nil {
			return err
		}
		if err := db.audit(ctx, tx, store.AuditStored, c, "machine "+machineID+" from "+base); err != nil {
			return err
		}
		return db.audit(ctx, tx, store.AuditDelivered, c, "machine "+machineID)
	})
	if err != nil {
		return store.Credential{}, err
	}
	return c, nil
}

// commit makes c the active version, between what must be checked before and
// what must be written with it.
func (db *DB) commit(ctx context.Context, c *store.Credential, before, with func(*sql.Tx) error) error {
	if c.ID == "" || c.Sealed.SHA256 != sha256.Sum256(c.Sealed.Ciphertext) {
		return fmt.Errorf("%w: a credential without an id or with another digest", store.ErrInvalid)
	}
	c.Active, c.CreatedAt, c.ExpiresAt = true, db.now(), stored(c.ExpiresAt)
	c.Account = store.Clip(c.Account, store.MaxAccount)
	var replaced int64
	err := db.write(ctx, "commit credential", func(tx *sql.Tx) error {
		if err := before(tx); err != nil {
			return err
		}
		next, err := nextVersion(ctx, tx, c.UserID, c.Provider)
		if err != nil {
			return err
		}
		if c.Version != next {
			return fmt.Errorf("the next version is %d, not %d: %w", next, c.Version, store.ErrConflict)
		}
		if err := refuseRetired(ctx, tx, c.Sealed.KEKID); err != nil {
			return err
		}
		if replaced, err = insertCredential(ctx, tx, *c); err != nil {
			return err
		}
		return with(tx)
	})
	if err != nil {
		return err
	}
	if replaced > 0 {
		db.unscrubbed.Store(true)
	}
	db.rescrub(ctx)
	return nil
}

// insertCredential writes the active version, and tells how many it has
// replaced.
func insertCredential(ctx context.Context, tx *sql.Tx, c store.Credential) (int64, error) {
	replaced, err := exec(ctx, tx, `UPDATE provider_credentials SET active = 0, wrapped_dek = x'', ciphertext = x''
		WHERE user_id = ? AND provider = ? AND active = 1`, c.UserID, c.Provider)
	if err != nil {
		return 0, err
	}
	_, err = exec(ctx, tx, "INSERT INTO provider_credentials ("+credentialColumns+`)
		VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		c.ID, c.UserID, c.Provider, c.Version, null(c.SessionID), c.Account, ms(c.ExpiresAt), ms(c.CreatedAt),
		ms(c.DeliveredAt), c.DeliveredTo, c.Sealed.Schema, c.Sealed.KEKID, c.Sealed.WrappedDEK, c.Sealed.Ciphertext, c.Sealed.SHA256[:])
	return replaced, err
}

func credentialEvent(c store.Credential, kind session.EventKind, message string) *session.Event {
	return &session.Event{SessionID: c.SessionID, UserID: c.UserID, Kind: kind, Message: message}
}

// Credential returns one version, with its sealed content if it is active;
// store.ErrNotFound if there is none or it was deleted.
func (db *DB) Credential(ctx context.Context, id string) (store.Credential, error) {
	return credentialIn(ctx, db.reader, id)
}

func credentialIn(ctx context.Context, q querier, id string) (store.Credential, error) {
	return one(ctx, q, "credential", scanCredential,
		"SELECT "+credentialColumns+" FROM provider_credentials WHERE id = ? AND deleted_at IS NULL", id)
}

// ActiveCredential returns the active version with its sealed content, or
// store.ErrNotFound.
func (db *DB) ActiveCredential(ctx context.Context, userID, provider string) (store.Credential, error) {
	return one(ctx, db.reader, "active credential", scanCredential,
		"SELECT "+credentialColumns+" FROM provider_credentials WHERE user_id = ? AND provider = ? AND active = 1", userID, provider)
}

// ActiveCredentials returns a user's active versions with their sealed
// content, by provider.
func (db *DB) ActiveCredentials(ctx context.Context, userID string) ([]store.Credential, error) {
	return many(ctx, db.reader, "active credentials", scanCredential,
		"SELECT "+credentialColumns+" FROM provider_credentials WHERE user_id = ? AND active = 1 ORDER BY provider", userID)
}

// CredentialsOf returns what is known of a user's active versions, by
// provider, without the sealed content.
func (db *DB) CredentialsOf(ctx context.Context, userID string) ([]store.Credential, error) {
	return many(ctx, db.reader, "credentials", scanCredential,
		"SELECT "+metaColumns+" FROM provider_credentials WHERE user_id = ? AND active = 1 ORDER BY provider", userID)
}

// MarkDelivered notes that a machine has acknowledged a version, with event
// and audit entry. A version may be delivered again.
func (db *DB) MarkDelivered(ctx context.Context, id, machineID string) error {
	return db.write(ctx, "mark delivered", func(tx *sql.Tx) error {
		c, err := credentialIn(ctx, tx, id)
		if err != nil {
			return err
		}
		if _, err := exec(ctx, tx, "UPDATE provider_credentials SET delivered_at = ?, delivered_to = ? WHERE id = ?",
			ms(db.now()), machineID, id); err != nil {
			return err
		}
		if err := db.addEvent(ctx, tx, credentialEvent(c, session.EventCredentialDelivered, "The credentials were delivered.")); err != nil {
			return err
		}
		return db.audit(ctx, tx, store.AuditDelivered, c, "machine "+machineID)
	})
}

// DeleteCredential deletes all versions of the provider that the user's
// credential id belongs to: account, wrapped keys and ciphertexts are
// overwritten in the file, and the WAL that may still hold them is emptied; if
// a reader is using it, at the next commit or deletion, Close or Open. What
// stays is the fact: numbers, digests, event, audit entries. The user's live CLI
// machine, which may hold the files whatever it has acknowledged, is noted for
// LeftOn. store.ErrNotFound if the user has no such credential.
func (db *DB) DeleteCredential(ctx context.Context, userID, id string) error {
	err := db.write(ctx, "delete credential", func(tx *sql.Tx) error {
		c, err := credentialIn(ctx, tx, id)
		if err != nil {
			return err
		}
		if c.UserID != userID {
			return store.ErrNotFound
		}
		versions, err := many(ctx, tx, "versions", scanCredential, "SELECT "+metaColumns+
			" FROM provider_credentials WHERE user_id = ? AND provider = ? AND deleted_at IS NULL ORDER BY version", userID, c.Provider)
		if err != nil {
			return err
		}
		for _, v := range versions {
			if _, err := exec(ctx, tx, `UPDATE provider_credentials SET active = 0, account = '', expires_at = NULL,
				wrapped_dek = x'', ciphertext = x'', deleted_at = ?, delivered_to = coalesce((SELECT id FROM vms
					WHERE user_id = provider_credentials.user_id AND kind = 'cli' AND state NOT IN `+gone+`), '')
				WHERE id = ?`, ms(db.now()), v.ID); err != nil {
				return err
			}
			if err := db.audit(ctx, tx, store.AuditDeleted, v, ""); err != nil {
				return err
			}
		}
		return db.addEvent(ctx, tx, credentialEvent(c, session.EventCredentialDeleted, "The credentials were deleted."))
	})
	if err != nil {
		return err
	}
	db.unscrubbed.Store(true)
	db.rescrub(ctx)
	return nil
}

// LeftOn returns the providers whose files a user's CLI machine may still hold
// though they were deleted, and no newer version takes their place.
func (db *DB) LeftOn(ctx context.Context, userID, machineID string) ([]string, error) {
	return many(ctx, db.reader, "left on a machine", func(s scanner) (string, error) {
		var provider string
		err := s.Scan(&provider)
		return provider, err
	}, `SELECT DISTINCT provider FROM provider_credentials AS gone
		WHERE user_id = ? AND delivered_to = ? AND deleted_at IS NOT NULL AND delivered_to <> '' AND NOT EXISTS (
			SELECT 1 FROM provider_credentials AS new WHERE new.user_id = gone.user_id AND new.provider = gone.provider AND new.active = 1)
		ORDER BY provider`, userID, machineID)
}

// MarkTakenAway notes that a machine has acknowledged that a provider's deleted
// files are gone from it. Idempotent.
func (db *DB) MarkTakenAway(ctx context.Context, userID, provider, machineID string) error {
	return db.write(ctx, "mark taken away", func(tx *sql.Tx) error {
		_, err := exec(ctx, tx, `UPDATE provider_credentials SET delivered_to = ''
			WHERE user_id = ? AND provider = ? AND delivered_to = ? AND deleted_at IS NOT NULL`, userID, provider, machineID)
		return err
	})
}

// SealedVersions returns active versions, which are those with content, whose
// data key is not wrapped with one of the given root keys, without their ciphertext, at most limit (0 or more than
// 1000 is 1000).
func (db *DB) SealedVersions(ctx context.Context, kekIDNot []string, limit int) ([]store.Credential, error) {
	query := "SELECT " + wrapColumns + " FROM provider_credentials WHERE active = 1"
	args := make([]any, 0, len(kekIDNot)+1)
	if len(kekIDNot) > 0 {
		query += " AND kek_id NOT IN (?" + strings.Repeat(", ?", len(kekIDNot)-1) + ")"
		for _, id := range kekIDNot {
			args = append(args, id)
		}
	}
	return many(ctx, db.reader, "sealed versions", scanCredential, query+" ORDER BY id LIMIT ?", append(args, clampLimit(limit, maxSealed))...)
}

// Rewrap replaces a version's wrapped data key if it is still wrapped with
// oldKEK, with an audit entry. store.ErrConflict if it is not, or has no
// content any more, or newKEK is retired.
func (db *DB) Rewrap(ctx context.Context, id, oldKEK, newKEK string, wrapped []byte) error {
	return db.write(ctx, "rewrap", func(tx *sql.Tx) error {
		if err := refuseRetired(ctx, tx, newKEK); err != nil {
			return err
		}
		c, err := one(ctx, tx, "rewrapped version", scanCredential, "UPDATE provider_credentials SET kek_id = ?, wrapped_dek = ? "+
			"WHERE id = ? AND kek_id = ? AND active = 1 RETURNING "+metaColumns, newKEK, wrapped, id, oldKEK)
		if errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("version %s is not wrapped with %s: %w", id, oldKEK, store.ErrConflict)
		}
		if err != nil {
			return err
		}
		return db.audit(ctx, tx, store.AuditRewrapped, c, oldKEK+" to "+newKEK)
	})
}

// RetireKEK forbids that anything is stored under a root key again, provided
// that nothing is (else store.ErrConflict): after it the key can be thrown
// away without losing what another process was about to commit. Idempotent.
func (db *DB) RetireKEK(ctx context.Context, kekID string) error {
	err := db.write(ctx, "retire root key", func(tx *sql.Tx) error {
		var used int
		if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM provider_credentials WHERE kek_id = ? AND active = 1",
			kekID).Scan(&used); err != nil {
			return err
		}
		if used > 0 {
			return fmt.Errorf("%d versions are wrapped with it: %w", used, store.ErrConflict)
		}
		_, err := exec(ctx, tx, "INSERT INTO retired_keks (kek_id, retired_at) VALUES (?, ?) ON CONFLICT DO NOTHING", kekID, ms(db.now()))
		return err
	})
	if err != nil {
		return err
	}
	db.unscrubbed.Store(true) // older wraps may still be in the WAL
	db.rescrub(ctx)
	return nil
}

func refuseRetired(ctx context.Context, tx *sql.Tx, kekID string) error {
	var n int
	if err := tx.QueryRowContext(ctx, "SELECT count(*) FROM retired_keks WHERE kek_id = ?", kekID).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return fmt.Errorf("the root key %s is retired: %w", kekID, store.ErrConflict)
	}
	return nil
}
