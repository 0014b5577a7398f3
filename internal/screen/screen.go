//go:build linux && cgo

package screen

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guest/rfb"
	"github.com/anteroom/anteroom/internal/guestapi"
)

// Config is what Run needs.
type Config struct {
	Display string        // such as ":0"
	VNC     string        // the unix socket on which the X server takes a new size; empty if it takes none
	In      io.ReadCloser // frames of the viewer; Run closes it
	Out     io.WriteCloser
	Logger  *slog.Logger

	// What was chosen by measurement (see ARCHITECTURE.md) unless it is set.
	Speed           int
	StaticThreshold int
}

// Defaults of the encoder.
const (
	defaultSpeed     = 12
	defaultStatic    = 100
	defaultBitrate   = 4_000_000
	minBitrate       = 50_000
	maxBitrate       = 50_000_000
	refineQuantizer  = 10
	refineAfter      = 250 * time.Millisecond
	framePause       = time.Second / 60       // between pictures, at least
	calmPause        = time.Second / 30       // while nobody does anything
	busyTime         = 300 * time.Millisecond // that somebody does something after each input
	longestFrameTime = 250 * time.Millisecond // that the rate control sees
	maxDebt          = 100 * time.Millisecond // of what is sent beyond the bitrate
)

// errEnded says that the viewer has closed its side.
var errEnded = errors.New("screen: the viewer has ended the stream")

// Run shows the screen until In ends, a frame breaks a rule, the X server ends
// or ctx does. Only the first is no error. When it returns, everything that it
// held down is up, both files are closed and nothing of it runs any more.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Speed == 0 {
		cfg.Speed = defaultSpeed
	}
	if cfg.StaticThreshold == 0 {
		cfg.StaticThreshold = defaultStatic
	}
	defer func() { _ = cfg.In.Close(); _ = cfg.Out.Close() }()
	x, err := dial(cfg.Display)
	if err != nil {
		return err
	}
	defer x.close()
	out := newOutput(cfg.Out)
	v, err := newVideo(x, out, cfg)
	if err != nil {
		return err
	}
	defer v.close()
	s := &stream{
		cfg: cfg, x: x, video: v,
		keys: newKeyboard(x), clip: newClipboard(x, out), cursor: newCursor(x, out),
		sizes: make(chan [2]uint16, 1),
	}
	s.pointer = pointer{x: x}
	return s.run(ctx, out)
}

// stream is one viewer's.
type stream struct {
	cfg     Config
	x       *server
	video   *video
	keys    *keyboard // the reader's alone, but for its events
	pointer pointer   // the reader's alone
	clip    *clipboard
	cursor  *cursor
	sizes   chan [2]uint16 // the newest size that is wanted
}

func (s *stream) run(ctx context.Context, out *output) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all, reading, events sync.WaitGroup
	events.Go(func() { cancel(s.events()) }) // ends with the connection
	all.Go(func() { cancel(s.video.run(ctx)) })
	all.Go(func() { cancel(out.run(ctx)) })
	all.Go(func() { s.resize(ctx) })
	all.Go(func() { s.clip.run(ctx) })
	all.Go(func() { s.cursor.run(ctx) })
	reading.Go(func() { cancel(s.read(ctx)) })
	<-ctx.Done()
	_ = s.cfg.In.Close()
	reading.Wait()
	s.pointer.release()
	s.keys.release()
	s.x.conn.Sync()
	_ = s.cfg.Out.Close() // which says that all of it is done
	all.Wait()
	s.x.close()
	events.Wait()
	if err := context.Cause(ctx); !errors.Is(err, errEnded) {
		return err
	}
	return nil
}

// events hands out what the X server tells until the connection ends.
func (s *stream) events() error {
	for {
		ev, xerr := s.x.conn.WaitForEvent()
		switch {
		case ev != nil:
			s.video.event(ev)
			s.cursor.event(ev)
			s.clip.event(ev)
			s.keys.event(ev)
		case xerr != nil: // of a request that nobody waits for: a window has gone, a size has changed
			s.cfg.Logger.Debug("the X server refused a request", "err", xerr)
		default:
			return errors.New("screen: the X server has ended the connection")
		}
	}
}

// read takes the viewer's frames until they end.
func (s *stream) read(ctx context.Context) error {
	in := bufio.NewReaderSize(s.cfg.In, 32<<10)
	var buf []byte
	for {
		kind, payload, err := guestapi.ReadScreenFrame(in, buf)
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		buf = payload
		if err := s.take(ctx, kind, payload); err != nil {
			return err
		}
	}
}

func (s *stream) take(ctx context.Context, kind guestapi.ScreenFrameType, payload []byte) error {
	switch kind {
	case guestapi.ScreenKeyframe:
		s.video.askKeyframe()
		return nil
	case guestapi.ScreenBitrate, guestapi.ScreenResize:
		if len(payload) != 4 {
			return fmt.Errorf("%w: type %q with %d bytes", guestapi.ErrScreenFrame, kind, len(payload))
		}
		if kind == guestapi.ScreenBitrate {
			s.video.setBitrate(binary.BigEndian.Uint32(payload))
			return nil
		}
		size := [2]uint16{binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:])}
		for { // the newest counts
			select {
			case s.sizes <- size:
				return nil
			default:
			}
			select {
			case <-s.sizes:
			default:
			}
		}
	}
	message := append([]byte{byte(kind)}, payload...)
	in, err := guestapi.ParseInput(message)
	if err != nil {
		return err
	}
	s.input(ctx, in)
	return nil
}

// input does what a viewer does. Its ID counts as given to the X server when
// all of its requests are on the connection that the pictures are asked for on.
func (s *stream) input(ctx context.Context, in guestapi.Input) {
	switch in.Type {
	case guestapi.InputMove:
		s.pointer.move(in.X, in.Y)
	case guestapi.InputButton:
		s.pointer.move(in.X, in.Y)
		s.pointer.button(in.Button, in.Down)
	case guestapi.InputWheel:
		s.pointer.move(in.X, in.Y)
		s.pointer.wheel(in.DX, in.DY)
	case guestapi.InputKey:
		s.keys.key(ctx, in.Keysym, in.Down)
	case guestapi.InputText:
		s.keys.text(ctx, in.Text)
	case guestapi.InputRelease:
		s.pointer.release()
		s.keys.release()
		return
	case guestapi.ScreenClipboard:
		s.clip.own(in.Text)
		return
	default:
		return
	}
	s.video.gave(in.ID)
}

// resize asks the X server for the sizes that the viewer wants.
func (s *stream) resize(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case size := <-s.sizes:
			if s.cfg.VNC == "" {
				continue
			}
			// Even, so that the picture has exactly the screen's size.
			if err := rfb.Resize(ctx, s.cfg.VNC, int(size[0]&^1), int(size[1]&^1)); err != nil {
				s.cfg.Logger.Warn("the screen keeps its size", "err", err)
			}
		}
	}
}
