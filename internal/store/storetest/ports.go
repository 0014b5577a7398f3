package storetest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// portKeys are n ports of one proxy.
func portKeys(n int) []store.PortKey {
	keys := make([]store.PortKey, n)
	for i := range keys {
		keys[i] = store.PortKey{Host: "proxy.example", Port: 10001 + i}
	}
	return keys
}

func (f *fixture) claim(u store.User) store.Port {
	f.Helper()
	p, _, err := f.ClaimPort(f.ctx, u.ID, "claude", time.Time{})
	f.ok(err)
	return p
}

func testPorts(f *fixture) {
	keys := portKeys(3)
	f.ok(f.SyncPorts(f.ctx, keys))
	f.ok(f.SyncPorts(f.ctx, keys))
	a, b := f.user("a"), f.user("b")
	_, err := f.PortOf(f.ctx, a.ID)
	f.is(err, store.ErrNotFound)
	p, claimed, err := f.ClaimPort(f.ctx, a.ID, "claude", time.Time{})
	f.ok(err)
	f.equal("claimed", claimed, true)
	f.equal("port", p, store.Port{PortKey: keys[0], State: store.PortAssigned, UserID: a.ID, AssignedAt: f.now()})
	f.clock.add(time.Hour)
	again, claimed, err := f.ClaimPort(f.ctx, a.ID, "codex", time.Time{})
	f.ok(err)
	f.equal("claimed again", claimed, false)
	f.equal("the same", again, p)
	f.equal("read", must(f.PortOf(f.ctx, a.ID))(f), p)
	f.equal("another user's", f.claim(b).PortKey, keys[1])
	_, _, err = f.ClaimPort(f.ctx, "nobody", "claude", time.Time{})
	f.is(err, store.ErrNotFound)

	// The first two are not in the configuration any more; their users keep them.
	more := append(portKeys(5)[2:], store.PortKey{Host: "other.example", Port: 1})
	f.ok(f.SyncPorts(f.ctx, more))
	var got []string
	for _, p := range must(f.Ports(f.ctx))(f) {
		got = append(got, fmt.Sprintf("%s %s", p.PortKey, p.State))
	}
	f.equal("ports", got, []string{"other.example:1 free", "proxy.example:10001 assigned", "proxy.example:10002 assigned",
		"proxy.example:10003 free", "proxy.example:10004 free", "proxy.example:10005 free"})
	f.ok(f.ReleasePort(f.ctx, keys[0], 0))
	f.ok(f.SyncPorts(f.ctx, more))
	f.equal("after its release", len(must(f.Ports(f.ctx))(f)), 5)
	f.is(f.ReleasePort(f.ctx, keys[0], 0), store.ErrNotFound)
}

// testPortRace: a hundred users claim a hundred ports at once; no port is given
// twice, and the hundred-and-first user is told that there is none.
func testPortRace(f *fixture) {
	const n = 100
	f.ok(f.SyncPorts(f.ctx, portKeys(n)))
	users := make([]store.User, n+1)
	for i := range users {
		users[i] = f.user(fmt.Sprintf("user %d", i))
	}
	ports := make([]store.Port, 2*n)
	for i, err := range f.race(2*n, func(i int, s Store) error { // each twice
		var err error
		ports[i], _, err = s.ClaimPort(f.ctx, users[i%n].ID, "claude", time.Time{})
		return err
	}) {
		f.ok(err)
		f.equal("the port of the user's other claim", ports[i].PortKey, ports[(i+n)%(2*n)].PortKey)
	}
	seen := map[store.PortKey]bool{}
	for _, p := range ports[:n] {
		seen[p.PortKey] = true
	}
	f.equal("ports given", len(seen), n)
	_, _, err := f.ClaimPort(f.ctx, users[n].ID, "claude", time.Time{})
	f.is(err, store.ErrNoPort)
}

