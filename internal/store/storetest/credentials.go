package storetest

import (
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func kinds(events []session.Event) string {
	out := ""
	for _, e := range events {
		out += string(e.Kind) + ":" + string(e.State) + " "
	}
	return out
}

func testCommitCredential(f *fixture) {
	u := f.user("u")
	var last store.Credential
	for version := 1; version <= 3; version++ {
		s := f.session(u, session.Storing)
		seq := must(f.LatestSeq(f.ctx, u.ID))(f)
		c := f.sealed(u, "claude", "")
		f.equal("version", c.Version, version)
		moved, stored, err := f.CommitCredential(f.ctx, s.ID, "a", c, "On to delivery.")
		f.ok(err)
		want := c
		want.SessionID, want.Active, want.CreatedAt = s.ID, true, f.now()
		f.equal("stored", stored, want)
		f.equal("by id", must(f.Credential(f.ctx, c.ID))(f), want)
		f.equal("active", must(f.ActiveCredential(f.ctx, u.ID, "claude"))(f), want)
		f.equal("all active", must(f.ActiveCredentials(f.ctx, u.ID))(f), []store.Credential{want})
		f.equal("session", []any{moved.State, moved.CredentialID}, []any{session.Delivering, c.ID})
		f.equal("events", kinds(must(f.EventsAfter(f.ctx, u.ID, s.ID, seq, 0))(f)), "credential_stored: state:delivering ")
		if last.ID != "" { // replaced: its content is gone, what is known of it is not
			last.Active, last.Sealed.WrappedDEK, last.Sealed.Ciphertext = false, nil, nil
			f.equal("the replaced one", must(f.Credential(f.ctx, last.ID))(f), last)
			f.is(f.Rewrap(f.ctx, last.ID, "kek1", "kek2", []byte("x")), store.ErrConflict)
		}
		f.equal("with content", len(must(f.SealedVersions(f.ctx, nil, 0))(f)), 1)
		last = want
	}
	meta := must(f.CredentialsOf(f.ctx, u.ID))(f)
	want := last
	want.Sealed.WrappedDEK, want.Sealed.Ciphertext = nil, nil
	f.equal("metadata", meta, []store.Credential{want})
	report := must(f.VerifyAudit(f.ctx))(f)
	f.equal("audited", []any{report.Entries, report.Credentials}, []any{3, 1})
}

func testCommitRefused(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Storing)
	seq := must(f.LatestSeq(f.ctx, u.ID))(f)
	good := f.sealed(u, "claude", "")
	with := func(change func(*store.Credential)) store.Credential {
		c := good
		change(&c)
		return c
	}
	for name, test := range map[string]struct {
		id    session.ID
		owner string
		c     store.Credential
		want  error
	}{
		"a later version":    {s.ID, "a", with(func(c *store.Credential) { c.Version = 2 }), store.ErrConflict},
		"version 0":          {s.ID, "a", with(func(c *store.Credential) { c.Version = 0 }), store.ErrConflict},
		"another's lease":    {s.ID, "b", good, store.ErrConflict},
		"no id":              {s.ID, "a", with(func(c *store.Credential) { c.ID = "" }), store.ErrInvalid},
		"another digest":     {s.ID, "a", with(func(c *store.Credential) { c.Sealed.SHA256[0] ^= 1 }), store.ErrInvalid},
		"another's":          {s.ID, "a", with(func(c *store.Credential) { c.UserID = "nobody" }), store.ErrInvalid},
		"no wrapped key":     {s.ID, "a", with(func(c *store.Credential) { c.Sealed.WrappedDEK = []byte{} }), store.ErrInvalid},
		"a wrong session":    {session.NewID(), "a", good, store.ErrNotFound},
		"one not in storing": {f.session(u, session.Capturing).ID, "a", good, store.ErrConflict},
	} {
		if _, _, err := f.CommitCredential(f.ctx, test.id, test.owner, test.c, ""); !errors.Is(err, test.want) {
			f.Fatalf("%s: %v, want %v", name, err, test.want)
		}
	}
	f.equal("session", must(f.Session(f.ctx, s.ID))(f), s)
	_, err := f.ActiveCredential(f.ctx, u.ID, "claude")
	f.is(err, store.ErrNotFound)
	f.equal("events", len(must(f.EventsAfter(f.ctx, u.ID, s.ID, seq, 0))(f)), 0)
	f.equal("audited", must(f.VerifyAudit(f.ctx))(f).Entries, 0)
	_, _, err = f.CommitCredential(f.ctx, s.ID, "a", good, "")
	f.ok(err)
	_, _, err = f.CommitCredential(f.ctx, s.ID, "a", good, "")
	f.conflict(err, session.Delivering)
}

