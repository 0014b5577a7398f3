// Package storetest is the conformance suite of the database adapters: the
// interface that they share, and tests of what its methods promise.
package storetest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// Store is what every adapter offers. What the methods promise is written at
// package sqlite's. All may be called concurrently, by several processes.
type Store interface {
	Close() error

	CreateUser(ctx context.Context, name string) (store.User, error)
	UserByName(ctx context.Context, name string) (store.User, error)
	UserByID(ctx context.Context, id string) (store.User, error)
	Users(ctx context.Context) ([]store.User, error)

	CreateToken(ctx context.Context, t store.Token, hash [32]byte) (store.Token, error)
	UserByToken(ctx context.Context, hash [32]byte, kinds ...store.TokenKind) (store.User, store.Token, error)
	ConsumeLink(ctx context.Context, hash [32]byte) (store.User, error)
	Tokens(ctx context.Context, userID string) ([]store.Token, error)
	DeleteToken(ctx context.Context, userID, id string) error

	CreateTicket(ctx context.Context, t store.Ticket) error
	ConsumeTicket(ctx context.Context, hash [32]byte, purpose, subjectID string) (store.Ticket, error)

	CreateSession(ctx context.Context, s session.Session, idempotencyKey string) (session.Session, bool, error)
	CreateSessionWithin(ctx context.Context, s session.Session, idempotencyKey string, allow func(store.Load) error) (session.Session, bool, error)
	Session(ctx context.Context, id session.ID) (session.Session, error)
	SessionsOf(ctx context.Context, userID string, limit int, before time.Time) ([]session.Session, error)
	OpenSessions(ctx context.Context) ([]session.Session, error)
	Claim(ctx context.Context, id session.ID, owner string, ttl time.Duration) (session.Session, error)
	Heartbeat(ctx context.Context, id session.ID, owner string) error
	Release(ctx context.Context, id session.ID, owner string) error
	Move(ctx context.Context, id session.ID, from, to session.State, owner string, change store.Change, message string) (session.Session, error)
	Admit(ctx context.Context, id session.ID, owner string, deadline time.Time, allow func(store.Load) error, message string) (session.Session, error)
	Ahead(ctx context.Context, id session.ID) (int, error)
	Load(ctx context.Context) (store.Load, error)
	SetAttempt(ctx context.Context, id session.ID, owner string, attempt int, vmID, message string) error

	AddEvent(ctx context.Context, e session.Event) (session.Event, error)
	EventsAfter(ctx context.Context, userID string, sessionID session.ID, after int64, limit int) ([]session.Event, error)
	LatestSeq(ctx context.Context, userID string) (int64, error)

	NextVersion(ctx context.Context, userID, provider string) (int, error)
	CommitCredential(ctx context.Context, id session.ID, owner string, c store.Credential, message string) (session.Session, store.Credential, error)
	CommitRefreshed(ctx context.Context, base string, c store.Credential, machineID, message string) (store.Credential, error)
	Credential(ctx context.Context, id string) (store.Credential, error)
	CredentialsOf(ctx context.Context, userID string) ([]store.Credential, error)
	ActiveCredential(ctx context.Context, userID, provider string) (store.Credential, error)
	ActiveCredentials(ctx context.Context, userID string) ([]store.Credential, error)
	MarkDelivered(ctx context.Context, id, machineID string) error
	DeleteCredential(ctx context.Context, userID, id string) error
	LeftOn(ctx context.Context, userID, machineID string) ([]string, error)
	MarkTakenAway(ctx context.Context, userID, provider, machineID string) error
	SealedVersions(ctx context.Context, kekIDNot []string, limit int) ([]store.Credential, error)
	Rewrap(ctx context.Context, id, oldKEK, newKEK string, wrapped []byte) error
	RetireKEK(ctx context.Context, kekID string) error
	VerifyAudit(ctx context.Context) (store.AuditReport, error)

	InsertVM(ctx context.Context, v store.VM) error
	UpdateVM(ctx context.Context, id string, from []store.VMState, change store.VMChange) error
	VM(ctx context.Context, id string) (store.VM, error)
	LiveVMs(ctx context.Context) ([]store.VM, error)
	VMsOf(ctx context.Context, userID string) ([]store.VM, error)
	CLIMachine(ctx context.Context, userID string) (store.VM, error)

	SetAdmin(ctx context.Context, userID string, admin bool) error
	SyncPorts(ctx context.Context, keys []store.PortKey) error
	Ports(ctx context.Context) ([]store.Port, error)
	PortOf(ctx context.Context, userID string) (store.Port, error)
	ClaimPort(ctx context.Context, userID, provider string, refusedSince time.Time) (store.Port, bool, error)
	AssignPort(ctx context.Context, userID string, key store.PortKey, rest time.Duration) (store.Port, error)
	ReleasePort(ctx context.Context, key store.PortKey, rest time.Duration) error
	QuarantinePort(ctx context.Context, key store.PortKey, reason string) error
	SawExit(ctx context.Context, userID string, key store.PortKey, address string) (store.Port, error)
	PinExit(ctx context.Context, key store.PortKey, address string) (store.Port, error)
	PortRefuses(ctx context.Context, key store.PortKey, provider, name string) error

	Stats(ctx context.Context) (store.Stats, error)
}

