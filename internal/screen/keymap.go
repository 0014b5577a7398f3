//go:build linux && cgo

package screen

import (
	"slices"
	"unicode"

	"github.com/jezek/xgb/xproto"
)

// Keysyms that are used by name.
const (
	keyTab         = 0xff09
	keyReturn      = 0xff0d
	keyScrollLock  = 0xff14
	keyMultiKey    = 0xff20
	keyModeSwitch  = 0xff7e
	keyNumLock     = 0xff7f
	keyShiftL      = 0xffe1
	keyShiftR      = 0xffe2
	keyCapsLock    = 0xffe5
	keyShiftLock   = 0xffe6
	keyMetaL       = 0xffe7
	keyMetaR       = 0xffe8
	keySuperL      = 0xffeb
	keySuperR      = 0xffec
	keyHyperR      = 0xffee
	firstISO       = 0xfe01 // ISO_Lock, and what selects levels and groups
	lastISO        = 0xfe0f
	firstFunction  = 0xff00
	lastFunction   = 0xffff
	firstKeypad    = 0xff80
	lastKeypad     = 0xffbd
	firstLatin1    = 0xa0
	lastLatin1     = 0xff
	unicodeKeysyms = 0x01000000
)

// keysymOf is the keysym of a character.
func keysymOf(r rune) uint32 {
	if r >= 0x20 && r <= 0x7e || r >= firstLatin1 && r <= lastLatin1 {
		return uint32(r) //nolint:gosec // characters are not negative
	}
	return unicodeKeysyms | uint32(r) //nolint:gosec // characters are not negative
}

// runeOf is the character of a keysym, if it is Latin-1's or Unicode's.
func runeOf(keysym uint32) (rune, bool) {
	switch {
	case keysym >= 0x20 && keysym <= 0x7e, keysym >= firstLatin1 && keysym <= lastLatin1:
		return rune(keysym), true
	case keysym > unicodeKeysyms && keysym <= unicodeKeysyms+unicode.MaxRune:
		return rune(keysym - unicodeKeysyms), true
	}
	return 0, false
}

// cases returns a letter's small and its capital keysym. ok is false where the
// two are not each other's.
func cases(keysym uint32) (small, capital uint32, ok bool) {
	r, is := runeOf(keysym)
	if !is {
		return 0, 0, false
	}
	l, u := unicode.ToLower(r), unicode.ToUpper(r)
	if l == u || unicode.ToUpper(l) != u || unicode.ToLower(u) != l {
		return 0, 0, false
	}
	return keysymOf(l), keysymOf(u), true
}

// shift is what a keysym asks of the Shift key.
type shift int

const (
	shiftAny shift = iota // not sent or stored
	shiftUp
	shiftDown
)

// place is where a keysym is on the keyboard.
type place struct {
	code  xproto.Keycode
	shift shift
}

// spareCodes are the keycodes that get keysyms which are on no key. Most have
// none in the evdev keymap, the rest keys that no keyboard of the last twenty
// years has, and none of them does anything in a browser by its code.
var spareCodes = []xproto.Keycode{
	93, 97, 103, 120, 132, 149, 154, 168, 178, 183, 184,
	191, 192, 193, 194, 195, 196, 197, 198, 199, 200, 201, 202,
	210, 211, 212, 214, 217, 219, 220, 221, 222, 224, 226, 230,
	241, 242, 243, 244, 245, 246, 247, 248, 249, 250, 251, 252, 253, 254, 255,
}

// firstBound are the characters that are put on spare keycodes before anybody
// types: Western Europe's letters, and what stands on its keyboards.
func firstBound() []uint32 {
	var out []uint32
	for r := uint32(0xe0); r <= 0xfe; r++ {
		if r != 0xf7 { // the division sign among the letters
			out = append(out, r)
		}
	}
	for _, r := range "ß£§°¿¡«»·€" {
		out = append(out, keysymOf(r))
	}
	return out
}

// keymap is the X server's keyboard map as far as it is known here.
type keymap struct {
	first   xproto.Keycode
	columns int
	keysyms []uint32 // columns for each keycode from first
	slots   []slot   // one for each spare keycode
	tick    uint64
}

