package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/store"
)

const auditColumns = "seq, at, kind, credential_id, user_id, provider, version, sha256, detail, prev_hash, hash"

func scanAudit(s scanner) (store.AuditEntry, error) {
	var e store.AuditEntry
	var at stamp
	var digest, prev, hash []byte
	err := s.Scan(&e.Seq, &at, &e.Kind, &e.CredentialID, &e.UserID, &e.Provider, &e.Version, &digest, &e.Detail, &prev, &hash)
	e.At = at.time()
	copy(e.SHA256[:], digest)
	copy(e.PrevHash[:], prev)
	copy(e.Hash[:], hash)
	return e, err
}

// audit appends an entry to the chain.
func (db *DB) audit(ctx context.Context, tx *sql.Tx, kind store.AuditKind, c store.Credential, detail string) error {
	last, err := scanAudit(tx.QueryRowContext(ctx, "SELECT "+auditColumns+" FROM audit ORDER BY seq DESC LIMIT 1"))
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	e := store.AuditEntry{
		Seq: last.Seq + 1, At: db.now(), Kind: kind, CredentialID: c.ID, UserID: c.UserID, Provider: c.Provider,
		Version: c.Version, SHA256: c.Sealed.SHA256, Detail: detail, PrevHash: last.Hash,
	}
	e.Hash = e.ComputeHash()
	_, err = exec(ctx, tx, "INSERT INTO audit ("+auditColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
		e.Seq, ms(e.At), string(e.Kind), e.CredentialID, e.UserID, e.Provider, e.Version, e.SHA256[:], e.Detail, e.PrevHash[:], e.Hash[:])
	return err
}

// VerifyAudit checks the whole chain, and each credential's content against
// it. An error that is store.ErrAudit names the first thing that was changed,
// put back or removed.
func (db *DB) VerifyAudit(ctx context.Context) (store.AuditReport, error) {
	v := store.NewAuditVerifier()
	var report store.AuditReport
	err := db.snapshot(ctx, func(tx *sql.Tx) error {
		err := each(ctx, tx, func(s scanner) error {
			e, err := scanAudit(s)
			if err != nil {
				return err
			}
			return v.Add(e)
		}, "SELECT "+auditColumns+" FROM audit ORDER BY seq")
		if err != nil {
			return err
		}
		err = each(ctx, tx, func(s scanner) error {
			var deleted bool
			c, err := scanCredential(scanFunc(func(dest ...any) error { return s.Scan(append(dest, &deleted)...) }))
			if err != nil {
				return err
			}
			return v.Credential(c, deleted)
		}, "SELECT "+credentialColumns+", deleted_at IS NOT NULL FROM provider_credentials ORDER BY id")
		if err != nil {
			return err
		}
		report, err = v.Finish()
		return err
	})
	if err != nil {
		return store.AuditReport{}, fmt.Errorf("store: verify: %w", mapError(err))
	}
	return report, nil
}

// scanFunc is a scanner that reads more columns than its reader asks for.
type scanFunc func(dest ...any) error

func (f scanFunc) Scan(dest ...any) error { return f(dest...) }
