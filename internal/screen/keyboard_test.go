//go:build linux && cgo

package screen

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// entry is a text entry: it translates keycodes when it comes to read them, by
// the map that is in force by then, as Xlib and Chromium do.
type entry struct {
	*client
	slow time.Duration // that it takes for each event

	first   xproto.Keycode
	columns int
	keysyms []xproto.Keysym

	mu    sync.Mutex // guards all below
	text  strings.Builder
	down  map[xproto.Keycode]bool
	state map[uint32]uint16 // of the last press, by keysym
	news  chan struct{}
}

func (x *xvnc) entry(t *testing.T, pings bool, slow time.Duration) *entry {
	t.Helper()
	e := &entry{
		client: x.client(t, xproto.EventMaskKeyPress|xproto.EventMaskKeyRelease), slow: slow,
		down: map[xproto.Keycode]bool{}, state: map[uint32]uint16{}, news: make(chan struct{}, 1),
	}
	protocols, ping := e.atom("WM_PROTOCOLS"), e.atom("_NET_WM_PING")
	if pings {
		xproto.ChangeProperty(e.conn, xproto.PropModeReplace, e.window, protocols, xproto.AtomAtom, 32, 1,
			[]byte{byte(ping), byte(ping >> 8), byte(ping >> 16), byte(ping >> 24)})
	}
	if err := xtest.Init(e.conn); err != nil {
		t.Fatal(err)
	}
	e.refresh()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			ev, err := e.conn.WaitForEvent()
			if ev == nil && err == nil {
				return
			}
			switch ev := ev.(type) {
			case xproto.MappingNotifyEvent:
				e.refresh()
			case xproto.KeyPressEvent:
				e.busy()
				e.pressed(ev.Detail, ev.State)
			case xproto.KeyReleaseEvent:
				e.busy()
				e.released(ev.Detail)
			case xproto.ClientMessageEvent:
				if ev.Type == protocols && xproto.Atom(ev.Data.Data32[0]) == ping {
					ev.Window = e.root
					xproto.SendEvent(e.conn, false, e.root, xproto.EventMaskSubstructureNotify|xproto.EventMaskSubstructureRedirect, string(ev.Bytes()))
				}
			}
		}
	}()
	t.Cleanup(func() { e.conn.Close(); <-ended })
	return e
}

func (e *entry) busy() {
	if e.slow > 0 {
		<-time.After(e.slow)
	}
}

func (e *entry) atom(name string) xproto.Atom {
	e.t.Helper()
	reply, err := xproto.InternAtom(e.conn, false, uint16(len(name)), name).Reply()
	if err != nil {
		e.t.Fatal(err)
	}
	return reply.Atom
}

func (e *entry) refresh() {
	setup := xproto.Setup(e.conn)
	reply, err := xproto.GetKeyboardMapping(e.conn, setup.MinKeycode, byte(setup.MaxKeycode-setup.MinKeycode+1)).Reply()
	if err != nil {
		return // the test is over
	}
	e.first, e.columns, e.keysyms = setup.MinKeycode, int(reply.KeysymsPerKeycode), reply.Keysyms
}

func (e *entry) pressed(code xproto.Keycode, state uint16) {
	column := 0
	if state&xproto.ModMaskShift != 0 {
		column = 1
	}
	at := (int(code)-int(e.first))*e.columns + column
	keysym := e.keysyms[at]
	if keysym == 0 && column == 1 {
		keysym = e.keysyms[at-1]
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	defer poke(e.news)
	e.down[code] = true
	e.state[uint32(keysym)] = state
	if modifier(uint32(keysym)) { // and locks
		return
	}
	if state&xproto.ModMaskLock != 0 {
		e.text.WriteString("(lock)")
	}
	if state&xproto.ModMaskControl != 0 {
		e.text.WriteString("^")
	}
	if state&xproto.ModMask1 != 0 {
		e.text.WriteString("~")
	}
	switch r, ok := runeOf(uint32(keysym)); {
	case keysym == keyReturn:
		e.text.WriteString("\n")
	case keysym == keyTab:
		e.text.WriteString("\t")
	case ok:
		e.text.WriteRune(r)
	case keysym == 0x20ac: // the only one here of the keysyms from before Unicode
		e.text.WriteString("€")
	default:
		e.text.WriteString("?")
	}
}

func (e *entry) released(code xproto.Keycode) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.down, code)
	poke(e.news)
}

// last is the modifiers' state when a keysym was last typed.
func (e *entry) last(keysym uint32) uint16 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.state[keysym]
}

