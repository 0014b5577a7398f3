package store

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"
)

// AuditKind says what was done with a credential version.
type AuditKind string

// The kinds of audit entries.
const (
	AuditStored    AuditKind = "stored"    // a version was sealed and committed
	AuditDelivered AuditKind = "delivered" // a machine acknowledged it
	AuditDeleted   AuditKind = "deleted"   // its content was removed
	AuditRewrapped AuditKind = "rewrapped" // its data key was wrapped with another root key
)

// AuditEntry is one link of the audit chain. The sealed data is bound to its
// owner but not to a moment: whoever can write to the database could put a
// whole older row back. The chain is what tells: it keeps the SHA-256 of each
// version's ciphertext, and each entry's hash covers the one before it.
//
// What it cannot tell is that entries were cut off its end together with what
// they describe; for that, keep AuditReport.Head somewhere else.
type AuditEntry struct {
	Seq          int64 // from 1, without gaps
	At           time.Time
	Kind         AuditKind
	CredentialID string
	UserID       string
	Provider     string
	Version      int
	SHA256       [32]byte // of the ciphertext
	Detail       string   // the session, machine or root keys concerned
	PrevHash     [32]byte // zero in the first entry
	Hash         [32]byte
}

const auditDomain = "anteroom/audit/1"

// ComputeHash returns the hash that the entry must have. Every field is
// preceded by its length, so that no two entries have the same encoding.
func (e AuditEntry) ComputeHash() [32]byte {
	var b []byte
	field := func(p []byte) {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	number := func(n int64) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) } //nolint:gosec // the same bits
	field([]byte(auditDomain))
	field(e.PrevHash[:])
	number(e.Seq)
	number(e.At.UnixMilli())
	field([]byte(e.Kind))
	field([]byte(e.CredentialID))
	field([]byte(e.UserID))
	field([]byte(e.Provider))
	number(int64(e.Version))
	field(e.SHA256[:])
	field([]byte(e.Detail))
	return sha256.Sum256(b)
}

// AuditReport says how far a chain that holds reaches.
type AuditReport struct {
	Entries     int64
	Credentials int      // versions whose content was compared
	Head        [32]byte // the last entry's hash; zero if there is none
}

// AuditVerifier checks a chain and then what it says of each credential. Add
// every entry in order of Seq, then Credential for every row, then Finish. It
// is used by one goroutine.
type AuditVerifier struct {
	report AuditReport
	open   map[string]*auditedVersion
	newest map[ownerKey]int
}

type ownerKey struct{ userID, provider string }

type auditedVersion struct {
	entry   AuditEntry // the one that stored it
	deleted bool
	seen    bool
}

// NewAuditVerifier returns a verifier at the chain's beginning.
func NewAuditVerifier() *AuditVerifier {
	return &AuditVerifier{open: map[string]*auditedVersion{}, newest: map[ownerKey]int{}}
}

// Add checks the next entry; an error is ErrAudit.
func (v *AuditVerifier) Add(e AuditEntry) error {
	switch {
	case e.Seq != v.report.Entries+1:
		return fmt.Errorf("%w: entry %d follows entry %d", ErrAudit, e.Seq, v.report.Entries)
	case e.PrevHash != v.report.Head:
		return fmt.Errorf("%w: entry %d does not continue the one before it", ErrAudit, e.Seq)
	case e.Hash != e.ComputeHash():
		return fmt.Errorf("%w: entry %d was changed", ErrAudit, e.Seq)
	}
	v.report.Entries, v.report.Head = e.Seq, e.Hash
	return v.apply(e)
}

func (v *AuditVerifier) apply(e AuditEntry) error {
	known := v.open[e.CredentialID]
	owner := ownerKey{e.UserID, e.Provider}
	if e.Kind == AuditStored {
		if known != nil || e.Version <= v.newest[owner] {
			return fmt.Errorf("%w: entry %d stores a version that was stored before", ErrAudit, e.Seq)
		}
		v.open[e.CredentialID] = &auditedVersion{entry: e}
		v.newest[owner] = e.Version
		return nil
	}
	if known == nil || known.deleted || known.entry.SHA256 != e.SHA256 || known.entry.Version != e.Version ||
		known.entry.UserID != e.UserID || known.entry.Provider != e.Provider {
		return fmt.Errorf("%w: entry %d speaks of a version that was not stored", ErrAudit, e.Seq)
	}
	known.deleted = e.Kind == AuditDeleted
	return nil
}

// Credential checks one row against the chain: c with what there is of its
// content, and whether the row says that it was deleted. Only the newest version
// has content, and only until it is deleted. An error is ErrAudit.
func (v *AuditVerifier) Credential(c Credential, deleted bool) error {
	a := v.open[c.ID]
	owner := ownerKey{c.UserID, c.Provider}
	switch {
	case a == nil || a.entry.Version != c.Version || a.entry.UserID != c.UserID || a.entry.Provider != c.Provider:
		return fmt.Errorf("%w: credential %s version %d was never recorded", ErrAudit, c.ID, c.Version)
	case a.deleted != deleted:
		return fmt.Errorf("%w: credential %s version %d: deleted is %t, recorded %t", ErrAudit, c.ID, c.Version, deleted, a.deleted)
	case c.Sealed.SHA256 != a.entry.SHA256:
		return fmt.Errorf("%w: credential %s version %d has another digest", ErrAudit, c.ID, c.Version)
	case !deleted && c.Active != (v.newest[owner] == c.Version):
		return fmt.Errorf("%w: credential %s version %d: active is %t, the newest is %d", ErrAudit, c.ID, c.Version, c.Active, v.newest[owner])
	case c.Active && sha256.Sum256(c.Sealed.Ciphertext) != a.entry.SHA256:
		return fmt.Errorf("%w: credential %s version %d has other content", ErrAudit, c.ID, c.Version)
	case !c.Active && len(c.Sealed.Ciphertext)+len(c.Sealed.WrappedDEK) > 0:
		return fmt.Errorf("%w: credential %s version %d has content that was removed", ErrAudit, c.ID, c.Version)
	}
	a.seen = true
	if c.Active {
		v.report.Credentials++
	}
	return nil
}

// Finish checks that no recorded version is missing.
func (v *AuditVerifier) Finish() (AuditReport, error) {
	for id, a := range v.open {
		if !a.seen {
			return AuditReport{}, fmt.Errorf("%w: credential %s version %d is missing", ErrAudit, id, a.entry.Version)
		}
	}
	return v.report, nil
}
