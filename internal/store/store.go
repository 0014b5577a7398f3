// Package store holds what every database adapter shares: the rows, the
// filters and the errors. The adapters are in packages of their own
// (sqlite), and storetest is the suite that each of them passes.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
)

// Errors that callers tell apart.
var (
	ErrNotFound = errors.New("store: not found")
	ErrExists   = errors.New("store: it exists already")
	// ErrNewerSchema: the database was written by a newer version of Anteroom.
	ErrNewerSchema = errors.New("store: the state directory was written by a newer version of Anteroom")
	// ErrDiskFull: the disk has no room; nothing was changed.
	ErrDiskFull = errors.New("store: the disk is full")
	// ErrTooMany: the user has as many of these as the caller allows.
	ErrTooMany = errors.New("store: too many for one user")
	// ErrNoPlace: it is not this session's turn to start.
	ErrNoPlace = errors.New("store: no place is free")
	// ErrQueueFull: no place is free, and as many wait for one as may.
	ErrQueueFull = errors.New("store: as many wait as may")
	// ErrInvalid: the call itself breaks a rule that is written down here.
	ErrInvalid = errors.New("store: invalid argument")
	// ErrAudit: the audit chain, or what it says of a credential, does not hold.
	ErrAudit = errors.New("store: the audit record does not match")
)

// ErrConflict says that the row was in another state, or is held by another
// server. It is session.ErrConflict, so that one test finds both.
var ErrConflict = session.ErrConflict

// ErrReplaced says that a newer version has taken the place of a credential's.
// It is an ErrConflict.
var ErrReplaced = fmt.Errorf("store: a newer version has taken its place: %w", ErrConflict)

// Load is how much is under way on the whole server, at one moment.
type Load struct {
	Waiting  int // sessions that have not begun to start: the queue
	Starting int // sessions whose machine is being started
	// Busy is how many sessions take a machine's place: those that have begun to
	// start and not ended, and those that have ended and whose machine is not gone.
	Busy int
	// Mine is how many sessions of the one user have not ended, where there is
	// one user in question.
	Mine int
}

// User is a local user.
type User struct {
	ID        string
	Name      string
	Admin     bool // may administer what belongs to the whole server
	CreatedAt time.Time
}

// Token is an API token, a sign-in link or a page's cookie; only the SHA-256
// of its secret is stored.
type Token struct {
	ID         string
	UserID     string
	Kind       TokenKind
	Label      string
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	LastUsedAt time.Time
}

// TokenKind says what a token is good for.
type TokenKind string

// The kinds of tokens.
const (
	TokenAPI    TokenKind = "api"    // Authorization: Bearer
	TokenLink   TokenKind = "link"   // a sign-in link, consumed by its first use
	TokenCookie TokenKind = "cookie" // the page's cookie
)

// Ticket admits one viewer or terminal, once, within 30 seconds. Only the
// SHA-256 of its secret is stored.
type Ticket struct {
	Hash      [32]byte
	UserID    string
	Purpose   string // "viewer" or "terminal"
	SubjectID string // the session's or the machine's id
	ExpiresAt time.Time
}

// VMState is where a machine's row stands.
type VMState string

// The states of a machine's row. The row is written before anything exists on
// the host and leaves "destroying" only when nothing is left.
const (
	VMCreating   VMState = "creating"
	VMRunning    VMState = "running"
	VMDestroying VMState = "destroying"
	VMDestroyed  VMState = "destroyed"
	VMFailed     VMState = "failed" // gone, and not because it was asked to go
)

// VM is a machine's row.
type VM struct {
	ID          string
	UserID      string
	SessionID   session.ID // browser machines
	Kind        string     // "browser", "cli"
	Driver      string
	State       VMState
	Ref         json.RawMessage // the driver's
	ImageID     string
	Restored    bool
	Reason      string // why it failed
	CreatedAt   time.Time
	ReadyAt     time.Time
	DestroyedAt time.Time
}

// VMChange says what UpdateVM sets. A zero field leaves the column as it is.
// The time of destruction is set by the move to destroyed or failed.
type VMChange struct {
	State    VMState
	Ref      json.RawMessage
	ReadyAt  time.Time
	Restored bool // true sets it; nothing unsets it
	ImageID  string
	Reason   string
	// UserID and SessionID give a machine from the warm pool to a person's
	// session, which has an event of it. A machine that has an owner keeps it:
	// ErrConflict.
	UserID    string
	SessionID session.ID
}

// Change says what a move sets beside the state. A nil field leaves the column
// as it is.
type Change struct {
	VMID      *string
	ViewerURL *string
	Attempt   *int
	// Reason is for the three states that end without success, and only for
	// them; without one it is expired, cancelled or internal.
	Reason *session.Reason
	Detail *string
	// ExitAddress is where the session's machine is seen to come from.
	ExitAddress *string
	// Deadline is when the session expires from now on.
	Deadline *time.Time
}

// Stats counts rows, for the metrics page.
type Stats struct {
	Sessions map[session.State]int64 // every state is present
	VMs      []VMCount               // only what there is
	Users    int64
	Active   map[string]int64    // active credentials by provider
	Ports    map[PortState]int64 // upstream ports; every state is present if there is any
}

// VMCount is the number of machines of one kind in one state.
type VMCount struct {
	Kind  string
	State VMState
	Count int64
}

// Credential is one version of one user's credentials for one provider.
// Sealed parts are opaque to the store.
type Credential struct {
	ID          string
	UserID      string
	Provider    string
	Version     int  // counted from 1 per user and provider
	Active      bool // the newest version, not deleted: the only one with content
	SessionID   session.ID
	Account     string
	ExpiresAt   time.Time
	CreatedAt   time.Time
	DeliveredAt time.Time
	DeliveredTo string // the cli machine's id
	Sealed      Sealed
}

// Sealed is what the vault made of the files. Of a version that is not active
// any more, WrappedDEK and Ciphertext are gone.
type Sealed struct {
	Schema     int
	KEKID      string
	WrappedDEK []byte
	Ciphertext []byte
	SHA256     [32]byte // of Ciphertext
}
