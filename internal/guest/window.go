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

// waitForWindow returns once a window whose title begins with title is shown.
func waitForWindow(ctx context.Context, title string) error {
	x, err := xgb.NewConnDisplay(display)
	if err != nil {
		return fmt.Errorf("the X server: %w", err)
	}
	defer x.Close()
	root := xproto.Setup(x).DefaultScreen(x).Root
	clients, err := atom(x, "_NET_CLIENT_LIST")
	if err != nil {
		return err
	}
	name, err := atom(x, "_NET_WM_NAME")
	if err != nil {
		return err
	}
	for {
		list, err := xproto.GetProperty(x, false, root, clients, xproto.AtomWindow, 0, 64).Reply()
		if err != nil {
			return fmt.Errorf("the X server: %w", err)
		}
		for rest := list.Value; len(rest) >= 4; rest = rest[4:] {
			window := xproto.Window(xgb.Get32(rest))
			// A window may go away in between: that is no error.
			is, err := xproto.GetProperty(x, false, window, name, xproto.GetPropertyTypeAny, 0, 64).Reply()
			if err == nil && strings.HasPrefix(string(is.Value), title) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the window %q: %w", title, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func atom(x *xgb.Conn, name string) (xproto.Atom, error) {
	reply, err := xproto.InternAtom(x, false, uint16(len(name)), name).Reply() //nolint:gosec // names of our own
	if err != nil {
		return 0, fmt.Errorf("the X server: atom %s: %w", name, err)
	}
	return reply.Atom, nil
}
