package storetest

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func testVMs(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Starting)
	v := f.vm(u, s.ID, "browser")
	f.equal("row", v, store.VM{ID: v.ID, UserID: u.ID, SessionID: s.ID, Kind: "browser", Driver: "fake", State: store.VMCreating,
		ImageID: "image1", CreatedAt: f.now()})
	f.is(f.InsertVM(f.ctx, v), store.ErrExists)
	for _, bad := range []store.VM{
		{ID: "UPPER_case", UserID: u.ID, Kind: "browser", Driver: "fake"},
		{ID: "short", UserID: u.ID, Kind: "browser", Driver: "fake"},
		{ID: "machine1", UserID: u.ID, Kind: "toaster", Driver: "fake"},
		{ID: "machine1", UserID: u.ID, Kind: "browser"},
		{ID: "machine1", Kind: "cli", Driver: "fake"},
		{ID: "machine1", UserID: u.ID, SessionID: s.ID, Kind: "cli", Driver: "fake"},
		{ID: "machine1", UserID: u.ID, Kind: "browser", Driver: "fake", State: store.VMDestroyed},
		{ID: "machine1", UserID: u.ID, Kind: "browser", Driver: "fake", State: "odd"},
	} {
		f.is(f.InsertVM(f.ctx, bad), store.ErrInvalid)
	}
	f.is(f.InsertVM(f.ctx, store.VM{ID: "machine1", UserID: "nobody", Kind: "browser", Driver: "fake"}), store.ErrNotFound)
	_, err := f.VM(f.ctx, "machine1")
	f.is(err, store.ErrNotFound)

	ready := f.now().Add(time.Second)
	f.ok(f.UpdateVM(f.ctx, v.ID, []store.VMState{store.VMCreating}, store.VMChange{
		State: store.VMRunning, Ref: json.RawMessage(`{"pid":1}`), ReadyAt: ready, Restored: true, ImageID: "image2", Reason: "none"}))
	want := v
	want.State, want.Ref, want.ReadyAt, want.Restored, want.ImageID, want.Reason = store.VMRunning, json.RawMessage(`{"pid":1}`), ready, true, "image2", "none"
	f.equal("updated", must(f.VM(f.ctx, v.ID))(f), want)
	f.is(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{}), store.ErrInvalid)
	f.is(f.UpdateVM(f.ctx, "nosuchmachine", nil, store.VMChange{Reason: "x"}), store.ErrNotFound)

	f.equal("live", must(f.LiveVMs(f.ctx))(f), []store.VM{want})
	f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMDestroyed}))
	f.equal("destroyed at", must(f.VM(f.ctx, v.ID))(f).DestroyedAt, f.now())
	f.equal("live after", len(must(f.LiveVMs(f.ctx))(f)), 0)
	f.clock.add(time.Second)
	live := f.vm(u, "", "cli")
	f.clock.add(time.Second)
	dead := f.vm(u, "", "browser")
	f.ok(f.UpdateVM(f.ctx, dead.ID, nil, store.VMChange{State: store.VMFailed}))
	var ids []string
	for _, v := range must(f.VMsOf(f.ctx, u.ID))(f) {
		ids = append(ids, v.ID)
	}
	f.equal("user's", ids, []string{live.ID, dead.ID, v.ID})
}

func testVMMoves(f *fixture) {
	u := f.user("u")
	states := []store.VMState{store.VMCreating, store.VMRunning, store.VMDestroying, store.VMDestroyed, store.VMFailed}
	final := func(s store.VMState) bool { return s == store.VMDestroyed || s == store.VMFailed }
	for _, from := range states {
		for _, named := range append(states, "") {
			v := f.vm(u, "", "browser")
			if from != store.VMCreating {
				f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: from}))
			}
			var list []store.VMState
			if named != "" {
				list = []store.VMState{named}
			}
			err := f.UpdateVM(f.ctx, v.ID, list, store.VMChange{State: store.VMDestroying})
			if allowed := !final(from) && (named == "" || named == from); allowed {
				f.ok(err)
				continue
			}
			f.is(err, store.ErrConflict)
			f.equal("state", must(f.VM(f.ctx, v.ID))(f).State, from)
		}
	}
	v := f.vm(u, "", "browser")
	f.oneWins(f.race(6, func(int, Store) error {
		return f.UpdateVM(f.ctx, v.ID, []store.VMState{store.VMCreating, store.VMRunning}, store.VMChange{State: store.VMDestroying})
	}), store.ErrConflict)
}

