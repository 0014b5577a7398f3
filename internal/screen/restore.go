//go:build linux && cgo

package screen

import (
	"github.com/jezek/xgb/xproto"
	"github.com/jezek/xgb/xtest"
)

// Restore undoes what a Run that was killed has left: keys and buttons that are
// down go up, whoever pressed them, and the X server repeats keys again.
// Idempotent.
func Restore(display string) error {
	x, err := dial(display)
	if err != nil {
		return err
	}
	defer x.close()
	keys := xproto.QueryKeymap(x.conn)
	pointer, err := xproto.QueryPointer(x.conn, x.root).Reply()
	if err != nil {
		return err
	}
	down, err := keys.Reply()
	if err != nil {
		return err
	}
	for code := range 8 * len(down.Keys) {
		if down.Keys[code/8]&(1<<(code%8)) != 0 {
			xtest.FakeInput(x.conn, xproto.KeyRelease, byte(code), 0, 0, 0, 0, 0)
		}
	}
	for n := range byte(5) {
		if pointer.Mask&(xproto.KeyButMaskButton1<<n) != 0 {
			xtest.FakeInput(x.conn, xproto.ButtonRelease, 1+n, 0, 0, 0, 0, 0)
		}
	}
	xproto.ChangeKeyboardControl(x.conn, xproto.KbAutoRepeatMode, []uint32{xproto.AutoRepeatModeOn})
	x.conn.Sync()
	return nil
}