// until waits for the text, and that no key is down but held.
func (e *entry) until(want string, held int) {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		e.mu.Lock()
		got, down := e.text.String(), len(e.down)
		e.mu.Unlock()
		if got == want && down == held {
			e.mu.Lock()
			e.text.Reset()
			e.mu.Unlock()
			return
		}
		if len(got) > len(want) || ctx.Err() != nil {
			e.t.Fatalf("typed %q\n  got %q, %d keys down", want, got, down)
		}
		select {
		case <-e.news:
		case <-ctx.Done():
		}
	}
}

var languages = map[string]string{
	"ASCII":    " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~",
	"Latin-1":  "¡¢£¤¥¦§¨©ª«¬®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ",
	"German":   "Grüße aus Köln, 10 € für Äpfel",
	"Greek":    "Καλημέρα κόσμε, ΆΈΉΊΌΎΏ ς",
	"Cyrillic": "Съешь ещё этих мягких французских булок, да выпей чаю ЁЖЩ",
	"Turkish":  "İstanbul'da ığdır, ŞşĞğÇçÖöÜü ıI iİ",
	"Polish":   "Zażółć gęślą jaźń ZAŻÓŁĆ",
	"Japanese": "こんにちは世界、カタカナと漢字。",
	"emoji":    "🙂👍🏽🇸🇪👩‍🚀",
	"composed": "éèêëñãõåçøæÿŵŷ",
	"Vietnam":  "Tiếng Việt rất đẹp",
}

// TestTyping: what is typed is what an X client reads, key by key as a viewer
// with that keyboard sends it, and as text.
func TestTyping(t *testing.T) {
	x := startXvnc(t)
	for name, e := range map[string]*entry{"answers pings, slowly": x.entry(t, true, time.Millisecond), "answers no pings": nil} {
		if e == nil {
			e = x.entry(t, false, 0)
		}
		t.Run(name, func(t *testing.T) {
			e.t = t
			xproto.SetInputFocus(e.conn, xproto.InputFocusParent, e.window, xproto.TimeCurrentTime)
			e.conn.Sync()
			v := x.attach(t)
			for language, text := range languages {
				v.input(guestapi.Input{Type: guestapi.InputText, Text: text})
				e.until(text, 0)
				// A keyboard of that language: each character without Shift as
				// far as we know, since levels are the viewer's matter.
				for _, r := range text {
					v.tap(keysymOf(r))
				}
				e.until(text, 0)
				// The same with Shift held, as capitals come.
				v.key(keyShiftL, true)
				for _, r := range text {
					v.tap(keysymOf(r))
				}
				v.key(keyShiftL, false)
				e.until(text, 0)
				t.Log(language)
			}
		})
	}
}

func TestLongText(t *testing.T) {
	x := startXvnc(t)
	e := x.entry(t, true, 0)
	v := x.attach(t)
	var long strings.Builder
	for r := rune(0x4e00); long.Len() < guestapi.MaxInputText-3; r += 3 {
		long.WriteRune(r)
	}
	began := time.Now()
	v.input(guestapi.Input{Type: guestapi.InputText, Text: long.String()})
	e.until(long.String(), 0)
	t.Logf("%d different characters in %v", len([]rune(long.String())), time.Since(began))
	ascii := strings.Repeat("The quick brown fox. 0123\n\t", guestapi.MaxInputText/27)
	began = time.Now()
	v.input(guestapi.Input{Type: guestapi.InputText, Text: ascii})
	e.until(ascii, 0)
	t.Logf("%d characters of ASCII in %v", len(ascii), time.Since(began))
}

func TestModifiers(t *testing.T) {
	const ctrl, alt, level3 = 0xffe3, 0xffe9, 0xfe03
	x := startXvnc(t)
	e := x.entry(t, true, 0)
	v := x.attach(t)
	shifted := func(keysyms ...uint32) {
		v.key(keyShiftL, true)
		for _, k := range keysyms {
			v.tap(k)
		}
		v.key(keyShiftL, false)
	}
	shifted('A', '!', 'ß')
	e.until("A!ß", 0)
	v.key(ctrl, true)
	v.tap('c')
	v.key(ctrl, false)
	v.key(alt, true)
	v.tap('x')
	v.key(alt, false)
	e.until("^c~x", 0)
	// AltGr is no key here: its characters are what counts.
	v.key(level3, true)
	v.tap('@')
	v.tap(0x20ac)
	v.key(level3, false)
	e.until("@€", 0)
	// Whoever shares the display may have left a lock on.
	for range 2 {
		xtest.FakeInput(e.conn, xproto.KeyPress, 66, 0, 0, 0, 0, 0)
		xtest.FakeInput(e.conn, xproto.KeyRelease, 66, 0, 0, 0, 0, 0)
		e.conn.Sync()
		v.tap('a')
		v.tap('A')
		v.input(guestapi.Input{Type: guestapi.InputText, Text: "bB"})
		e.until("aAbB", 0)
	}
	// A key that is held repeats as often as the viewer says, and no more.
	v.key('z', true)
	v.key('z', true)
	v.key('z', true)
	e.until("zzz", 1)
	<-time.After(time.Second) // longer than an X server waits before it repeats
	v.key('Z', false)         // Shift has come between
	e.until("", 0)
	// Shift is as the character has it, and for keys without one as it is held.
	v.key(keyShiftL, true)
	v.tap('7')
	v.tap(0xff51)
	v.key(keyShiftL, false)
	e.until("7?", 0)
	if state := e.last(0xff51); state&xproto.ModMaskShift == 0 {
		t.Error("Shift and Left is Left")
	}
}