// testCommitRace: two sessions of one user and provider, stored at once.
func testCommitRace(f *fixture) {
	u := f.user("u")
	const n = 6
	var sessions [n]session.Session
	for i := range n {
		sessions[i] = f.session(u, session.Storing)
	}
	for _, err := range f.race(n, func(i int, s Store) error {
		for {
			c := f.sealed(u, "claude", "")
			var lost *session.ConflictError
			_, _, err := s.CommitCredential(f.ctx, sessions[i].ID, "a", c, "")
			if err == nil || !errors.Is(err, store.ErrConflict) || errors.As(err, &lost) {
				return err
			}
		}
	}) {
		f.ok(err)
	}
	f.equal("newest", must(f.ActiveCredential(f.ctx, u.ID, "claude"))(f).Version, n)
	f.equal("active", len(must(f.ActiveCredentials(f.ctx, u.ID))(f)), 1)
	report := must(f.VerifyAudit(f.ctx))(f)
	f.equal("audited", []any{report.Entries, report.Credentials}, []any{n, 1})
}

func testCommitRefreshed(f *fixture) {
	u, other := f.user("u"), f.user("other")
	base := must(f.Credential(f.ctx, f.session(u, session.Delivering).CredentialID))(f)
	_, err := f.CommitRefreshed(f.ctx, base.ID, f.sealed(u, "claude", ""), "machine1", "")
	f.is(err, store.ErrConflict) // never delivered
	_, err = f.CommitRefreshed(f.ctx, base.ID, f.sealed(u, "claude", ""), "", "")
	f.is(err, store.ErrConflict)
	f.ok(f.MarkDelivered(f.ctx, base.ID, "machine1"))
	_, err = f.CommitRefreshed(f.ctx, base.ID, f.sealed(u, "claude", ""), "machine2", "")
	f.is(err, store.ErrConflict) // delivered elsewhere
	_, err = f.CommitRefreshed(f.ctx, "none", f.sealed(u, "claude", ""), "machine1", "")
	f.is(err, store.ErrConflict)
	_, err = f.CommitRefreshed(f.ctx, base.ID, f.sealed(other, "claude", ""), "machine1", "")
	f.is(err, store.ErrInvalid)
	stale := f.sealed(u, "claude", "")
	stale.Version = 1
	_, err = f.CommitRefreshed(f.ctx, base.ID, stale, "machine1", "")
	f.is(err, store.ErrConflict)
	f.equal("active", must(f.ActiveCredential(f.ctx, u.ID, "claude"))(f).ID, base.ID)

	seq := must(f.LatestSeq(f.ctx, u.ID))(f)
	f.clock.add(1e9)
	c := f.sealed(u, "claude", "")
	want := c
	want.SessionID, want.Active, want.CreatedAt, want.DeliveredAt, want.DeliveredTo = base.SessionID, true, f.now(), f.now(), "machine1"
	f.equal("stored", must(f.CommitRefreshed(f.ctx, base.ID, c, "machine1", "Renewed."))(f), want)
	f.equal("active", must(f.ActiveCredential(f.ctx, u.ID, "claude"))(f), want)
	f.equal("base's content", len(must(f.Credential(f.ctx, base.ID))(f).Sealed.Ciphertext), 0)
	events := must(f.EventsAfter(f.ctx, u.ID, "", seq, 0))(f)
	f.equal("events", kinds(events), "credential_stored: ")
	f.equal("message", events[0].Message, "Renewed.")
	// What was made of the older version comes too late, also in a race.
	_, err = f.CommitRefreshed(f.ctx, base.ID, f.sealed(u, "claude", ""), "machine1", "")
	f.is(err, store.ErrConflict)
	last := f.sealed(u, "claude", "")
	f.oneWins(f.race(6, func(i int, s Store) error {
		mine := last
		mine.ID = fmt.Sprint(last.ID, i)
		_, err := s.CommitRefreshed(f.ctx, c.ID, mine, "machine1", "")
		return err
	}), store.ErrConflict)
	f.ok(f.DeleteCredential(f.ctx, u.ID, base.ID))
	_, err = f.CommitRefreshed(f.ctx, c.ID, f.sealed(u, "claude", ""), "machine1", "")
	f.is(err, store.ErrConflict)
	must(f.VerifyAudit(f.ctx))(f)
}

