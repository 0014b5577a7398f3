package storetest

import (
	"errors"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// anybody admits whoever is next.
func anybody(store.Load) error { return nil }

// testLoad: who waits, starts and takes a place, in every state of a session,
// and of a machine that is there longer than its session.
func testLoad(f *fixture) {
	u, other := f.user("u"), f.user("other")
	f.equal("nothing", must(f.Load(f.ctx))(f), store.Load{})
	for i, state := range session.States() {
		f.session([]store.User{u, other}[i%2], state)
	}
	want := store.Load{Waiting: 1, Starting: 1, Busy: 5}
	f.equal("one in each state", must(f.Load(f.ctx))(f), want)

	f.vm(u, "", "cli")                // takes no place
	f.vm(store.User{}, "", "browser") // nor does one that is nobody's
	s := f.session(u, session.Waiting)
	v := f.vm(u, s.ID, "browser")
	want.Busy++
	f.equal("a session and its machine", must(f.Load(f.ctx))(f), want)
	must(f.Move(f.ctx, s.ID, session.Waiting, session.Cancelled, "", store.Change{}, ""))(f)
	f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMDestroying}))
	f.equal("a machine that is being destroyed", must(f.Load(f.ctx))(f), want)
	f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMDestroyed}))
	want.Busy--
	f.equal("once it is gone", must(f.Load(f.ctx))(f), want)

	objection := errors.New("an objection")
	var seen store.Load
	_, _, err := f.CreateSessionWithin(f.ctx, session.Session{UserID: u.ID, Provider: "claude"}, "", func(l store.Load) error {
		seen = l
		return objection
	})
	f.is(err, objection)
	want.Mine = 3 // requested, waiting and storing are u's
	f.equal("what a new session was told", seen, want)
	want.Mine = 0
	f.equal("after the objection", must(f.Load(f.ctx))(f), want)
}

// testQueue: the first to come is the first to be admitted, also in the next
// process; who leaves the queue is in nobody's way.
func testQueue(f *fixture) {
	u, other := f.user("u"), f.user("other")
	var all []session.Session
	for i := range 5 {
		f.clock.add(time.Second)
		all = append(all, f.session([]store.User{u, other}[i%2], session.Requested))
	}
	ahead := func(want ...int) {
		f.Helper()
		again := f.second() // as a server that was restarted reads it
		for i, n := range want {
			f.equal("how many are before it", must(again.Ahead(f.ctx, all[i].ID))(f), n)
		}
	}
	ahead(0, 1, 2, 3, 4)
	f.equal("before a session that is not there", must(f.Ahead(f.ctx, session.NewID()))(f), 0)

	deadline := f.now().Add(time.Hour)
	admit := func(i int, owner string) error {
		_, err := f.Admit(f.ctx, all[i].ID, owner, deadline, anybody, "It starts.")
		return err
	}
	f.is(admit(1, "a"), store.ErrNoPlace)
	f.conflict(admit(0, "b"), session.Requested) // another's lease
	full := errors.New("full")
	_, err := f.Admit(f.ctx, all[0].ID, "a", deadline, func(l store.Load) error {
		f.equal("what it was told", l, store.Load{Waiting: 5})
		return full
	}, "")
	f.is(err, full)
	f.equal("after the objection", must(f.Session(f.ctx, all[0].ID))(f), all[0])

	got := must(f.Admit(f.ctx, all[0].ID, "a", deadline, anybody, "It starts."))(f)
	f.equal("state and deadline", []any{got.State, got.Deadline}, []any{session.Starting, deadline})
	events := must(f.EventsAfter(f.ctx, u.ID, all[0].ID, 0, 0))(f)
	last := events[len(events)-1]
	f.equal("event", []any{last.Kind, last.State, last.Message}, []any{session.EventState, session.Starting, "It starts."})
	f.conflict(admit(0, "a"), session.Starting)
	ahead(0, 0, 1, 2, 3)

	must(f.Move(f.ctx, all[2].ID, session.Requested, session.Cancelled, "", store.Change{}, ""))(f)
	ahead(0, 0, 1, 1, 2)
	f.is(admit(3, "a"), store.ErrNoPlace)
	f.ok(admit(1, "a"))
	f.ok(admit(3, "a"))
	f.conflict(admit(2, "a"), session.Cancelled)
	f.ok(admit(4, "a"))
	_, err = f.Admit(f.ctx, session.NewID(), "a", deadline, anybody, "")
	f.is(err, store.ErrNotFound)
}

// testAdmitRace: of any number of calls in several processes, no more succeed
// than there are places, and they are those who came first.
func testAdmitRace(f *fixture) {
	const places, people = 3, 8
	u := f.user("u")
	var all []session.Session
	for range people {
		f.clock.add(time.Millisecond)
		all = append(all, f.session(u, session.Requested))
	}
	full := errors.New("full")
	for range places {
		for _, err := range f.race(2*people, func(i int, s Store) error {
			_, err := s.Admit(f.ctx, all[i%people].ID, "a", f.now().Add(time.Hour), func(l store.Load) error {
				if l.Busy >= places {
					return full
				}
				return nil
			}, "")
			return err
		}) {
			if err != nil && !errors.Is(err, full) && !errors.Is(err, store.ErrNoPlace) && !errors.Is(err, store.ErrConflict) {
				f.Fatal(err)
			}
		}
	}
	for i, s := range all {
		want := session.Requested
		if i < places {
			want = session.Starting
		}
		f.equal("state", must(f.Session(f.ctx, s.ID))(f).State, want)
	}
}
