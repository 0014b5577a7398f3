package storetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func testCreateSession(f *fixture) {
	u := f.user("u")
	id := session.NewID()
	s, created, err := f.CreateSession(f.ctx, session.Session{
		ID: id, UserID: u.ID, Provider: "claude", ViewerURL: "/sessions/x", Deadline: f.now().Add(time.Hour),
		State: session.Completed, LeaseOwner: "me", Attempt: 7, // not the caller's to say
	}, "")
	f.ok(err)
	f.equal("created", created, true)
	want := session.Session{ID: id, UserID: u.ID, Provider: "claude", State: session.Requested, ViewerURL: "/sessions/x",
		Deadline: f.now().Add(time.Hour), CreatedAt: f.now(), UpdatedAt: f.now()}
	f.equal("session", s, want)
	f.equal("read again", must(f.Session(f.ctx, id))(f), want)
	events := must(f.EventsAfter(f.ctx, u.ID, id, 0, 0))(f)
	f.equal("number of events", len(events), 1)
	e := events[0]
	if e.Kind != session.EventState || e.State != session.Requested || e.Message == "" || !e.At.Equal(f.now()) {
		f.Fatalf("first event is %+v", e)
	}
	_, _, err = f.CreateSession(f.ctx, session.Session{ID: id, UserID: u.ID, Provider: "claude"}, "")
	f.is(err, store.ErrExists)
	_, _, err = f.CreateSession(f.ctx, session.Session{ID: "../etc", UserID: u.ID, Provider: "claude"}, "")
	f.is(err, store.ErrInvalid)
	_, _, err = f.CreateSession(f.ctx, session.Session{UserID: "nobody", Provider: "claude"}, "")
	f.is(err, store.ErrNotFound)
	_, _, err = f.CreateSession(f.ctx, session.Session{UserID: u.ID}, "")
	f.is(err, store.ErrInvalid)
	_, err = f.Session(f.ctx, session.NewID())
	f.is(err, store.ErrNotFound)
	f.equal("events after the refused ones", len(must(f.EventsAfter(f.ctx, u.ID, "", 0, 0))(f)), 1)
}

// testCreateWithin: of any number of calls at once no more succeed than are
// allowed, and what has ended counts no more.
func testCreateWithin(f *fixture) {
	u, other := f.user("u"), f.user("other")
	const limit = 3
	create := func(s Store, u store.User, key string) (session.Session, bool, error) {
		return s.CreateSessionWithin(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, key, func(l store.Load) error {
			if l.Mine >= limit {
				return store.ErrTooMany
			}
			return nil
		})
	}
	first, _, err := create(f, u, "key")
	f.ok(err)
	f.session(u, session.Completed)
	f.session(other, session.Waiting)
	made := 1
	for _, err := range f.race(8, func(_ int, s Store) error {
		_, _, err := create(s, u, "")
		return err
	}) {
		if err == nil {
			made++
		} else {
			f.is(err, store.ErrTooMany)
		}
	}
	f.equal("open sessions", made, limit)
	again, created, err := create(f, u, "key")
	f.ok(err)
	f.equal("asked again", []any{again, created}, []any{first, false})
	_, _, err = create(f, other, "")
	f.ok(err)
	must(f.Move(f.ctx, first.ID, session.Requested, session.Cancelled, "", store.Change{}, ""))(f)
	_, created, err = create(f, u, "")
	f.ok(err)
	f.equal("made in the place of one that has ended", created, true)
	_, _, err = create(f, u, "another key")
	f.is(err, store.ErrTooMany)
	_, _, err = f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "another key")
	f.ok(err)
}

func testIdempotency(f *fixture) {
	u, other := f.user("u"), f.user("other")
	create := func(u store.User, provider, key string) (session.Session, bool, error) {
		return f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: provider}, key)
	}
	first, created, err := create(u, "claude", "key")
	f.ok(err)
	f.equal("created", created, true)
	again, created, err := create(u, "claude", "key")
	f.ok(err)
	f.equal("created again", created, false)
	f.equal("the earlier", again, first)
	_, _, err = create(u, "codex", "key")
	f.is(err, store.ErrExists)
	_, created, err = create(other, "claude", "key")
	f.ok(err)
	f.equal("another user's", created, true)
	for range 2 {
		_, created, err = create(u, "claude", "")
		f.ok(err)
		f.equal("without a key", created, true)
	}
	for _, key := range []string{strings.Repeat("k", 256), "a\x00b", "\xff"} {
		_, _, err = create(u, "claude", key)
		f.is(err, store.ErrInvalid)
	}
	f.equal("sessions", len(must(f.SessionsOf(f.ctx, u.ID, 0, time.Time{}))(f)), 3)
}

