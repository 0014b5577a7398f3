//go:build linux && cgo

package screen

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// copier is a program that copies and pastes: the other half of clipboard.
func (x *xvnc) copier(t *testing.T) (*clipboard, *output) {
	t.Helper()
	s, err := dial(x.display)
	if err != nil {
		t.Fatal(err)
	}
	out := newOutput(nil)
	c := newClipboard(s, out)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			ev, err := s.conn.WaitForEvent()
			if ev == nil && err == nil {
				return
			}
			c.event(ev)
		}
	})
	t.Cleanup(func() { s.close(); all.Wait() })
	return c, out
}

func TestClipboard(t *testing.T) {
	x := startXvnc(t)
	v := x.attach(t)
	v.until("the first picture", func() bool { return len(v.frames) > 0 })
	c, _ := x.copier(t)
	for i, text := range []string{"copied: å 世 🙂", strings.Repeat("long ", guestapi.MaxClipboard/5)} {
		c.own(text)
		v.until("what was copied", func() bool { return len(v.texts) > i })
		v.mu.Lock()
		if v.texts[i] != text {
			t.Errorf("%d bytes, not %d", len(v.texts[i]), len(text))
		}
		v.mu.Unlock()
		v.send(guestapi.ScreenClipboard, []byte("given: "+text[:len(text)-8]+"\r\n"))
		<-c.copied // another has it now
		if got := c.fetch(t.Context()); got != "given: "+text[:len(text)-8]+"\n" {
			t.Errorf("pasted %d bytes: %.40q", len(got), got)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.texts) != 2 {
		t.Errorf("the viewer's own text came back: %d texts", len(v.texts))
	}
}

func TestPointer(t *testing.T) {
	x := startXvnc(t)
	c := x.client(t, xproto.EventMaskButtonPress|xproto.EventMaskButtonRelease|xproto.EventMaskPointerMotion)
	v := x.attach(t)
	in := func(i guestapi.Input) { t.Helper(); v.input(i) }
	in(guestapi.Input{Type: guestapi.InputMove, X: 300, Y: 200})
	in(guestapi.Input{Type: guestapi.InputButton, X: 301, Y: 201, Button: 3, Down: true})
	in(guestapi.Input{Type: guestapi.InputButton, X: 301, Y: 201, Button: 3, Down: true}) // no change
	in(guestapi.Input{Type: guestapi.InputButton, X: 302, Y: 202, Button: 3})
	for range 5 {
		in(guestapi.Input{Type: guestapi.InputWheel, X: 302, Y: 202, DY: 50}) // two notches and 10
	}
	in(guestapi.Input{Type: guestapi.InputWheel, X: 302, Y: 202, DY: -119}) // not one yet
	in(guestapi.Input{Type: guestapi.InputWheel, X: 302, Y: 202, DY: -1, DX: 240})
	in(guestapi.Input{Type: guestapi.InputButton, X: 65535, Y: 65535, Button: 1, Down: true})
	in(guestapi.Input{Type: guestapi.InputRelease})
	var got []int // buttons, negative when they go up
	last := xproto.ButtonReleaseEvent{}
	for last.Detail != 1 {
		ev, err := c.conn.WaitForEvent()
		switch ev := ev.(type) {
		case xproto.ButtonPressEvent:
			got = append(got, int(ev.Detail))
		case xproto.ButtonReleaseEvent:
			got, last = append(got, -int(ev.Detail)), ev
		case nil:
			t.Fatal(err)
		}
	}
	if want := []int{3, -3, 5, -5, 5, -5, 7, -7, 7, -7, 4, -4, 1, -1}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if last.RootX != 1279 || last.RootY != 799 {
		t.Errorf("at %d, %d", last.RootX, last.RootY)
	}
}

func TestCursor(t *testing.T) {
	x := startXvnc(t)
	v := x.attach(t)
	v.until("a cursor", func() bool { return len(v.cursors) > 0 })
	half := []uint32{0x80400020, 0, 0xffffffff, 0xff000000}
	got := cursorOf(&xfixes.GetCursorImageReply{Width: 2, Height: 2, Xhot: 1, CursorImage: half})
	want := []byte{128, 0, 64, 128, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 255}
	if got.Width != 2 || got.HotX != 1 || !slices.Equal(got.RGBA, want) {
		t.Errorf("got %+v", got)
	}
	if got := cursorOf(&xfixes.GetCursorImageReply{Width: 1, Height: 1, CursorImage: []uint32{0}}); got.Width != 0 || got.RGBA != nil {
		t.Errorf("nothing: %+v", got)
	}
	large := &xfixes.GetCursorImageReply{Width: 300, Height: 300, CursorImage: make([]uint32, 300*300)}
	large.CursorImage[0] = 1 << 31
	if got := cursorOf(large); got.Width != guestapi.MaxCursorSide || len(got.RGBA) != 4*guestapi.MaxCursorSide*guestapi.MaxCursorSide {
		t.Errorf("a large one: %d, %d bytes", got.Width, len(got.RGBA))
	}
}
