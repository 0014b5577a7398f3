package storetest

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

func testUsers(f *fixture) {
	f.equal("users at first", len(must(f.Users(f.ctx))(f)), 0)
	bo := f.user("bo")
	alice := f.user("alice")
	f.equal("created", alice.CreatedAt, f.now())
	f.equal("by name", must(f.UserByName(f.ctx, "alice"))(f), alice)
	f.equal("by id", must(f.UserByID(f.ctx, alice.ID))(f), alice)
	f.equal("users", must(f.Users(f.ctx))(f), []store.User{alice, bo})
	_, err := f.CreateUser(f.ctx, "alice")
	f.is(err, store.ErrExists)
	_, err = f.UserByName(f.ctx, "Alice")
	f.is(err, store.ErrNotFound)
	_, err = f.UserByID(f.ctx, "")
	f.is(err, store.ErrNotFound)
	for _, name := range []string{"", " x", "x ", "a\nb", "a\x00b", "\xff", strings.Repeat("x", 65)} {
		_, err := f.CreateUser(f.ctx, name)
		f.is(err, store.ErrInvalid)
	}
	f.user("Åsa Öberg")
	f.user(strings.Repeat("x", 64))
}

func hash(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

func testTokens(f *fixture) {
	u, other := f.user("u"), f.user("other")
	tok := must(f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: store.TokenAPI, Label: "laptop"}, hash("s")))(f)
	if tok.ID == "" || !tok.LastUsedAt.IsZero() || !tok.ExpiresAt.IsZero() {
		f.Fatalf("token is %+v", tok)
	}
	_, err := f.CreateToken(f.ctx, store.Token{UserID: "nobody", Kind: store.TokenAPI}, hash("t"))
	f.is(err, store.ErrNotFound)
	_, err = f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: "root"}, hash("t"))
	f.is(err, store.ErrInvalid)
	_, err = f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: store.TokenAPI}, hash("s"))
	f.is(err, store.ErrExists)

	first := f.now()
	owner, used, err := f.UserByToken(f.ctx, hash("s"), store.TokenAPI)
	f.ok(err)
	f.equal("owner", owner, u)
	f.equal("last used", used.LastUsedAt, first)
	f.clock.add(59 * time.Second)
	_, used, err = f.UserByToken(f.ctx, hash("s"), store.TokenAPI)
	f.ok(err)
	f.equal("last used within a minute", used.LastUsedAt, first)
	f.clock.add(time.Second)
	_, _, err = f.UserByToken(f.ctx, hash("s"), store.TokenAPI)
	f.ok(err)
	f.equal("last used after a minute", must(f.Tokens(f.ctx, u.ID))(f)[0].LastUsedAt, f.now())

	f.is(f.DeleteToken(f.ctx, other.ID, tok.ID), store.ErrNotFound)
	f.ok(f.DeleteToken(f.ctx, u.ID, tok.ID))
	f.is(f.DeleteToken(f.ctx, u.ID, tok.ID), store.ErrNotFound)
	_, _, err = f.UserByToken(f.ctx, hash("s"), store.TokenAPI)
	f.is(err, store.ErrNotFound)
	f.equal("tokens", len(must(f.Tokens(f.ctx, u.ID))(f)), 0)
}