func testDelivered(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Delivering)
	for i := range 2 {
		f.ok(f.MarkDelivered(f.ctx, s.CredentialID, fmt.Sprint("machine", i)))
		c := must(f.Credential(f.ctx, s.CredentialID))(f)
		f.equal("delivered", []any{c.DeliveredAt, c.DeliveredTo}, []any{f.now(), fmt.Sprint("machine", i)})
		events := must(f.EventsAfter(f.ctx, u.ID, s.ID, 0, 0))(f)
		f.equal("event", events[len(events)-1].Kind, session.EventCredentialDelivered)
	}
	f.is(f.MarkDelivered(f.ctx, "none", "machine"), store.ErrNotFound)
	f.equal("audited", must(f.VerifyAudit(f.ctx))(f).Entries, 3)
}

func testDeleteCredential(f *fixture) {
	u, other := f.user("u"), f.user("other")
	first, second := f.session(u, session.Delivering), f.session(u, session.Delivering)
	theirs := f.session(other, session.Delivering)
	f.is(f.DeleteCredential(f.ctx, other.ID, second.CredentialID), store.ErrNotFound)
	f.is(f.DeleteCredential(f.ctx, u.ID, "none"), store.ErrNotFound)
	f.ok(f.DeleteCredential(f.ctx, u.ID, second.CredentialID))
	for _, id := range []string{first.CredentialID, second.CredentialID} {
		_, err := f.Credential(f.ctx, id)
		f.is(err, store.ErrNotFound)
		f.is(f.MarkDelivered(f.ctx, id, "machine"), store.ErrNotFound)
		f.is(f.DeleteCredential(f.ctx, u.ID, id), store.ErrNotFound)
		f.is(f.Rewrap(f.ctx, id, "kek1", "kek2", []byte("x")), store.ErrConflict)
	}
	_, err := f.ActiveCredential(f.ctx, u.ID, "claude")
	f.is(err, store.ErrNotFound)
	f.equal("credentials", len(must(f.CredentialsOf(f.ctx, u.ID))(f)), 0)
	f.equal("another's", must(f.ActiveCredential(f.ctx, other.ID, "claude"))(f).ID, theirs.CredentialID)
	events := must(f.EventsAfter(f.ctx, u.ID, "", 0, 0))(f)
	f.equal("event", events[len(events)-1].Kind, session.EventCredentialDeleted)
	f.equal("next version", must(f.NextVersion(f.ctx, u.ID, "claude"))(f), 3)
	f.session(u, session.Delivering)
	report := must(f.VerifyAudit(f.ctx))(f)
	f.equal("audited", []any{report.Entries, report.Credentials}, []any{6, 2})
}