// slot is a spare keycode.
type slot struct {
	code           xproto.Keycode
	small, capital uint32 // the same where a character has no two cases; 0 if it is free
	used           uint64 // the tick of the last use
}

func (m *keymap) at(code xproto.Keycode, column int) uint32 {
	i := (int(code)-int(m.first))*m.columns + column
	if column >= m.columns || i < 0 || i >= len(m.keysyms) {
		return 0
	}
	return m.keysyms[i]
}

// load takes the server's map. What others have put on spare keycodes is kept
// if it is in the form that we give it.
func (m *keymap) load(first xproto.Keycode, columns int, keysyms []uint32, modifiers []xproto.Keycode) {
	m.first, m.columns, m.keysyms = first, columns, keysyms
	used := map[xproto.Keycode]uint64{}
	for _, s := range m.slots {
		used[s.code] = s.used
	}
	m.slots = m.slots[:0]
	for _, code := range spareCodes {
		if slices.Contains(modifiers, code) || int(code) >= int(first)+len(keysyms)/max(columns, 1) {
			continue
		}
		s := slot{code: code, used: used[code]}
		a, b := m.at(code, 0), m.at(code, 1)
		if small, capital, ok := cases(a); ok && small == a && capital == b || a == b {
			s.small, s.capital = a, b
		}
		m.slots = append(m.slots, s)
	}
}

// find says where a keysym is, if it is anywhere. Of two places, the one is
// taken that asks for Shift as it is.
func (m *keymap) find(keysym uint32, isShifted bool) (place, bool) {
	var best place
	for i := range len(m.keysyms) / max(m.columns, 1) {
		code := m.first + xproto.Keycode(i)
		if slices.Contains(spareCodes, code) {
			continue
		}
		a, b := m.at(code, 0), m.at(code, 1)
		p := place{code: code}
		switch {
		case a == keysym && exact(keysym, b):
			p.shift = shiftUp
		case a == keysym:
		case b == keysym && a != 0:
			p.shift = shiftDown
		default:
			continue
		}
		if p.shift == shiftAny || (p.shift == shiftDown) == isShifted {
			return p, true
		}
		if best.code == 0 || p.shift == shiftUp && best.shift == shiftDown {
			best = p
		}
	}
	if best.code != 0 {
		return best, true
	}
	m.tick++
	for i := range m.slots {
		s := &m.slots[i]
		switch keysym {
		case s.small, s.capital:
		default:
			continue
		}
		s.used = m.tick
		switch {
		case s.small == s.capital:
			return place{code: s.code}, true
		case keysym == s.small:
			return place{s.code, shiftUp}, true
		default:
			return place{s.code, shiftDown}, true
		}
	}
	return place{}, false
}

// exact says whether a keysym in the first column needs Shift to be up. Keys
// without characters are to be had with Shift: Shift and an arrow, Shift and
// Tab; those of the keypad become digits by it.
func exact(keysym, shifted uint32) bool {
	if shifted == 0 || shifted == keysym {
		return false
	}
	return keysym < firstISO || keysym >= unicodeKeysyms || keysym >= firstKeypad && keysym <= lastKeypad
}

// assign chooses slots for keysyms that are nowhere, those first that have not
// been used for longest, and returns the slots' indices, and the tick of the
// last use of any for what it had before. Slots with a code that
// keep names, and those used after the tick since, stay as they are; if they are
// too many, not all keysyms get one.
func (m *keymap) assign(keysyms []uint32, since uint64, keep func(xproto.Keycode) bool) (out []int, used uint64) {
	order := make([]int, 0, len(m.slots))
	for i, s := range m.slots {
		if s.used <= since && !keep(s.code) {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch x, y := m.slots[a].used, m.slots[b].used; {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for _, k := range keysyms {
		if len(out) == len(order) {
			break
		}
		i := order[len(out)]
		small, capital, ok := cases(k)
		if !ok {
			small, capital = k, k
		}
		m.tick++
		used = max(used, m.slots[i].used)
		m.slots[i] = slot{code: m.slots[i].code, small: small, capital: capital, used: m.tick}
		out = append(out, i)
	}
	return out, used
}