func testIdempotencyRace(f *fixture) {
	u := f.user("u")
	ids := make([]session.ID, 8)
	created := make([]bool, 8)
	for _, err := range f.race(8, func(i int, s Store) error {
		out, c, err := s.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "key")
		ids[i], created[i] = out.ID, c
		return err
	}) {
		f.ok(err)
	}
	n := 0
	for i := range ids {
		f.equal("id", ids[i], ids[0])
		if created[i] {
			n++
		}
	}
	f.equal("created", n, 1)
}

func testSessionPages(f *fixture) {
	u, other := f.user("u"), f.user("other")
	f.session(other, session.Requested)
	var want []session.ID
	for range 7 { // all in one millisecond of the clock
		s, _, err := f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "")
		f.ok(err)
		want = append([]session.ID{s.ID}, want...)
	}
	var got []session.ID
	var before time.Time
	for {
		page := must(f.SessionsOf(f.ctx, u.ID, 3, before))(f)
		if len(page) == 0 {
			break
		}
		for _, s := range page {
			got = append(got, s.ID)
		}
		before = page[len(page)-1].CreatedAt
	}
	f.equal("pages", got, want)
	must(f.Move(f.ctx, want[0], session.Requested, session.Cancelled, "", store.Change{}, ""))(f)
	open := must(f.OpenSessions(f.ctx))(f)
	f.equal("open", len(open), 7)
	for _, s := range open {
		if s.ID == want[0] {
			f.Fatal("an ended session is open")
		}
	}
}

// testMoves tries every pair of states on a session that is in the first.
func testMoves(f *fixture) {
	for _, from := range session.States() {
		for _, to := range session.States() {
			u := f.user(fmt.Sprintf("%s to %s", from, to))
			before := f.session(u, from)
			seq := must(f.LatestSeq(f.ctx, u.ID))(f)
			after, err := f.Move(f.ctx, before.ID, from, to, "", store.Change{}, "moved")
			events := must(f.EventsAfter(f.ctx, u.ID, before.ID, seq, 0))(f)
			switch {
			case to == session.Delivering:
				f.is(err, store.ErrInvalid)
			case !session.CanMove(from, to):
				f.is(err, store.ErrConflict)
				if c := new(session.ConflictError); !errors.As(err, &c) || c.From != from || c.To != to {
					f.Fatalf("%s to %s: %v", from, to, err)
				}
			default:
				f.ok(err)
				f.equal("state", after.State, to)
				f.equal("events", len(events), 1)
				f.equal("event", events[0].State, to)
				f.equal("message", events[0].Message, "moved")
				f.equal("stored", must(f.Session(f.ctx, before.ID))(f), after)
				continue
			}
			f.equal("events of a refused move", len(events), 0)
			f.equal("unchanged", must(f.Session(f.ctx, before.ID))(f), before)
		}
	}
	_, err := f.Move(f.ctx, session.NewID(), session.Requested, session.Starting, "", store.Change{}, "")
	f.is(err, store.ErrNotFound)
}

func ptr[T any](v T) *T { return &v }

func testMoveChanges(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Requested)
	vm := f.vm(u, s.ID, "browser")
	f.clock.add(time.Second)
	moved := must(f.Move(f.ctx, s.ID, session.Requested, session.Starting, "a", store.Change{
		VMID: &vm.ID, ViewerURL: ptr("/s/1"), Attempt: ptr(1), Detail: ptr("A detail."),
	}, "Starting."))(f)
	want := s
	want.State, want.VMID, want.ViewerURL, want.Attempt, want.Detail = session.Starting, vm.ID, "/s/1", 1, "A detail."
	want.UpdatedAt, want.LastHeartbeat = f.now(), f.now()
	f.equal("moved", moved, want)

	_, err := f.Move(f.ctx, s.ID, session.Starting, session.Waiting, "b", store.Change{}, "")
	f.conflict(err, session.Starting)
	_, err = f.Move(f.ctx, s.ID, session.Requested, session.Starting, "a", store.Change{}, "")
	f.conflict(err, session.Starting)

	f.clock.add(time.Second)
	moved = must(f.Move(f.ctx, s.ID, session.Starting, session.Waiting, "", store.Change{VMID: ptr("")}, "Waiting."))(f)
	want.State, want.VMID, want.UpdatedAt = session.Waiting, "", f.now()
	f.equal("moved by nobody", moved, want)
}