// Opener opens one more handle on one database. The test closes nothing: the
// opener arranges it.
type Opener func(t *testing.T, now func() time.Time) Store

// Run tests an adapter; newDB makes an empty database.
func Run(t *testing.T, newDB func(t *testing.T) Opener) {
	for name, test := range map[string]func(*fixture){
		"Users":                  testUsers,
		"Tokens":                 testTokens,
		"TokenKinds":             testTokenKinds,
		"LinkRace":               testLinkRace,
		"Tickets":                testTickets,
		"TicketRace":             testTicketRace,
		"CreateSession":          testCreateSession,
		"CreateSessionWithin":    testCreateWithin,
		"Load":                   testLoad,
		"Queue":                  testQueue,
		"AdmitRace":              testAdmitRace,
		"Idempotency":            testIdempotency,
		"IdempotencyRace":        testIdempotencyRace,
		"SessionPages":           testSessionPages,
		"Moves":                  testMoves,
		"MoveChanges":            testMoveChanges,
		"MoveReasons":            testMoveReasons,
		"MoveRace":               testMoveRace,
		"Leases":                 testLeases,
		"ClaimRace":              testClaimRace,
		"SetAttempt":             testSetAttempt,
		"OthersRows":             testOthersRows,
		"Events":                 testEvents,
		"EventRace":              testEventRace,
		"CommitCredential":       testCommitCredential,
		"CommitRefused":          testCommitRefused,
		"CommitRace":             testCommitRace,
		"CommitRefreshed":        testCommitRefreshed,
		"Delivered":              testDelivered,
		"DeleteCredential":       testDeleteCredential,
		"LeftOnAMachine":         testLeftOn,
		"Rewrap":                 testRewrap,
		"Audit":                  testAudit,
		"VMs":                    testVMs,
		"VMMoves":                testVMMoves,
		"PooledVM":               testPooledVM,
		"OneCLIMachine":          testOneCLIMachine,
		"Admins":                 testAdmins,
		"ExitAddress":            testExitAddress,
		"Ports":                  testPorts,
		"PortRace":               testPortRace,
		"PortRest":               testPortRest,
		"PortAssign":             testPortAssign,
		"PortExit":               testPortExit,
		"PortRefusals":           testPortRefusals,
		"Stats":                  testStats,
		"CancelledContext":       testCancelledContext,
		"SurvivesReopening":      testReopen,
		"TimesAreMilliseconds":   testTimes,
		"TextFromAGuestIsMended": testText,
	} {
		t.Run(name, func(t *testing.T) {
			clock := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)}
			open := newDB(t)
			test(&fixture{T: t, Store: open(t, clock.Now), open: open, clock: clock, ctx: t.Context()})
		})
	}
}

// clock is a time that tests move by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type fixture struct {
	*testing.T
	Store
	open  Opener
	clock *clock
	ctx   context.Context // of one test, which the fixture is
}

