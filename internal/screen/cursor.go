//go:build linux && cgo

package screen

import (
	"bytes"
	"context"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xfixes"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// cursor sends the pointer's picture as it changes.
type cursor struct {
	x       *server
	out     *output
	changed chan struct{}
}

func newCursor(x *server, out *output) *cursor {
	c := &cursor{x: x, out: out, changed: make(chan struct{}, 1)}
	xfixes.SelectCursorInput(x.conn, x.root, xfixes.CursorNotifyMaskDisplayCursor)
	poke(c.changed)
	return c
}

func (c *cursor) event(ev xgb.Event) {
	if _, ok := ev.(xfixes.CursorNotifyEvent); ok {
		poke(c.changed)
	}
}

func (c *cursor) run(ctx context.Context) {
	var last []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
		reply, err := xfixes.GetCursorImage(c.x.conn).Reply()
		if err != nil {
			continue // there is none yet, or the connection has ended
		}
		payload := guestapi.AppendCursor(nil, cursorOf(reply))
		if !bytes.Equal(payload, last) {
			last = payload
			c.out.put(guestapi.ScreenCursor, payload)
		}
	}
}

// cursorOf turns premultiplied ARGB into RGBA. What is larger than allowed is
// cut; what is transparent all over is none.
func cursorOf(in *xfixes.GetCursorImageReply) guestapi.Cursor {
	w, h := min(int(in.Width), guestapi.MaxCursorSide), min(int(in.Height), guestapi.MaxCursorSide)
	out := guestapi.Cursor{
		HotX: in.Xhot, HotY: in.Yhot, Width: uint16(w), Height: uint16(h), //nolint:gosec // at most MaxCursorSide
		RGBA: make([]byte, 0, 4*w*h),
	}
	visible := false
	for y := range h {
		for _, p := range in.CursorImage[y*int(in.Width):][:w] {
			a := p >> 24
			visible = visible || a != 0
			straight := func(v uint32) byte {
				if a == 0 {
					return 0
				}
				return byte(min((v&255*255+a/2)/a, 255))
			}
			out.RGBA = append(out.RGBA, straight(p>>16), straight(p>>8), straight(p), byte(a))
		}
	}
	if !visible {
		return guestapi.Cursor{}
	}
	return out
}