func testTokenKinds(f *fixture) {
	u := f.user("u")
	ends := f.now().Add(time.Minute)
	for _, kind := range []store.TokenKind{store.TokenAPI, store.TokenLink, store.TokenCookie} {
		must(f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: kind, ExpiresAt: ends}, hash(string(kind))))(f)
	}
	for _, test := range []struct {
		secret string
		kinds  []store.TokenKind
		want   error
	}{
		{"api", []store.TokenKind{store.TokenAPI}, nil},
		{"cookie", []store.TokenKind{store.TokenAPI, store.TokenCookie}, nil},
		{"cookie", []store.TokenKind{store.TokenAPI}, store.ErrNotFound},
		{"link", []store.TokenKind{store.TokenAPI, store.TokenCookie}, store.ErrNotFound},
		{"api", nil, store.ErrNotFound},
		{"none", []store.TokenKind{store.TokenAPI}, store.ErrNotFound},
	} {
		_, _, err := f.UserByToken(f.ctx, hash(test.secret), test.kinds...)
		f.is(err, test.want)
	}
	_, err := f.ConsumeLink(f.ctx, hash("api"))
	f.is(err, store.ErrNotFound)
	f.clock.add(time.Minute)
	_, _, err = f.UserByToken(f.ctx, hash("api"), store.TokenAPI)
	f.is(err, store.ErrNotFound)
	_, err = f.ConsumeLink(f.ctx, hash("link"))
	f.is(err, store.ErrNotFound)
	must(f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: store.TokenAPI}, hash("new")))(f)
	f.equal("tokens once the expired are purged", len(must(f.Tokens(f.ctx, u.ID))(f)), 1)
}

func testLinkRace(f *fixture) {
	u := f.user("u")
	must(f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: store.TokenLink, ExpiresAt: f.now().Add(time.Hour)}, hash("link")))(f)
	errs := f.race(8, func(_ int, s Store) error {
		got, err := s.ConsumeLink(f.ctx, hash("link"))
		if err == nil && got != u {
			f.Errorf("the link's owner is %+v", got)
		}
		return err
	})
	f.oneWins(errs, store.ErrNotFound)
}

func testTickets(f *fixture) {
	u := f.user("u")
	ticket := store.Ticket{Hash: hash("t"), UserID: u.ID, Purpose: "viewer", SubjectID: "session1", ExpiresAt: f.now().Add(30 * time.Second)}
	f.ok(f.CreateTicket(f.ctx, ticket))
	f.is(f.CreateTicket(f.ctx, ticket), store.ErrExists)
	f.is(f.CreateTicket(f.ctx, store.Ticket{Hash: hash("x"), UserID: u.ID, Purpose: "viewer", SubjectID: "s"}), store.ErrInvalid)
	bad := ticket
	bad.Hash, bad.Purpose = hash("x"), "anything"
	f.is(f.CreateTicket(f.ctx, bad), store.ErrInvalid)
	for _, wrong := range []struct {
		secret, purpose, subject string
	}{
		{"u", "viewer", "session1"}, {"t", "terminal", "session1"}, {"t", "viewer", "session2"}, {"t", "", ""},
	} {
		_, err := f.ConsumeTicket(f.ctx, hash(wrong.secret), wrong.purpose, wrong.subject)
		f.is(err, store.ErrNotFound)
	}
	f.equal("ticket", must(f.ConsumeTicket(f.ctx, hash("t"), "viewer", "session1"))(f), ticket)
	_, err := f.ConsumeTicket(f.ctx, hash("t"), "viewer", "session1")
	f.is(err, store.ErrNotFound)

	f.ok(f.CreateTicket(f.ctx, ticket))
	f.clock.add(30 * time.Second)
	_, err = f.ConsumeTicket(f.ctx, hash("t"), "viewer", "session1")
	f.is(err, store.ErrNotFound)
	ticket.ExpiresAt = f.now().Add(time.Second)
	f.ok(f.CreateTicket(f.ctx, ticket)) // the expired one is out of its way
}

func testTicketRace(f *fixture) {
	u := f.user("u")
	f.ok(f.CreateTicket(f.ctx, store.Ticket{Hash: hash("t"), UserID: u.ID, Purpose: "terminal", SubjectID: "vm", ExpiresAt: f.now().Add(time.Minute)}))
	f.oneWins(f.race(8, func(_ int, s Store) error {
		_, err := s.ConsumeTicket(f.ctx, hash("t"), "terminal", "vm")
		return err
	}), store.ErrNotFound)
}