// second opens another handle on the same database, as another process would.
func (f *fixture) second() Store { return f.open(f.T, f.clock.Now) }

func (f *fixture) now() time.Time { return f.clock.Now().Truncate(time.Millisecond) }

func (f *fixture) user(name string) store.User {
	f.Helper()
	return must(f.CreateUser(f.ctx, name))(f)
}

// session makes a session of u, leased by "a", and takes it to a state.
func (f *fixture) session(u store.User, state session.State) session.Session {
	f.Helper()
	s, _, err := f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "")
	f.ok(err)
	if !state.Final() {
		s = must(f.Claim(f.ctx, s.ID, "a", time.Minute))(f)
	}
	path := session.States()
	switch state {
	case session.Failed, session.Expired, session.Cancelled:
		return must(f.Move(f.ctx, s.ID, s.State, state, "", store.Change{}, "over"))(f)
	}
	for _, to := range path[1:] {
		if s.State == state {
			break
		}
		if to == session.Delivering {
			s, _, err = f.CommitCredential(f.ctx, s.ID, "", f.sealed(u, "claude", ""), "stored")
			f.ok(err)
			continue
		}
		s = must(f.Move(f.ctx, s.ID, s.State, to, "", store.Change{}, "on to "+string(to)))(f)
	}
	f.equal("state", s.State, state)
	return s
}

// sealed makes a credential with the next version's number and random content.
func (f *fixture) sealed(u store.User, provider, kek string) store.Credential {
	f.Helper()
	if kek == "" {
		kek = "kek1"
	}
	text := make([]byte, 64)
	rand.Read(text)
	return store.Credential{
		ID: string(session.NewID()), UserID: u.ID, Provider: provider,
		Version: must(f.NextVersion(f.ctx, u.ID, provider))(f), Account: u.Name + "@example.com", ExpiresAt: f.now().Add(time.Hour),
		Sealed: store.Sealed{Schema: 1, KEKID: kek, WrappedDEK: append([]byte("wrap:"), text[:8]...), Ciphertext: text, SHA256: sha256.Sum256(text)},
	}
}

func (f *fixture) vm(u store.User, s session.ID, kind string) store.VM {
	f.Helper()
	v := store.VM{ID: string(session.NewID()), UserID: u.ID, SessionID: s, Kind: kind, Driver: "fake", ImageID: "image1"}
	f.ok(f.InsertVM(f.ctx, v))
	return must(f.VM(f.ctx, v.ID))(f)
}

func (f *fixture) ok(err error) {
	f.Helper()
	if err != nil {
		f.Fatalf("unexpected error: %v", err)
	}
}

func (f *fixture) is(err, want error) {
	f.Helper()
	if !errors.Is(err, want) {
		f.Fatalf("error is %v, want %v", err, want)
	}
}

// conflict checks for a typed conflict with the state that the session is in.
func (f *fixture) conflict(err error, actual session.State) {
	f.Helper()
	var c *session.ConflictError
	if !errors.As(err, &c) || !errors.Is(err, store.ErrConflict) {
		f.Fatalf("error is %v, want a conflict", err)
	}
	f.equal("actual state", c.Actual, actual)
}

func (f *fixture) equal(what string, got, want any) {
	f.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		f.Fatalf("%s is\n %s, want\n %s", what, g, w)
	}
}

func must[T any](v T, err error) func(*fixture) T {
	return func(f *fixture) T {
		f.Helper()
		f.ok(err)
		return v
	}
}

// race runs n calls at once, on handles by turns, and returns their errors.
func (f *fixture) race(n int, call func(i int, s Store) error) []error {
	f.Helper()
	handles := []Store{f.Store, f.second()}
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = call(i, handles[i%len(handles)])
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// oneWins checks that one call succeeded and all others failed with want.
func (f *fixture) oneWins(errs []error, want error) int {
	f.Helper()
	winner, wins := -1, 0
	for i, err := range errs {
		if err == nil {
			winner, wins = i, wins+1
		} else {
			f.is(err, want)
		}
	}
	f.equal("number of winners", wins, 1)
	return winner
}
