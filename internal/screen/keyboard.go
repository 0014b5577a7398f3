//go:build linux && cgo

package screen

import (
	"context"
	"encoding/binary"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"
)

const (
	// pongWait is how long a window may take to answer a ping, on a machine that
	// is very busy too, and blindWait how long one that answers none is given for
	// the keys before.
	pongWait  = 5 * time.Second
	blindWait = 150 * time.Millisecond
)

// keyboard types by keysym, whatever is on the X server's keys. A keysym that
// is on none gets a spare keycode. Programs translate a keycode when they come
// to read the event, with the map as they know it by then: GTK, through which
// Chromium reads, hears of a new one on a connection of its own. So the program
// that has the focus is asked to answer a ping before a spare keycode that was
// typed on gets another keysym, and between the change of a map and the first
// spare key that is typed with it.
//
// Its methods are for one goroutine, but for event.
type keyboard struct {
	x      *server
	stale  atomic.Bool // the map has changed, or has not been read
	pongs  chan uint32 // the numbers of pings that were answered
	pings  uint32
	keys   keymap
	mods   []xproto.Keycode
	held   map[uint32]xproto.Keycode // by the keysym that was asked for
	read   uint64                    // the tick of the keymap up to which all keys have been read
	fresh  bool                      // spare keycodes have been bound since the last ping
	repeat bool                      // we have switched the server's own repeating off
}

func newKeyboard(x *server) *keyboard {
	k := &keyboard{x: x, pongs: make(chan uint32, 8), held: map[uint32]xproto.Keycode{}}
	k.stale.Store(true)
	if k.load() == nil {
		k.bind(context.Background(), firstBound(), k.keys.tick)
		k.read = k.keys.tick // nothing was typed yet
	}
	return k
}

func (k *keyboard) event(ev xgb.Event) {
	switch ev := ev.(type) {
	case xproto.MappingNotifyEvent:
		k.stale.Store(true)
	case xproto.ClientMessageEvent:
		if data := ev.Data.Data32; ev.Type == k.x.atoms["WM_PROTOCOLS"] && ev.Window == k.x.root && xproto.Atom(data[0]) == k.x.atoms["_NET_WM_PING"] {
			select {
			case k.pongs <- data[1]:
			default:
			}
		}
	}
}

// load reads the map if it has changed.
func (k *keyboard) load() error {
	if !k.stale.Swap(false) {
		return nil
	}
	first, last := k.x.setup.MinKeycode, k.x.setup.MaxKeycode
	keys := xproto.GetKeyboardMapping(k.x.conn, first, byte(last-first+1))
	mods, err := xproto.GetModifierMapping(k.x.conn).Reply()
	if err != nil {
		return err
	}
	reply, err := keys.Reply()
	if err != nil {
		return err
	}
	k.mods = slices.DeleteFunc(mods.Keycodes, func(c xproto.Keycode) bool { return c == 0 })
	keysyms := make([]uint32, len(reply.Keysyms))
	for i, s := range reply.Keysyms {
		keysyms[i] = uint32(s)
	}
	k.keys.load(first, int(reply.KeysymsPerKeycode), keysyms, k.mods)
	return nil
}

// ignored are the keys that change what others mean. The viewer's keyboard has
// done that already: what it sends is what is to be typed.
func ignored(keysym uint32) bool {
	switch keysym {
	case keyCapsLock, keyNumLock, keyScrollLock, keyShiftLock, keyModeSwitch, keyMultiKey, 0:
		return true
	}
	return keysym >= firstISO && keysym <= lastISO
}

// key presses or releases one. A key that is pressed again while it is down is
// repeated: the viewer's keyboard does that, and so it ends in time, whatever
// holds up the key's release.
func (k *keyboard) key(ctx context.Context, keysym uint32, down bool) {
	switch keysym { // what a browser calls Meta is X's Super
	case keyMetaL:
		keysym = keySuperL
	case keyMetaR:
		keysym = keySuperR
	}
	if ignored(keysym) {
		return
	}
	if !down {
		k.up(keysym)
		return
	}
	if code, ok := k.held[keysym]; ok {
		if modifier(keysym) {
			return
		}
		k.fake(code, false)
		k.fake(code, true)
		return
	}
	k.prepare()
	p, ok := k.keys.find(keysym, k.shifted())
	if !ok {
		k.bind(ctx, []uint32{keysym}, k.keys.tick)
		if p, ok = k.keys.find(keysym, k.shifted()); !ok {
			return // every spare keycode is held down
		}
	}
	k.press(ctx, p)
	k.held[keysym] = p.code
}