func testPortRest(f *fixture) {
	keys := portKeys(2)
	f.ok(f.SyncPorts(f.ctx, keys))
	a, b, c := f.user("a"), f.user("b"), f.user("c")
	f.claim(a)
	f.ok(f.ReleasePort(f.ctx, keys[0], time.Hour))
	f.equal("of b", f.claim(b).PortKey, keys[1])
	_, _, err := f.ClaimPort(f.ctx, c.ID, "claude", time.Time{})
	f.is(err, store.ErrNoPort)
	p := must(f.Ports(f.ctx))(f)[0]
	f.equal("resting", p, store.Port{PortKey: keys[0], State: store.PortResting, RestUntil: f.now().Add(time.Hour)})
	f.equal("counted", must(f.Stats(f.ctx))(f).Ports, map[store.PortState]int64{store.PortFree: 0, store.PortAssigned: 1, store.PortResting: 1, store.PortQuarantined: 0})
	f.clock.add(time.Hour)
	f.equal("counted when its rest is over", must(f.Stats(f.ctx))(f).Ports[store.PortFree], int64(1))
	f.equal("of c", f.claim(c).PortKey, keys[0])
}

func testPortAssign(f *fixture) {
	keys := portKeys(3)
	f.ok(f.SyncPorts(f.ctx, keys))
	a, b := f.user("a"), f.user("b")
	f.claim(a)
	must(f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.1"))(f)
	_, err := f.AssignPort(f.ctx, b.ID, keys[0], time.Hour)
	f.is(err, store.ErrConflict)
	_, err = f.AssignPort(f.ctx, b.ID, store.PortKey{Host: "no", Port: 1}, time.Hour)
	f.is(err, store.ErrNotFound)
	_, err = f.AssignPort(f.ctx, "nobody", keys[1], time.Hour)
	f.is(err, store.ErrNotFound)
	p := must(f.AssignPort(f.ctx, a.ID, keys[2], time.Hour))(f)
	f.equal("moved", p, store.Port{PortKey: keys[2], State: store.PortAssigned, UserID: a.ID, AssignedAt: f.now()})
	old := must(f.Ports(f.ctx))(f)[0]
	f.equal("the old one", old.State, store.PortResting)
	f.ok(f.QuarantinePort(f.ctx, keys[1], "bad"))
	p = must(f.AssignPort(f.ctx, b.ID, keys[1], 0))(f)
	f.equal("out of quarantine", p.State, store.PortAssigned)
	f.equal("with no reason", p.Reason, "")
}

func testPortExit(f *fixture) {
	keys := portKeys(2)
	f.ok(f.SyncPorts(f.ctx, keys))
	a := f.user("a")
	_, err := f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.1")
	f.is(err, store.ErrNotFound)
	f.claim(a)
	p := must(f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.1"))(f)
	f.equal("pinned", p.ExitAddress, "203.0.113.1")
	f.equal("checked", p.CheckedAt, f.now())
	f.clock.add(time.Minute)
	p = must(f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.1"))(f)
	f.equal("checked again", p.CheckedAt, f.now())
	f.clock.add(time.Minute)
	p = must(f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.2"))(f)
	f.equal("another does not replace it", p.ExitAddress, "203.0.113.1")
	f.equal("nor counts as a check", p.CheckedAt, f.now().Add(-time.Minute))
	_, err = f.SawExit(f.ctx, a.ID, keys[1], "203.0.113.1")
	f.is(err, store.ErrNotFound)

	f.ok(f.QuarantinePort(f.ctx, keys[0], strings.Repeat("x", 10_000)))
	p = must(f.PortOf(f.ctx, a.ID))(f)
	f.equal("in quarantine its user keeps it", p.State, store.PortQuarantined)
	_, err = f.SawExit(f.ctx, a.ID, keys[0], "203.0.113.1")
	f.is(err, store.ErrNotFound)
	got, claimed, err := f.ClaimPort(f.ctx, a.ID, "claude", time.Time{})
	f.ok(err)
	f.equal("no other is given", fmt.Sprint(got.PortKey, claimed, got.State), fmt.Sprint(keys[0], false, store.PortQuarantined))
	p = must(f.PinExit(f.ctx, keys[0], "203.0.113.2"))(f)
	f.equal("pinned by hand", fmt.Sprint(p.State, p.ExitAddress, p.Reason), fmt.Sprint(store.PortAssigned, "203.0.113.2", ""))
	_, err = f.PinExit(f.ctx, keys[1], "203.0.113.2")
	f.is(err, store.ErrNotFound)
	f.is(f.QuarantinePort(f.ctx, store.PortKey{Host: "no", Port: 1}, ""), store.ErrNotFound)
}

func testPortRefusals(f *fixture) {
	keys := portKeys(2)
	f.ok(f.SyncPorts(f.ctx, keys))
	a, b, c := f.user("a"), f.user("b"), f.user("c")
	f.ok(f.PortRefuses(f.ctx, keys[0], "claude", "claude.com"))
	f.ok(f.PortRefuses(f.ctx, keys[0], "claude", "platform.claude.com"))
	f.is(f.PortRefuses(f.ctx, store.PortKey{Host: "no", Port: 1}, "claude", "claude.com"), store.ErrNotFound)
	f.equal("refusals", must(f.Ports(f.ctx))(f)[0].Refuses, map[string]string{"claude": "platform.claude.com"})
	since := f.now().Add(-time.Hour)
	p, _, err := f.ClaimPort(f.ctx, a.ID, "claude", since)
	f.ok(err)
	f.equal("one that takes claude", p.PortKey, keys[1])
	_, _, err = f.ClaimPort(f.ctx, b.ID, "claude", since)
	f.is(err, store.ErrNoPort)
	p, _, err = f.ClaimPort(f.ctx, b.ID, "codex", since)
	f.ok(err)
	f.equal("for another provider", p.PortKey, keys[0])
	f.ok(f.ReleasePort(f.ctx, keys[0], 0))
	f.clock.add(2 * time.Hour)
	p, _, err = f.ClaimPort(f.ctx, c.ID, "claude", f.now().Add(-time.Hour))
	f.ok(err)
	f.equal("an old refusal is tried again", p.PortKey, keys[0])
	f.ok(f.PortRefuses(f.ctx, keys[0], "claude", ""))
	f.equal("taken back", len(must(f.Ports(f.ctx))(f)[0].Refuses), 0)
}

func testAdmins(f *fixture) {
	first, second := f.user("first"), f.user("second")
	f.equal("the first", first.Admin, true)
	f.equal("the second", second.Admin, false)
	f.equal("as read", must(f.UserByID(f.ctx, first.ID))(f), first)
	f.ok(f.SetAdmin(f.ctx, second.ID, true))
	f.ok(f.SetAdmin(f.ctx, first.ID, false))
	f.equal("the first now", must(f.UserByName(f.ctx, "first"))(f).Admin, false)
	f.is(f.SetAdmin(f.ctx, second.ID, false), store.ErrConflict) // the last one
	f.is(f.SetAdmin(f.ctx, "nobody", true), store.ErrNotFound)
	if _, err := f.UserByID(f.ctx, "nobody"); !errors.Is(err, store.ErrNotFound) {
		f.Fatal(err)
	}
}

func testExitAddress(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Starting)
	address, deadline := "203.0.113.1", f.now().Add(time.Minute)
	s = must(f.Move(f.ctx, s.ID, session.Starting, session.Waiting, "a", store.Change{ExitAddress: &address, Deadline: &deadline}, ""))(f)
	f.equal("address", s.ExitAddress, address)
	f.equal("deadline", s.Deadline, deadline)
	f.equal("read", must(f.Session(f.ctx, s.ID))(f), s)
}
