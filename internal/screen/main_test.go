//go:build linux && cgo

package screen

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"github.com/anteroom/anteroom/internal/guest/rfb"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/screen/vp8/vp8test"
)

// limit is for everything that has to happen at some time.
const limit = 30 * time.Second

func TestMain(m *testing.M) {
	xgb.Logger = log.New(io.Discard, "", 0)
	m.Run()
}

// xvnc is a real X server, as in a machine.
type xvnc struct {
	display, socket string
}

func startXvnc(t testing.TB) *xvnc {
	t.Helper()
	path, err := exec.LookPath("Xvnc")
	if err != nil {
		t.Skip("SKIPPED: there is no Xvnc (Debian's tigervnc-standalone-server), so nothing was shown or typed")
	}
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	s := &xvnc{socket: filepath.Join(dir, "vnc.sock")}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-displayfd", "3", "-geometry", "1280x800", "-depth", "24",
		"-rfbport", "-1", "-rfbunixpath", s.socket, "-rfbunixmode", "0600", "-SecurityTypes", "None", "-AlwaysShared",
		"-AcceptSetDesktopSize=1", "-FrameRate", "60", "-SendPrimary=0", "-SetPrimary=0",
		"-nolisten", "tcp", "-nolisten", "local", "-extension", "GLX", "-Log", "*:stderr:10")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{w}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			text, err := os.ReadFile(log.Name())
			t.Logf("Xvnc's log: %s %v", text, err)
		}
		_ = log.Close()
	})
	number, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	s.display = ":" + strings.TrimSpace(number)
	return s
}

// client is a program that shows something on the screen: one window over all
// of it.
type client struct {
	t      testing.TB
	conn   *xgb.Conn
	root   xproto.Window
	window xproto.Window
	gc     xproto.Gcontext
}

func (s *xvnc) client(t testing.TB, events uint32) *client {
	t.Helper()
	conn, err := xgb.NewConnDisplay(s.display)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	c := &client{t: t, conn: conn, root: xproto.Setup(conn).DefaultScreen(conn).Root}
	if c.window, err = xproto.NewWindowId(conn); err != nil {
		t.Fatal(err)
	}
	if c.gc, err = xproto.NewGcontextId(conn); err != nil {
		t.Fatal(err)
	}
	err = errors.Join(
		xproto.CreateWindowChecked(conn, 0, c.window, c.root, 0, 0, rfb.MaxWidth, rfb.MaxHeight, 0, xproto.WindowClassInputOutput, 0,
			xproto.CwBackPixel|xproto.CwOverrideRedirect|xproto.CwEventMask, []uint32{0x808080, 1, events | xproto.EventMaskExposure}).Check(),
		xproto.CreateGCChecked(conn, c.gc, xproto.Drawable(c.window), 0, nil).Check(),
		xproto.MapWindowChecked(conn, c.window).Check(),
		xproto.SetInputFocusChecked(conn, xproto.InputFocusParent, c.window, xproto.TimeCurrentTime).Check(),
	)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fill paints a rectangle, and returns when it is on the screen.
func (c *client) fill(r image.Rectangle, rgb uint32) {
	c.t.Helper()
	err := errors.Join(
		xproto.ChangeGCChecked(c.conn, c.gc, xproto.GcForeground, []uint32{rgb}).Check(),
		xproto.PolyFillRectangleChecked(c.conn, xproto.Drawable(c.window), c.gc, []xproto.Rectangle{{
			X: int16(r.Min.X), Y: int16(r.Min.Y), Width: uint16(r.Dx()), Height: uint16(r.Dy()),
		}}).Check(),
	)
	if err != nil {
		c.t.Fatal(err)
	}
}

// viewer is the host's end of a stream.
type viewer struct {
	t       testing.TB
	in      io.WriteCloser
	done    chan error
	decoder *vp8test.Decoder

	mu      sync.Mutex // guards all below
	more    *sync.Cond
	frames  []guestapi.VideoFrame
	picture *image.RGBA // after the last frame
	cursors []guestapi.Cursor
	texts   []string
	ended   bool
}

// attach runs Run, with the real kind of files.
func (s *xvnc) attach(t testing.TB) *viewer {
	t.Helper()
	toGuest, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, fromGuest, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	v := &viewer{t: t, in: in, done: make(chan error, 1)}
	v.more = sync.NewCond(&v.mu)
	if v.decoder, err = vp8test.New(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		v.done <- Run(ctx, Config{Display: s.display, VNC: s.socket, In: toGuest, Out: fromGuest,
			Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))})
	})
	all.Go(func() { v.read(out) })
	t.Cleanup(func() {
		cancel()
		_ = in.Close()
		all.Wait()
		_ = out.Close()
		v.decoder.Close()
	})
	return v
}