// Keys go up when the viewer is gone, by whatever way.
func TestKeysGoUp(t *testing.T) {
	x := startXvnc(t)
	e := x.entry(t, true, 0)
	for name, end := range map[string]func(*viewer){
		"told":  func(v *viewer) { v.send(guestapi.InputRelease, nil) },
		"EOF":   func(v *viewer) { _ = v.in.Close() },
		"rules": func(v *viewer) { _, _ = v.in.Write([]byte("?????????")) },
	} {
		t.Run(name, func(t *testing.T) {
			e.t = t
			v := x.attach(t)
			for _, k := range []uint32{keyShiftL, 'Q', 0xffe3, keysymOf('世')} {
				v.key(k, true)
			}
			v.input(guestapi.Input{Type: guestapi.InputButton, Button: 1, Down: true, X: 10, Y: 10})
			e.until("Q^世", 4)
			end(v)
			e.until("", 0)
			if name != "told" {
				if err := <-v.done; (err == nil) != (name == "EOF") {
					t.Errorf("got %v", err)
				}
			}
			pointer, err := xproto.QueryPointer(e.conn, e.root).Reply()
			if err != nil || pointer.Mask != 0 {
				t.Errorf("buttons and modifiers: %x, %v", pointer.Mask, err)
			}
		})
	}
}

// What a viewer's program that was killed has left is undone, and keys repeat
// again once nobody types.
func TestRestore(t *testing.T) {
	x := startXvnc(t)
	e := x.entry(t, true, 0)
	repeats := func() bool {
		t.Helper()
		reply, err := xproto.GetKeyboardControl(e.conn).Reply()
		if err != nil {
			t.Fatal(err)
		}
		return reply.GlobalAutoRepeat == xproto.AutoRepeatModeOn
	}
	first, second := x.attach(t), x.attach(t)
	first.tap('a')
	e.until("a", 0)
	second.tap('b')
	e.until("b", 0)
	_ = first.in.Close()
	<-first.done
	second.key('c', true)
	second.input(guestapi.Input{Type: guestapi.InputButton, Button: 1, Down: true, X: 10, Y: 10})
	e.until("c", 1)
	if repeats() {
		t.Error("the X server repeats while a viewer types")
	}
	if err := Restore(x.display); err != nil {
		t.Fatal(err)
	}
	e.until("", 0)
	if pointer, err := xproto.QueryPointer(e.conn, e.root).Reply(); err != nil || pointer.Mask != 0 {
		t.Errorf("buttons and modifiers: %x, %v", pointer.Mask, err)
	}
	if !repeats() {
		t.Error("the X server does not repeat")
	}
	second.tap('d')
	e.until("d", 0)
	_ = second.in.Close()
	<-second.done
	if !repeats() {
		t.Error("the X server does not repeat when all viewers have gone")
	}
}

func TestCases(t *testing.T) {
	for r, want := range map[rune]string{'a': "aA", 'É': "éÉ", 'ж': "жЖ", 'Σ': "σΣ", 'ς': "", 'ß': "", 'ı': "", 'İ': "", '世': "", '1': "", 'ÿ': "ÿŸ", 'µ': ""} {
		small, capital, ok := cases(keysymOf(r))
		if !ok {
			if want != "" {
				t.Errorf("%c has no cases", r)
			}
			continue
		}
		a, _ := runeOf(small)
		b, _ := runeOf(capital)
		if string([]rune{a, b}) != want {
			t.Errorf("%c: %c%c, want %s", r, a, b, want)
		}
	}
	if got := textKeysyms("a\r\nb\rc\td\x00\x7f\u0085é"); !slices.Equal(got, []uint32{'a', keyReturn, 'b', keyReturn, 'c', keyTab, 'd', 0xe9}) {
		t.Errorf("%x", got)
	}
}