func testMoveReasons(f *fixture) {
	for i, test := range []struct {
		to    session.State
		given *session.Reason
		want  session.Reason
		err   error
	}{
		{session.Failed, ptr(session.ReasonNoMemory), session.ReasonNoMemory, nil},
		{session.Failed, nil, session.ReasonInternal, nil},
		{session.Expired, nil, session.ReasonExpired, nil},
		{session.Cancelled, nil, session.ReasonCancelled, nil},
		{session.Cancelled, ptr(session.ReasonCancelled), session.ReasonCancelled, nil},
		{session.Starting, nil, "", nil},
		{session.Starting, ptr(session.Reason("")), "", nil},
		{session.Starting, ptr(session.ReasonInternal), "", store.ErrInvalid},
		{session.Failed, ptr(session.Reason("no such")), "", store.ErrInvalid},
		{session.Failed, ptr(session.Reason("")), "", store.ErrInvalid},
	} {
		u := f.user(fmt.Sprint("u", i))
		s := f.session(u, session.Requested)
		moved, err := f.Move(f.ctx, s.ID, session.Requested, test.to, "", store.Change{Reason: test.given}, "")
		f.is(err, test.err)
		if test.err != nil {
			continue
		}
		f.equal("reason", moved.Reason, test.want)
		events := must(f.EventsAfter(f.ctx, u.ID, s.ID, 0, 0))(f)
		f.equal("event's reason", events[len(events)-1].Reason, test.want)
	}
}

func testMoveRace(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Waiting)
	targets := []session.State{session.Capturing, session.Cancelled, session.Expired, session.Failed}
	errs := f.race(8, func(i int, st Store) error {
		_, err := st.Move(f.ctx, s.ID, session.Waiting, targets[i%len(targets)], "", store.Change{}, "")
		return err
	})
	winner := f.oneWins(errs, store.ErrConflict)
	is := must(f.Session(f.ctx, s.ID))(f)
	f.equal("state", is.State, targets[winner%len(targets)])
	for i, err := range errs {
		if i != winner {
			f.conflict(err, is.State)
		}
	}
	events := must(f.EventsAfter(f.ctx, u.ID, s.ID, 0, 0))(f)
	f.equal("events", len(events), 4) // requested, starting, waiting, the winner's
}

func testLeases(f *fixture) {
	u := f.user("u")
	s, _, err := f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "")
	f.ok(err)
	const ttl = 10 * time.Second
	_, err = f.Claim(f.ctx, s.ID, "", ttl)
	f.is(err, store.ErrInvalid)
	_, err = f.Claim(f.ctx, session.NewID(), "a", ttl)
	f.is(err, store.ErrNotFound)
	f.conflict(f.Heartbeat(f.ctx, s.ID, "a"), session.Requested)
	f.conflict(f.Heartbeat(f.ctx, s.ID, ""), session.Requested)

	got := must(f.Claim(f.ctx, s.ID, "a", ttl))(f)
	f.equal("owner", got.LeaseOwner, "a")
	f.equal("heartbeat", got.LastHeartbeat, f.now())
	must(f.Claim(f.ctx, s.ID, "a", ttl))(f)
	f.clock.add(ttl)
	_, err = f.Claim(f.ctx, s.ID, "b", ttl) // not older than ttl
	f.conflict(err, session.Requested)
	f.ok(f.Heartbeat(f.ctx, s.ID, "a"))
	f.clock.add(ttl)
	_, err = f.Claim(f.ctx, s.ID, "b", ttl)
	f.conflict(err, session.Requested)
	f.clock.add(time.Millisecond)
	must(f.Claim(f.ctx, s.ID, "b", ttl))(f)
	f.conflict(f.Heartbeat(f.ctx, s.ID, "a"), session.Requested)

	f.ok(f.Release(f.ctx, s.ID, "a")) // not its own
	f.ok(f.Heartbeat(f.ctx, s.ID, "b"))
	f.ok(f.Release(f.ctx, s.ID, "b"))
	f.ok(f.Release(f.ctx, s.ID, "b"))
	must(f.Claim(f.ctx, s.ID, "a", ttl))(f)
	must(f.Move(f.ctx, s.ID, session.Requested, session.Cancelled, "", store.Change{}, ""))(f)
	_, err = f.Claim(f.ctx, s.ID, "a", ttl)
	f.conflict(err, session.Cancelled)
}