// testPooledVM: a machine from the warm pool gets its owner later, once.
func testPooledVM(f *fixture) {
	u, other := f.user("u"), f.user("other")
	s, theirs := f.session(u, session.Starting), f.session(other, session.Starting)
	v := f.vm(store.User{}, "", "browser")
	f.is(f.SetAttempt(f.ctx, s.ID, "a", 1, v.ID, ""), store.ErrNotFound) // nobody's yet
	errs := f.race(6, func(i int, st Store) error {
		change := store.VMChange{UserID: u.ID, SessionID: s.ID}
		if i%2 == 1 {
			change = store.VMChange{UserID: other.ID, SessionID: theirs.ID}
		}
		return st.UpdateVM(f.ctx, v.ID, nil, change)
	})
	is := must(f.VM(f.ctx, v.ID))(f)
	for i, err := range errs {
		if mine := i%2 == 0; mine == (is.UserID == u.ID) {
			f.ok(err)
		} else {
			f.is(err, store.ErrConflict)
		}
	}
	for _, owner := range []store.User{u, other} {
		told := 0
		for _, e := range must(f.EventsAfter(f.ctx, owner.ID, "", 0, 0))(f) {
			if e.Kind == session.EventMachineCreated && e.SessionID == is.SessionID {
				told++
			}
		}
		f.equal("events of it for "+owner.Name, told > 0, owner.ID == is.UserID)
		f.equal("told more than once", told > 1, false)
	}
	second := f.session(store.User{ID: is.UserID}, session.Starting)
	f.is(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{UserID: is.UserID, SessionID: second.ID}), store.ErrConflict)
}

func testOneCLIMachine(f *fixture) {
	u, other := f.user("u"), f.user("other")
	_, err := f.CLIMachine(f.ctx, u.ID)
	f.is(err, store.ErrNotFound)
	f.vm(other, "", "cli")
	for range 2 {
		winner := f.oneWins(f.race(6, func(i int, s Store) error {
			return s.InsertVM(f.ctx, store.VM{ID: fmt.Sprintf("machine%d%d", i, len(must(f.VMsOf(f.ctx, u.ID))(f))), UserID: u.ID, Kind: "cli", Driver: "fake"})
		}), store.ErrExists)
		v := must(f.CLIMachine(f.ctx, u.ID))(f)
		f.equal("winner", v.ID[:8], fmt.Sprint("machine", winner))
		f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMDestroying}))
		f.is(f.InsertVM(f.ctx, store.VM{ID: "another1", UserID: u.ID, Kind: "cli", Driver: "fake"}), store.ErrExists)
		f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMDestroyed}))
		_, err = f.CLIMachine(f.ctx, u.ID)
		f.is(err, store.ErrNotFound)
	}
}

func testStats(f *fixture) {
	empty := must(f.Stats(f.ctx))(f)
	f.equal("states", len(empty.Sessions), len(session.States()))
	u := f.user("u")
	for _, state := range []session.State{session.Waiting, session.Waiting, session.Completed, session.Failed} {
		f.session(u, state)
	}
	f.vm(u, "", "cli")
	v := f.vm(u, "", "browser")
	f.vm(u, "", "browser")
	f.ok(f.UpdateVM(f.ctx, v.ID, nil, store.VMChange{State: store.VMFailed}))
	got := must(f.Stats(f.ctx))(f)
	want := map[session.State]int64{}
	for _, s := range session.States() {
		want[s] = 0
	}
	want[session.Waiting], want[session.Completed], want[session.Failed] = 2, 1, 1
	f.equal("stats", got, store.Stats{Sessions: want, Users: 1, Active: map[string]int64{"claude": 1}, VMs: []store.VMCount{
		{Kind: "browser", State: store.VMCreating, Count: 1}, {Kind: "browser", State: store.VMFailed, Count: 1}, {Kind: "cli", State: store.VMCreating, Count: 1}}})
}
