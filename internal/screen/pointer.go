//go:build linux && cgo

package screen

import (
	"math"

	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"
)

const (
	notch      = 120
	maxButtons = 9
)

// The buttons that X has for the wheel.
const (
	wheelUp    = 4
	wheelDown  = 5
	wheelLeft  = 6
	wheelRight = 7
)

// pointer is the viewer's. It is for one goroutine.
type pointer struct {
	x      *server
	down   [maxButtons + 1]bool
	dx, dy int // of the wheel, what has not made a notch yet
}

func (p *pointer) move(x, y uint16) {
	xtest.FakeInput(p.x.conn, xproto.MotionNotify, 0, 0, p.x.root, int16(min(x, math.MaxInt16)), int16(min(y, math.MaxInt16)), 0)
}

func (p *pointer) button(n uint8, down bool) {
	if n == 0 || n > maxButtons || p.down[n] == down {
		return
	}
	p.down[n] = down
	kind := byte(xproto.ButtonRelease)
	if down {
		kind = xproto.ButtonPress
	}
	xtest.FakeInput(p.x.conn, kind, n, 0, 0, 0, 0, 0)
}

// wheel turns what has come together into notches.
func (p *pointer) wheel(dx, dy int16) {
	p.dx = p.turn(p.dx, int(dx), wheelLeft, wheelRight)
	p.dy = p.turn(p.dy, int(dy), wheelUp, wheelDown)
}

// turn adds to one direction and returns what is left. A turn back begins anew.
func (p *pointer) turn(have, more int, negative, positive uint8) int {
	if have*more < 0 {
		have = 0
	}
	have += more
	button := positive
	if have < 0 {
		button = negative
	}
	for ; have >= notch || have <= -notch; have -= have / max(have, -have) * notch {
		p.button(button, true)
		p.button(button, false)
	}
	return have
}

// release lets all buttons go.
func (p *pointer) release() {
	for n := range p.down {
		p.button(uint8(n), false)
	}
	p.dx, p.dy = 0, 0
}