func (v *viewer) read(r io.Reader) {
	defer func() {
		v.mu.Lock()
		v.ended = true
		v.mu.Unlock()
		v.more.Broadcast()
	}()
	var buf []byte
	for {
		kind, payload, err := guestapi.ReadScreenFrame(r, buf)
		if err != nil {
			return
		}
		buf = payload
		if err := v.take(kind, payload); err != nil {
			v.t.Errorf("frame %q: %v", kind, err)
			return
		}
	}
}

func (v *viewer) take(kind guestapi.ScreenFrameType, payload []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.more.Broadcast()
	switch kind {
	case guestapi.ScreenVideo:
		f, err := guestapi.ParseVideo(payload)
		if err != nil {
			return err
		}
		f.Data = bytes.Clone(f.Data)
		v.frames = append(v.frames, f)
		v.picture, err = v.decoder.Decode(f.Data)
		if err != nil {
			return err
		}
		if size := v.picture.Bounds().Max; size != image.Pt(int(f.Width), int(f.Height)) {
			return errors.New("the picture is " + size.String())
		}
	case guestapi.ScreenCursor:
		c, err := guestapi.ParseCursor(payload)
		if err != nil {
			return err
		}
		c.RGBA = bytes.Clone(c.RGBA)
		v.cursors = append(v.cursors, c)
	case guestapi.ScreenClipboard:
		v.texts = append(v.texts, string(payload))
	default:
		return errors.New("unexpected")
	}
	return nil
}

// until waits until ok, which is called with the lock held.
func (v *viewer) until(what string, ok func() bool) {
	v.t.Helper()
	timer := time.AfterFunc(limit, func() {
		v.mu.Lock()
		v.ended = true
		v.mu.Unlock()
		v.more.Broadcast()
	})
	defer timer.Stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	for !ok() {
		if v.ended {
			v.t.Fatalf("waiting for %s: the stream has ended, or it took too long; %d frames", what, len(v.frames))
		}
		v.more.Wait()
	}
}

// count is the number of frames so far, and of keyframes among them.
func (v *viewer) count() (frames, keyframes int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, f := range v.frames {
		if f.Keyframe {
			keyframes++
		}
	}
	return len(v.frames), keyframes
}

func (v *viewer) send(kind guestapi.ScreenFrameType, payload []byte) {
	v.t.Helper()
	if err := guestapi.WriteScreenFrame(v.in, kind, payload); err != nil {
		v.t.Fatal(err)
	}
}

func (v *viewer) input(in guestapi.Input) {
	v.t.Helper()
	m := guestapi.AppendInput(nil, in)
	v.send(guestapi.ScreenFrameType(m[0]), m[1:])
}

func (v *viewer) key(keysym uint32, down bool) {
	v.t.Helper()
	v.input(guestapi.Input{Type: guestapi.InputKey, Keysym: keysym, Down: down})
}

func (v *viewer) tap(keysym uint32) { v.t.Helper(); v.key(keysym, true); v.key(keysym, false) }

func (v *viewer) resize(width, height int) {
	v.t.Helper()
	b := binary.BigEndian.AppendUint16(nil, uint16(width))
	v.send(guestapi.ScreenResize, binary.BigEndian.AppendUint16(b, uint16(height)))
}

// shows says whether the last picture has a colour at a place, about. The lock
// is held.
func (v *viewer) shows(at image.Point, rgb uint32) bool {
	if v.picture == nil || !at.In(v.picture.Bounds()) {
		return false
	}
	const tolerance = 20
	near := func(a uint8, b uint32) bool { d := int(a) - int(b&255); return d <= tolerance && d >= -tolerance }
	c, ok := v.picture.At(at.X, at.Y).(color.RGBA)
	return ok && near(c.R, rgb>>16) && near(c.G, rgb>>8) && near(c.B, rgb)
}
