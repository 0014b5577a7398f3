//go:build linux

package guest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// lookFirst and lookLast are between two looks for a window: looking takes the
// processor from a slow machine that is about to show it.
const (
	lookFirst = 10 * time.Millisecond
	lookLast  = 250 * time.Millisecond
)

// quietTime is how long a window is minimised, and shown, in turns.
const quietTime = 8 * time.Second

// waitForWindow returns once a window whose title begins with title is shown. If
// quietly is set, the window is minimised while it has another title: a slow
// machine's Chromium would draw its signs of loading, picture after picture, and
// not come to load. It is shown now and then all the same, since there is no
// promise that what is not seen gets its title.
func waitForWindow(ctx context.Context, title string, quietly bool) error {
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		return fmt.Errorf("the X server: %w", err)
	}
	defer x.Close()
	w := windows{x: x, root: xproto.Setup(x).DefaultScreen(x).Root}
	minimised, since := false, time.Time{}
	for wait := lookFirst; ; wait = min(wait+wait/4, lookLast) {
		all, err := w.list()
		if err != nil {
			return err
		}
		for _, window := range all {
			ready := strings.HasPrefix(w.title(window), title)
			if ready && !minimised {
				return nil
			}
			if ready || quietly && time.Since(since) > quietTime {
				minimised, since = !ready && !minimised, time.Now()
				if err := w.show(window, !minimised); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the window %q: %w", title, ctx.Err())
		case <-time.After(wait):
		}
	}
}

// What the window manager is told with a message.
const (
	iconic    = 3 // IconicState, of ICCCM
	fromPager = 2 // who wants a window to be active, of EWMH
)

// windows are those that the window manager knows.
type windows struct {
	x    *xgb.Conn
	root xproto.Window
}

func (w windows) list() ([]xproto.Window, error) {
	clients, err := atom(w.x, "_NET_CLIENT_LIST")
	if err != nil {
		return nil, err
	}
	list, err := xproto.GetProperty(w.x, false, w.root, clients, xproto.AtomWindow, 0, 64).Reply()
	if err != nil {
		return nil, fmt.Errorf("the X server: %w", err)
	}
	var all []xproto.Window
	for rest := list.Value; len(rest) >= 4; rest = rest[4:] {
		all = append(all, xproto.Window(xgb.Get32(rest)))
	}
	return all, nil
}

// title is a window's; of one that has just gone it is empty.
func (w windows) title(window xproto.Window) string {
	name, err := atom(w.x, "_NET_WM_NAME")
	if err != nil {
		return ""
	}
	is, err := xproto.GetProperty(w.x, false, window, name, xproto.GetPropertyTypeAny, 0, 64).Reply()
	if err != nil {
		return ""
	}
	return string(is.Value)
}

// show has a window shown, or minimised.
func (w windows) show(window xproto.Window, shown bool) error {
	if shown {
		return w.tell(window, "_NET_ACTIVE_WINDOW", fromPager)
	}
	return w.tell(window, "WM_CHANGE_STATE", iconic)
}

// tell sends the window manager a message about a window.
func (w windows) tell(window xproto.Window, message string, value uint32) error {
	kind, err := atom(w.x, message)
	if err != nil {
		return err
	}
	event := xproto.ClientMessageEvent{Format: 32, Window: window, Type: kind, Data: xproto.ClientMessageDataUnionData32New([]uint32{value, 0, 0, 0, 0})}
	const mask = xproto.EventMaskSubstructureNotify | xproto.EventMaskSubstructureRedirect
	if err := xproto.SendEventChecked(w.x, false, w.root, mask, string(event.Bytes())).Check(); err != nil {
		return fmt.Errorf("the X server: %s: %w", message, err)
	}
	return nil
}

func atom(x *xgb.Conn, name string) (xproto.Atom, error) {
	reply, err := xproto.InternAtom(x, false, uint16(len(name)), name).Reply() //nolint:gosec // names of our own
	if err != nil {
		return 0, fmt.Errorf("the X server: atom %s: %w", name, err)
	}
	return reply.Atom, nil
}