// testLeftOn: a machine that lives when its owner's credential is deleted may
// hold the files until it says otherwise.
func testLeftOn(f *fixture) {
	u, other := f.user("u"), f.user("other")
	left := func(want ...string) func(machine string) {
		f.Helper()
		return func(machine string) {
			f.Helper()
			f.equal("left", must(f.LeftOn(f.ctx, u.ID, machine))(f), append([]string{}, want...))
		}
	}
	remove := func() {
		f.Helper()
		f.ok(f.DeleteCredential(f.ctx, u.ID, f.session(u, session.Delivering).CredentialID))
	}
	f.vm(other, "", "cli")
	remove()
	left()("") // there was no machine

	m := f.vm(u, "", "cli")
	left()(m.ID)
	id := f.session(u, session.Delivering).CredentialID
	f.ok(f.MarkDelivered(f.ctx, id, m.ID))
	left()(m.ID)
	f.ok(f.DeleteCredential(f.ctx, u.ID, id))
	left("claude")(m.ID)
	left()("machine2")
	f.equal("another's", len(must(f.LeftOn(f.ctx, other.ID, m.ID))(f)), 0)
	f.ok(f.MarkTakenAway(f.ctx, other.ID, "claude", m.ID))
	f.ok(f.MarkTakenAway(f.ctx, u.ID, "codex", m.ID))
	f.ok(f.MarkTakenAway(f.ctx, u.ID, "claude", "machine2"))
	left("claude")(m.ID)
	f.ok(f.MarkTakenAway(f.ctx, u.ID, "claude", m.ID))
	f.ok(f.MarkTakenAway(f.ctx, u.ID, "claude", m.ID))
	left()(m.ID)

	remove() // never acknowledged: it may have come all the same
	left("claude")(m.ID)
	id = f.session(u, session.Delivering).CredentialID
	left()(m.ID) // a newer version takes its place
	f.ok(f.DeleteCredential(f.ctx, u.ID, id))
	left("claude")(m.ID)
	f.ok(f.MarkTakenAway(f.ctx, u.ID, "claude", m.ID))
	left()(m.ID)

	remove()
	f.ok(f.UpdateVM(f.ctx, m.ID, nil, store.VMChange{State: store.VMDestroyed}))
	next := f.vm(u, "", "cli")
	left()(next.ID) // it starts without them
	remove()
	left("claude")(next.ID)
	must(f.VerifyAudit(f.ctx))(f)
}

func testRewrap(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Delivering)
	before := must(f.Credential(f.ctx, s.CredentialID))(f)
	sealed := must(f.SealedVersions(f.ctx, []string{"kek2", "kek3"}, 10))(f)
	want := before
	want.Sealed.Ciphertext = nil
	f.equal("to be rewrapped", sealed, []store.Credential{want})
	f.equal("wrapped with anything", len(must(f.SealedVersions(f.ctx, nil, 0))(f)), 1)

	f.is(f.RetireKEK(f.ctx, "kek1"), store.ErrConflict)
	f.is(f.Rewrap(f.ctx, s.CredentialID, "kek0", "kek2", []byte("new")), store.ErrConflict)
	f.ok(f.Rewrap(f.ctx, s.CredentialID, "kek1", "kek2", []byte("new")))
	f.is(f.Rewrap(f.ctx, s.CredentialID, "kek1", "kek2", []byte("newer")), store.ErrConflict)
	after := must(f.Credential(f.ctx, s.CredentialID))(f)
	want = before
	want.Sealed.KEKID, want.Sealed.WrappedDEK = "kek2", []byte("new")
	f.equal("rewrapped", after, want)
	f.equal("left", len(must(f.SealedVersions(f.ctx, []string{"kek2"}, 10))(f)), 0)

	f.ok(f.RetireKEK(f.ctx, "kek1"))
	f.ok(f.RetireKEK(f.ctx, "kek1"))
	f.is(f.Rewrap(f.ctx, s.CredentialID, "kek2", "kek1", []byte("back")), store.ErrConflict)
	late := f.session(u, session.Storing)
	_, _, err := f.CommitCredential(f.ctx, late.ID, "a", f.sealed(u, "claude", "kek1"), "")
	f.is(err, store.ErrConflict)
	_, _, err = f.CommitCredential(f.ctx, late.ID, "a", f.sealed(u, "claude", "kek2"), "")
	f.ok(err)
	f.equal("audited", must(f.VerifyAudit(f.ctx))(f).Entries, 3)
}

func testAudit(f *fixture) {
	empty := must(f.VerifyAudit(f.ctx))(f)
	f.equal("empty", empty, store.AuditReport{})
	u := f.user("u")
	heads := map[[32]byte]bool{empty.Head: true}
	for range 3 {
		s := f.session(u, session.Delivering)
		f.ok(f.MarkDelivered(f.ctx, s.CredentialID, "machine"))
		heads[must(f.VerifyAudit(f.ctx))(f).Head] = true
	}
	f.equal("heads", len(heads), 4)
}