func modifier(keysym uint32) bool { return keysym >= keyShiftL && keysym <= keyHyperR }

// up releases a key. It may have the other case by now, if Shift has changed.
func (k *keyboard) up(keysym uint32) {
	code, ok := k.held[keysym]
	if !ok {
		small, capital, is := cases(keysym)
		if !is {
			return
		}
		if keysym = small; k.held[small] == 0 {
			keysym = capital
		}
		if code, ok = k.held[keysym]; !ok {
			return
		}
	}
	delete(k.held, keysym)
	k.fake(code, false)
}

// release lets all keys go, and hands the repeating back to the X server.
func (k *keyboard) release() {
	for keysym, code := range k.held {
		delete(k.held, keysym)
		k.fake(code, false)
	}
	if k.repeat {
		k.repeat = false
		xproto.ChangeKeyboardControl(k.x.conn, xproto.KbAutoRepeatMode, []uint32{xproto.AutoRepeatModeOn})
	}
}

// prepare makes the keyboard what is expected of it: its map is known, no lock
// is on, no key repeats by itself.
func (k *keyboard) prepare() {
	// Each time: another viewer's leaving has it on again.
	k.repeat = true
	xproto.ChangeKeyboardControl(k.x.conn, xproto.KbAutoRepeatMode, []uint32{xproto.AutoRepeatModeOff})
	state := xproto.QueryPointer(k.x.conn, k.x.root)
	_ = k.load() // without an X server there is nothing to type into
	reply, err := state.Reply()
	if err != nil {
		return
	}
	for mask, keysym := range map[uint16]uint32{xproto.ModMaskLock: keyCapsLock, xproto.ModMask2: keyNumLock} {
		if p, ok := k.keys.find(keysym, false); ok && reply.Mask&mask != 0 {
			k.fake(p.code, true)
			k.fake(p.code, false)
		}
	}
}

// text types characters. Keys that are held stay out of it: modifiers are up
// meanwhile, other keys stay up.
func (k *keyboard) text(ctx context.Context, text string) {
	k.prepare()
	held := k.held
	for _, code := range held {
		k.fake(code, false)
	}
	k.held = map[uint32]xproto.Keycode{}
	rest := textKeysyms(text)
	for len(rest) > 0 && ctx.Err() == nil {
		rest = k.some(ctx, rest)
	}
	for keysym, code := range held {
		if modifier(keysym) {
			k.held[keysym] = code
			k.fake(code, true)
		}
	}
}

func textKeysyms(text string) []uint32 {
	var out []uint32
	for _, r := range strings.ReplaceAll(text, "\r\n", "\n") {
		switch {
		case r == '\n' || r == '\r':
			out = append(out, keyReturn)
		case r == '\t':
			out = append(out, keyTab)
		case r >= 0x20 && r != 0x7f && (r < 0x80 || r >= firstLatin1):
			out = append(out, keysymOf(r))
		}
	}
	return out
}

// some types as much as the spare keycodes can take at once, and returns the
// rest.
func (k *keyboard) some(ctx context.Context, keysyms []uint32) []uint32 {
	since := k.keys.tick
	var missing []uint32
	n := 0
	for room := len(k.keys.slots); n < len(keysyms) && room > 0; n++ {
		before := k.keys.tick
		if _, ok := k.keys.find(keysyms[n], false); ok {
			if k.keys.tick != before {
				room-- // it is on a spare keycode, perhaps counted already
			}
			continue
		}
		if !slices.Contains(missing, keysyms[n]) {
			missing = append(missing, keysyms[n])
			room--
		}
	}
	k.bind(ctx, missing, since)
	for _, s := range keysyms[:n] {
		if p, ok := k.keys.find(s, false); ok {
			k.press(ctx, p)
			k.fake(p.code, false)
		}
	}
	return keysyms[n:]
}

func (k *keyboard) shifted() bool { return k.held[keyShiftL] != 0 || k.held[keyShiftR] != 0 }

// press presses a key with Shift as it has to be.
func (k *keyboard) press(ctx context.Context, p place) {
	if k.fresh && slices.Contains(spareCodes, p.code) {
		k.settle(ctx)
	}
	for keysym, code := range k.held {
		if code == p.code { // of another keysym, in the other case
			delete(k.held, keysym)
			k.fake(code, false)
		}
	}
	shifts := []xproto.Keycode{}
	for _, keysym := range [...]uint32{keyShiftL, keyShiftR} {
		if code := k.held[keysym]; code != 0 {
			shifts = append(shifts, code)
		}
	}
	switch {
	case p.shift == shiftUp && len(shifts) > 0:
		for _, code := range shifts {
			k.fake(code, false)
		}
		k.fake(p.code, true)
		for _, code := range shifts {
			k.fake(code, true)
		}
	case p.shift == shiftDown && len(shifts) == 0:
		s, ok := k.keys.find(keyShiftL, false)
		if ok {
			k.fake(s.code, true)
		}
		k.fake(p.code, true)
		if ok {
			k.fake(s.code, false)
		}
	default:
		k.fake(p.code, true)
	}
}

