package httpapi

import (
	"context"
	"io"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/ways"
)

// UseCases is what the API asks of the service behind it. All methods may be
// called concurrently. Whatever does not belong to userID does not exist:
// store.ErrNotFound.
//
// Errors that the API tells apart: store.ErrNotFound, store.ErrExists,
// store.ErrReplaced, store.ErrTooMany, store.ErrDiskFull, session.ErrConflict,
// session.ErrNotReady, provider.ErrUnknown, machine.ErrGone,
// machine.ErrNoMemory, machine.ErrDiskFull and the context's own. Every other
// one is logged and answered as internal.
type UseCases interface {
	// Providers returns what one can sign in to. The files are shared: nobody
	// changes them.
	Providers() []*provider.File

	// StartSession makes a session. With an idempotencyKey that this user has
	// used before it returns that session and true, or store.ErrExists if that
	// was for another provider; without ("") always a new one. providerName may
	// be an alias. store.ErrTooMany if the user has too many under way,
	// store.ErrQueueFull if it could not start now and too many wait.
	StartSession(ctx context.Context, userID, providerName, idempotencyKey string, view guestapi.View) (s session.Session, repeated bool, err error)
	Session(ctx context.Context, userID string, id session.ID) (session.Session, error)
	// Sessions returns at most limit sessions, newest first, from the one after
	// before on; from the newest if before is empty.
	Sessions(ctx context.Context, userID string, limit int, before session.ID) ([]session.Session, error)
	// Cancel ends a session; one that has ended is a conflict.
	Cancel(ctx context.Context, userID string, id session.ID) (session.Session, error)

	// EventsAfter returns at most limit events with a greater Seq, in order; of
	// all of the user's sessions and things if sessionID is empty.
	EventsAfter(ctx context.Context, userID string, sessionID session.ID, after int64, limit int) ([]session.Event, error)
	// LatestSeq returns the Seq of the user's newest event; 0 if there is none.
	LatestSeq(ctx context.Context, userID string) (int64, error)
	// Changed returns a channel that is closed at the next change of any event.
	// Who takes it before reading misses nothing.
	Changed() <-chan struct{}

	Credentials(ctx context.Context, userID string) ([]store.Credential, error)
	Credential(ctx context.Context, userID, id string) (store.Credential, error)
	DeleteCredential(ctx context.Context, userID, id string) error
	// Deliver returns what was delivered, once the user's machine has
	// acknowledged the files. id that is not the active version is
	// store.ErrReplaced.
	Deliver(ctx context.Context, userID, id string) (store.Credential, error)

	Machines(ctx context.Context, userID string) ([]store.VM, error)
	Machine(ctx context.Context, userID, id string) (store.VM, error)
	// EnsureMachine returns the user's cli machine, running.
	EnsureMachine(ctx context.Context, userID string) (store.VM, error)
	DestroyMachine(ctx context.Context, userID, id string) error

	// ViewerTicket and TerminalTicket make a ticket for one connection.
	ViewerTicket(ctx context.Context, userID string, id session.ID) (secret string, expires time.Time, err error)
	TerminalTicket(ctx context.Context, userID, machineID string) (secret string, expires time.Time, err error)
	// OpenViewer consumes a ticket and connects to the screen of the session's
	// own machine. The bytes are RFB. A ticket that is wrong, used, too old or
	// for something else is store.ErrNotFound; a session that has no screen,
	// not yet or no longer, is session.ErrConflict or machine.ErrGone. ctx is
	// for the opening only. The caller closes what it gets; Close ends a Read
	// and a Write under way.
	OpenViewer(ctx context.Context, userID string, id session.ID, ticket string) (io.ReadWriteCloser, error)
	// OpenScreen is the same for the screen as encoded video. The bytes are
	// guestapi screen frames. A machine without that codec, or without video at
	// all, is a *guestapi.StatusError.
	OpenScreen(ctx context.Context, userID string, id session.ID, ticket, codec string) (io.ReadWriteCloser, error)
	// OpenTerminal is the same for a shell in a cli machine. The bytes are
	// guestapi terminal frames.
	OpenTerminal(ctx context.Context, userID, machineID, ticket string, cols, rows int) (io.ReadWriteCloser, error)
}

// Outward is who leaves for the internet how. *ways.Ways is one; it says what
// the methods guarantee.
type Outward interface {
	Shared() bool
	Direct() bool
	Way(userID string) (ways.Way, bool)
	PortOf(ctx context.Context, userID string) (store.Port, error)
	Ports(ctx context.Context) ([]ways.Port, error)
	Assign(ctx context.Context, userID string, key store.PortKey) (store.Port, error)
	Release(ctx context.Context, key store.PortKey, now bool) error
	Quarantine(ctx context.Context, key store.PortKey, reason string) error
	Pin(ctx context.Context, key store.PortKey, address string) (store.Port, error)
	Look(ctx context.Context, key store.PortKey, providers []*provider.File) (ways.Report, error)
}

// Auth is what the API needs to know who is asking. A hash is store.HashSecret
// of the secret; expired tokens are not found.
type Auth interface {
	UserByToken(ctx context.Context, hash [32]byte, kinds ...store.TokenKind) (store.User, store.Token, error)
	// ConsumeLink returns the user of a sign-in link, once.
	ConsumeLink(ctx context.Context, hash [32]byte) (store.User, error)
	CreateToken(ctx context.Context, t store.Token, hash [32]byte) (store.Token, error)
	DeleteToken(ctx context.Context, userID, id string) error
	UserByName(ctx context.Context, name string) (store.User, error)
	Users(ctx context.Context) ([]store.User, error)
}
