//go:build linux && cgo

package screen

import (
	"fmt"
	"sync"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/damage"
	"github.com/jezek/xgb/shm"
	"github.com/jezek/xgb/xfixes"
	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"
)

// server is the one connection to the X server. Input and pictures share it, so
// that a picture that is asked for after an input has been given is of a screen
// that has the input.
type server struct {
	conn   *xgb.Conn
	setup  *xproto.SetupInfo
	root   xproto.Window
	window xproto.Window // ours, never shown: it holds selections
	atoms  map[string]xproto.Atom

	closing sync.Once
}

// atomNames are the atoms that this package uses.
var atomNames = [...]string{
	"CLIPBOARD", "TARGETS", "UTF8_STRING", "TEXT", "text/plain", "text/plain;charset=utf-8", "INCR", "ANTEROOM_CLIPBOARD",
	"WM_PROTOCOLS", "_NET_WM_PING", "_NET_ACTIVE_WINDOW",
}

func dial(display string) (*server, error) {
	conn, err := xgb.NewConnDisplay(display)
	if err != nil {
		return nil, fmt.Errorf("screen: the X server: %w", err)
	}
	x := &server{conn: conn, setup: xproto.Setup(conn), atoms: map[string]xproto.Atom{}}
	x.root = x.setup.DefaultScreen(conn).Root
	if err := x.prepare(); err != nil {
		x.close()
		return nil, fmt.Errorf("screen: the X server: %w", err)
	}
	return x, nil
}

// close ends the connection. Idempotent.
func (x *server) close() { x.closing.Do(x.conn.Close) }

// extensions guards what xgb notes of extensions for all connections at once.
var extensions sync.Mutex

func initExtensions(conn *xgb.Conn) error {
	extensions.Lock()
	defer extensions.Unlock()
	for _, init := range [...]func(*xgb.Conn) error{shm.Init, xfixes.Init, damage.Init, xtest.Init} {
		if err := init(conn); err != nil {
			return err
		}
	}
	return nil
}

func (x *server) prepare() error {
	if err := initExtensions(x.conn); err != nil {
		return err
	}
	if _, err := xfixes.QueryVersion(x.conn, 5, 0).Reply(); err != nil {
		return err
	}
	if _, err := damage.QueryVersion(x.conn, 1, 1).Reply(); err != nil {
		return err
	}
	if screen := x.setup.DefaultScreen(x.conn); screen.RootDepth != 24 || x.setup.ImageByteOrder != xproto.ImageOrderLSBFirst {
		return fmt.Errorf("a screen of depth %d, byte order %d", screen.RootDepth, x.setup.ImageByteOrder)
	}
	for _, name := range atomNames {
		reply, err := xproto.InternAtom(x.conn, false, uint16(len(name)), name).Reply() //nolint:gosec // names of our own
		if err != nil {
			return err
		}
		x.atoms[name] = reply.Atom
	}
	var err error
	if x.window, err = xproto.NewWindowId(x.conn); err != nil {
		return err
	}
	err = xproto.CreateWindowChecked(x.conn, 0, x.window, x.root, -1, -1, 1, 1, 0, xproto.WindowClassInputOnly, 0,
		xproto.CwEventMask, []uint32{xproto.EventMaskPropertyChange}).Check()
	if err != nil {
		return err
	}
	// Changes of the screen's size, and the answers to pings, which windows send
	// to the root window.
	return xproto.ChangeWindowAttributesChecked(x.conn, x.root, xproto.CwEventMask,
		[]uint32{xproto.EventMaskStructureNotify | xproto.EventMaskSubstructureNotify}).Check()
}
