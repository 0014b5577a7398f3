package rtc

import (
	"testing"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// One controls, the others watch; control can be taken and is passed on.
func TestRoles(t *testing.T) {
	g := newGateway(t, nil)
	a, ga := connect(t, g, viewerOptions{})
	toldA := ga.film(100)
	if string(a.json("role")) != `"control"` {
		t.Fatal("the first does not control")
	}
	b, gb := connect(t, g, viewerOptions{})
	toldB := gb.film(100)
	if string(b.json("role")) != `"watch"` {
		t.Fatal("the second does not watch")
	}
	elsewhere, _ := connect(t, g, viewerOptions{session: "another"})
	if string(elsewhere.json("role")) != `"control"` {
		t.Fatal("another session's is not of its own")
	}
	key := guestapi.Input{Type: guestapi.InputKey, ID: 1, Keysym: 'a', Down: true}
	a.do(key)
	until(t, "the key", toldA, func(m toldGuest) bool { return m.typ == guestapi.InputKey })
	b.do(key) // nobody hears it
	b.say(`{"resize":{"width":640,"height":480}}`)
	b.say(`{"control":true}`)
	if string(a.json("role")) != `"watch"` || string(b.json("role")) != `"control"` {
		t.Fatal("control was not taken")
	}
	until(t, "the release", toldA, func(m toldGuest) bool { return m.typ == guestapi.InputRelease })
	b.say(`{"resize":{"width":99999,"height":1.5}}`)
	m := until(t, "the resize", toldB, func(m toldGuest) bool {
		if m.typ == guestapi.InputKey {
			t.Error("a watcher's key came through")
		}
		return m.typ == guestapi.ScreenResize
	})
	if string(m.payload) != "\x10\x00\x00\xa0" {
		t.Errorf("resize to %x", m.payload)
	}
	if err := b.moves.Send(guestapi.AppendInput(nil, guestapi.Input{Type: guestapi.InputMove, ID: 2, X: 3, Y: 4})); err != nil {
		t.Fatal(err)
	}
	until(t, "the move", toldB, func(m toldGuest) bool {
		return m.typ == guestapi.InputMove && string(m.payload) == "\x00\x00\x00\x02\x00\x03\x00\x04"
	})
	b.conn.end(ending{})
	if string(a.json("role")) != `"control"` {
		t.Fatal("control was not passed on")
	}
	until(t, "the release", toldB, func(m toldGuest) bool { return m.typ == guestapi.InputRelease })
}

// A window that has a second connection, as while its page tries another
// transport, controls on both, and goes on when either has left.
func TestConnectionsOfAWindowControlTogether(t *testing.T) {
	g := newGateway(t, nil)
	see := func(window string) (*viewer, <-chan toldGuest) {
		t.Helper()
		v, m := connect(t, g, viewerOptions{window: window})
		return v, m.film(100)
	}
	first, toldFirst := see("one")
	second, toldSecond := see("one")
	other, toldOther := see("two")
	for v, want := range map[*viewer]string{first: "control", second: "control", other: "watch"} {
		if got := string(v.json("role")); got != `"`+want+`"` {
			t.Errorf("a role is %s, not %s", got, want)
		}
	}
	isKey := func(m toldGuest) bool { return m.typ == guestapi.InputKey }
	key := guestapi.Input{Type: guestapi.InputKey, ID: 1, Keysym: 'a', Down: true}
	second.do(key)
	until(t, "the second one's key", toldSecond, isKey)
	first.do(key)
	until(t, "the first one's key", toldFirst, isKey)

	first.conn.end(ending{})
	await(t, "the first one's end", first.conn.Done())
	key.ID = 2
	second.do(key)
	until(t, "the key after the first one's end", toldSecond, isKey)

	other.say(`{"control":true}`)
	if string(second.json("role")) != `"watch"` || string(other.json("role")) != `"control"` {
		t.Fatal("control was not taken")
	}
	third, toldThird := see("one")
	if string(third.json("role")) != `"watch"` {
		t.Fatal("a window that watches controls on its new connection")
	}
	// The other window leaves: both connections have control again.
	other.conn.end(ending{})
	if string(second.json("role")) != `"control"` || string(third.json("role")) != `"control"` {
		t.Fatal("control was not passed on to all of the window's connections")
	}
	third.do(key)
	until(t, "the third one's key", toldThird, isKey)
	until(t, "the other one's release", toldOther, func(m toldGuest) bool { return m.typ == guestapi.InputRelease })
}
