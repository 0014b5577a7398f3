//go:build linux && cgo

package screen

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const (
	// propertyChunk is what one request carries at most; all servers take it.
	propertyChunk = 64 << 10
	// selectionWait is how long a program may take to hand over what it copied.
	selectionWait = 2 * time.Second
)

// clipboard is CLIPBOARD, both ways: what a program in the machine copies is
// sent, what the viewer gives is owned until a program copies something, or the
// viewer goes. Only text, of at most guestapi.MaxClipboard bytes; what is longer
// is cut. PRIMARY, which is what is merely selected, is left alone.
type clipboard struct {
	x       *server
	out     *output
	copied  chan struct{}                    // has one after a program has copied something
	handed  chan xproto.SelectionNotifyEvent // the answers to our questions
	renewed chan struct{}                    // has one after the property has a new part
	targets map[xproto.Atom]struct{}         // text, under the names it has
	mu      sync.Mutex                       // guards text
	text    string                           // what is owned
}

func newClipboard(x *server, out *output) *clipboard {
	c := &clipboard{
		x: x, out: out, targets: map[xproto.Atom]struct{}{xproto.AtomString: {}},
		copied: make(chan struct{}, 1), handed: make(chan xproto.SelectionNotifyEvent, 1), renewed: make(chan struct{}, 1),
	}
	for _, name := range [...]string{"UTF8_STRING", "TEXT", "text/plain", "text/plain;charset=utf-8"} {
		c.targets[x.atoms[name]] = struct{}{}
	}
	xfixes.SelectSelectionInput(x.conn, x.window, x.atoms["CLIPBOARD"], xfixes.SelectionEventMaskSetSelectionOwner)
	return c
}

// own makes text what programs paste. It is in force for all input after it.
func (c *clipboard) own(text string) {
	c.mu.Lock()
	c.text = strings.ReplaceAll(text, "\r\n", "\n")
	c.mu.Unlock()
	xproto.SetSelectionOwner(c.x.conn, c.x.window, c.x.atoms["CLIPBOARD"], xproto.TimeCurrentTime)
}

func (c *clipboard) event(ev xgb.Event) {
	switch ev := ev.(type) {
	case xfixes.SelectionNotifyEvent:
		if ev.Owner != c.x.window && ev.Owner != xproto.WindowNone {
			poke(c.copied)
		}
	case xproto.SelectionNotifyEvent:
		select {
		case c.handed <- ev:
		default: // nobody has asked
		}
	case xproto.PropertyNotifyEvent:
		if ev.Window == c.x.window && ev.State == xproto.PropertyNewValue {
			poke(c.renewed)
		}
	case xproto.SelectionRequestEvent:
		c.serve(ev)
	}
}

// serve answers a program that pastes.
func (c *clipboard) serve(ev xproto.SelectionRequestEvent) {
	property := ev.Property
	if property == xproto.AtomNone { // an old client
		property = ev.Target
	}
	_, isText := c.targets[ev.Target]
	switch {
	case ev.Target == c.x.atoms["TARGETS"]:
		var all []byte
		put := func(a xproto.Atom) {
			var b [4]byte
			xgb.Put32(b[:], uint32(a))
			all = append(all, b[:]...)
		}
		put(ev.Target)
		for a := range c.targets {
			put(a)
		}
		xproto.ChangeProperty(c.x.conn, xproto.PropModeReplace, ev.Requestor, property, xproto.AtomAtom, 32, uint32(len(all)/4), all) //nolint:gosec // few
	case isText:
		c.mu.Lock()
		rest := []byte(c.text)
		c.mu.Unlock()
		kind := ev.Target
		if kind == c.x.atoms["TEXT"] { // its owner chooses
			kind = c.x.atoms["UTF8_STRING"]
		}
		for mode := byte(xproto.PropModeReplace); mode == xproto.PropModeReplace || len(rest) > 0; mode = xproto.PropModeAppend {
			n := min(len(rest), propertyChunk)
			xproto.ChangeProperty(c.x.conn, mode, ev.Requestor, property, kind, 8, uint32(n), rest[:n])
			rest = rest[n:]
		}
	default:
		property = xproto.AtomNone
	}
	answer := xproto.SelectionNotifyEvent{Time: ev.Time, Requestor: ev.Requestor, Selection: ev.Selection, Target: ev.Target, Property: property}
	xproto.SendEvent(c.x.conn, false, ev.Requestor, 0, string(answer.Bytes()))
}

// run sends what programs copy until ctx ends.
func (c *clipboard) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.copied:
		}
		asked, cancel := context.WithTimeout(ctx, selectionWait)
		text := c.fetch(asked)
		cancel()
		if text != "" {
			c.out.put(guestapi.ScreenClipboard, []byte(text))
		}
	}
}

// fetch returns what has been copied, or nothing: its owner may be gone, slow
// or without text.
func (c *clipboard) fetch(ctx context.Context) string {
	property := c.x.atoms["ANTEROOM_CLIPBOARD"]
	select {
	case <-c.handed: // an answer that came too late
	default:
	}
	xproto.ConvertSelection(c.x.conn, c.x.window, c.x.atoms["CLIPBOARD"], c.x.atoms["UTF8_STRING"], property, xproto.TimeCurrentTime)
	select {
	case <-ctx.Done():
		return ""
	case ev := <-c.handed:
		if ev.Property == xproto.AtomNone {
			return ""
		}
	}
	select {
	case <-c.renewed:
	default:
	}
	part, kind := c.part()
	if kind != c.x.atoms["INCR"] {
		return clean(part)
	}
	// The owner writes the property anew each time that it has been deleted; an
	// empty one is the end.
	var all []byte
	for {
		select {
		case <-ctx.Done():
			return ""
		case <-c.renewed:
		}
		part, kind := c.part()
		if kind == xproto.AtomNone {
			continue // the note was of a part that has been read
		}
		if len(part) == 0 {
			return clean(all)
		}
		if len(all) <= guestapi.MaxClipboard {
			all = append(all, part...)
		}
	}
}

// part reads and deletes the property.
func (c *clipboard) part() ([]byte, xproto.Atom) {
	reply, err := xproto.GetProperty(c.x.conn, true, c.x.window, c.x.atoms["ANTEROOM_CLIPBOARD"],
		xproto.GetPropertyTypeAny, 0, 1<<22).Reply()
	if err != nil {
		return nil, xproto.AtomNone
	}
	return reply.Value, reply.Type
}

func clean(b []byte) string {
	cut := len(b) > guestapi.MaxClipboard
	text := strings.ToValidUTF8(string(b[:min(len(b), guestapi.MaxClipboard)]), "")
	if !cut {
		text = strings.TrimRight(text, "\x00")
	}
	return text
}