func testClaimRace(f *fixture) {
	u := f.user("u")
	var ids []session.ID
	for range 5 {
		s, _, err := f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "")
		f.ok(err)
		ids = append(ids, s.ID)
	}
	for _, id := range ids {
		winner := f.oneWins(f.race(6, func(i int, s Store) error {
			_, err := s.Claim(f.ctx, id, fmt.Sprint("server", i), time.Minute)
			return err
		}), store.ErrConflict)
		f.equal("owner", must(f.Session(f.ctx, id))(f).LeaseOwner, fmt.Sprint("server", winner))
	}
}

func testSetAttempt(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Starting)
	vm := f.vm(u, s.ID, "browser")
	f.ok(f.SetAttempt(f.ctx, s.ID, "a", 2, vm.ID, "Trying again."))
	is := must(f.Session(f.ctx, s.ID))(f)
	f.equal("attempt", is.Attempt, 2)
	f.equal("machine", is.VMID, vm.ID)
	events := must(f.EventsAfter(f.ctx, u.ID, s.ID, 0, 0))(f)
	last := events[len(events)-1]
	f.equal("event", []any{last.Kind, last.Message}, []any{session.EventProgress, "Trying again."})

	f.conflict(f.SetAttempt(f.ctx, s.ID, "b", 3, "", ""), session.Starting)
	f.conflict(f.SetAttempt(f.ctx, s.ID, "", 3, "", ""), session.Starting)
	f.is(f.SetAttempt(f.ctx, session.NewID(), "a", 3, "", ""), store.ErrNotFound)
	f.is(f.SetAttempt(f.ctx, s.ID, "a", 3, "nosuchmachine", ""), store.ErrNotFound)
	f.is(f.SetAttempt(f.ctx, s.ID, "a", -1, "", ""), store.ErrInvalid)
	f.equal("unchanged", must(f.Session(f.ctx, s.ID))(f), is)
	f.ok(f.SetAttempt(f.ctx, s.ID, "a", 3, "", "And again."))
	f.equal("machine given up", must(f.Session(f.ctx, s.ID))(f).VMID, "")

	waiting := f.session(u, session.Waiting)
	f.conflict(f.SetAttempt(f.ctx, waiting.ID, "a", 2, "", ""), session.Waiting)
}

// testOthersRows: no row can name another person's.
func testOthersRows(f *fixture) {
	u, other := f.user("u"), f.user("other")
	mine, others := f.session(u, session.Storing), f.session(other, session.Starting)
	othersVM := f.vm(other, others.ID, "browser")
	_, err := f.Move(f.ctx, mine.ID, session.Storing, session.Failed, "", store.Change{VMID: &othersVM.ID}, "")
	f.is(err, store.ErrNotFound)
	_, err = f.Move(f.ctx, others.ID, session.Starting, session.Waiting, "", store.Change{VMID: &othersVM.ID}, "")
	f.ok(err)
	_, err = f.AddEvent(f.ctx, session.Event{SessionID: others.ID, UserID: u.ID, Kind: session.EventLog, Message: "x"})
	f.is(err, store.ErrNotFound)
	f.is(f.InsertVM(f.ctx, store.VM{ID: "machine1", UserID: u.ID, SessionID: others.ID, Kind: "browser", Driver: "fake"}), store.ErrNotFound)
	_, _, err = f.CommitCredential(f.ctx, mine.ID, "", f.sealed(other, "claude", ""), "")
	f.is(err, store.ErrInvalid)
	_, _, err = f.CommitCredential(f.ctx, mine.ID, "", f.sealed(u, "codex", ""), "")
	f.is(err, store.ErrInvalid)
	// One machine serves one session.
	second := f.session(other, session.Starting)
	f.is(f.SetAttempt(f.ctx, second.ID, "a", 1, othersVM.ID, ""), store.ErrExists)
}