func (k *keyboard) fake(code xproto.Keycode, down bool) {
	kind := byte(xproto.KeyRelease)
	if down {
		kind = xproto.KeyPress
	}
	xtest.FakeInput(k.x.conn, kind, byte(code), 0, 0, 0, 0, 0)
}

// bind puts keysyms that are on no key on spare keycodes, but on none that was
// used after the tick since.
func (k *keyboard) bind(ctx context.Context, keysyms []uint32, since uint64) {
	missing := slices.DeleteFunc(slices.Clone(keysyms), func(s uint32) bool {
		_, there := k.keys.find(s, false)
		return there
	})
	// Two of one letter need one keycode.
	for i := 0; i < len(missing); i++ {
		small, capital, ok := cases(missing[i])
		missing = slices.Concat(missing[:i+1], slices.DeleteFunc(slices.Clone(missing[i+1:]), func(s uint32) bool {
			return s == missing[i] || ok && (s == small || s == capital)
		}))
	}
	chosen, used := k.keys.assign(missing, since, func(c xproto.Keycode) bool {
		for _, held := range k.held {
			if held == c {
				return true
			}
		}
		return false
	})
	if used > k.read {
		k.settle(ctx)
		k.read = since
	}
	k.fresh = k.fresh || len(chosen) > 0
	slices.Sort(chosen) // as the keycodes are: neighbours go in one request
	for len(chosen) > 0 {
		n := 1
		for n < len(chosen) && k.keys.slots[chosen[n]].code == k.keys.slots[chosen[n-1]].code+1 {
			n++
		}
		var all []xproto.Keysym
		for _, i := range chosen[:n] {
			all = append(all, xproto.Keysym(k.keys.slots[i].small), xproto.Keysym(k.keys.slots[i].capital))
		}
		xproto.ChangeKeyboardMapping(k.x.conn, byte(n), k.keys.slots[chosen[0]].code, 2, all)
		chosen = chosen[n:]
	}
}

// settle returns when the program that has the focus has read the map and all
// keys so far, or is not going to say so.
func (k *keyboard) settle(ctx context.Context) {
	k.fresh = false
	wait := blindWait
	if window, ok := k.listener(); ok {
		wait = pongWait
		k.pings++
		ping := xproto.ClientMessageEvent{
			Format: 32, Window: window, Type: k.x.atoms["WM_PROTOCOLS"],
			Data: xproto.ClientMessageDataUnionData32New([]uint32{uint32(k.x.atoms["_NET_WM_PING"]), k.pings, uint32(window), 0, 0}),
		}
		// A round trip first: the X server handles faked input beside requests.
		k.x.conn.Sync()
		xproto.SendEvent(k.x.conn, false, window, 0, string(ping.Bytes()))
	} else {
		k.x.conn.Sync()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			return
		case n := <-k.pongs:
			if n == k.pings {
				return
			}
		}
	}
}

// listener is the window of the program that has the focus, if it answers pings.
func (k *keyboard) listener() (xproto.Window, bool) {
	window := xproto.Window(0)
	if active := k.property(k.x.root, "_NET_ACTIVE_WINDOW"); len(active) == 1 {
		window = xproto.Window(active[0])
	}
	if window == 0 { // no window manager
		focus, err := xproto.GetInputFocus(k.x.conn).Reply()
		if err != nil {
			return 0, false
		}
		window = focus.Focus
	}
	return window, slices.Contains(k.property(window, "WM_PROTOCOLS"), uint32(k.x.atoms["_NET_WM_PING"]))
}

// property is a window's list of 32-bit values; empty if it has none.
func (k *keyboard) property(window xproto.Window, name string) []uint32 {
	reply, err := xproto.GetProperty(k.x.conn, false, window, k.x.atoms[name], xproto.GetPropertyTypeAny, 0, 64).Reply()
	if err != nil || reply.Format != 32 {
		return nil
	}
	out := make([]uint32, 0, len(reply.Value)/4)
	for b := reply.Value; len(b) >= 4; b = b[4:] {
		out = append(out, binary.LittleEndian.Uint32(b))
	}
	return out
}
