package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/anteroom/anteroom/test/idp"
)

// maxSide limits what a screen may say of its size, in pixels.
const maxSide = 4096

// screen is one viewer of a machine's screen, over RFB 3.8 (RFC 6143), with
// raw pixels of 32 bits. Not for concurrent use.
type screen struct {
	conn          net.Conn
	in            *bufio.Reader
	width, height int
	pixels        []byte // of the whole screen: blue, green, red, unused
}

// watch speaks the handshake.
func watch(conn net.Conn) (*screen, error) {
	buf := make([]byte, 24)
	in := bufio.NewReaderSize(conn, 64<<10)
	if err := expect(in, buf[:12]); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(conn, "RFB 003.008\n"); err != nil {
		return nil, fmt.Errorf("rfb: %w", err)
	}
	if err := expect(in, buf[:1]); err != nil {
		return nil, err
	}
	if err := skip(in, int64(buf[0])); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte{1}); err != nil { // no authentication
		return nil, fmt.Errorf("rfb: %w", err)
	}
	if err := expect(in, buf[:4]); err != nil {
		return nil, err
	}
	if binary.BigEndian.Uint32(buf) != 0 {
		return nil, errors.New("rfb: the handshake was refused")
	}
	if _, err := conn.Write([]byte{1}); err != nil { // shared
		return nil, fmt.Errorf("rfb: %w", err)
	}
	if err := expect(in, buf); err != nil {
		return nil, err
	}
	s := &screen{conn: conn, in: in, width: int(binary.BigEndian.Uint16(buf)), height: int(binary.BigEndian.Uint16(buf[2:]))}
	if s.width < 1 || s.height < 1 || s.width > maxSide || s.height > maxSide {
		return nil, fmt.Errorf("rfb: a screen of %d by %d", s.width, s.height)
	}
	s.pixels = make([]byte, 4*s.width*s.height)
	if err := skip(in, int64(binary.BigEndian.Uint32(buf[20:])&0xffff)); err != nil { // its name
		return nil, err
	}
	return s, s.setUp()
}

// setUp asks for pixels in the form that screen keeps, without compression.
func (s *screen) setUp() error {
	msg := []byte{0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0} // SetPixelFormat
	msg = append(msg, 2, 0, 0, 1, 0, 0, 0, 0)                                          // SetEncodings: raw
	_, err := s.conn.Write(msg)
	if err != nil {
		return fmt.Errorf("rfb: %w", err)
	}
	return nil
}

// strip is a part of a screen, from top to bottom.
type strip struct{ x, width int }

func (s *screen) whole() strip { return strip{0, s.width} }

// middle is what shows looks at: a raw picture of the whole screen is 4 MB, and
// ten at once that are read for every change would be what is measured.
func (s *screen) middle() strip { return strip{s.width / 2, 1} }

// request asks for what has changed since, or for all.
func (s *screen) request(changed bool, of strip) error {
	msg := []byte{3, 0}
	if changed {
		msg[1] = 1
	}
	msg = binary.BigEndian.AppendUint16(msg, uint16(of.x)) //nolint:gosec // at most maxSide
	msg = append(msg, 0, 0)
	msg = binary.BigEndian.AppendUint16(msg, uint16(of.width)) //nolint:gosec // at most maxSide
	msg = binary.BigEndian.AppendUint16(msg, uint16(s.height)) //nolint:gosec // at most maxSide
	if _, err := s.conn.Write(msg); err != nil {
		return fmt.Errorf("rfb: %w", err)
	}
	return nil
}

// until asks for a part of the screen, again and again for what has changed, until
// seen says true of it. It ends when the connection does.
func (s *screen) until(of strip, seen func() bool) error {
	for changed := false; ; changed = true {
		if err := s.request(changed, of); err != nil {
			return err
		}
		if err := s.update(); err != nil {
			return err
		}
		if seen() {
			return nil
		}
	}
}

// update reads until one update of the screen has come.
func (s *screen) update() error {
	buf := make([]byte, 7)
	for {
		if err := expect(s.in, buf[:1]); err != nil {
			return err
		}
		switch buf[0] {
		case 0: // FramebufferUpdate
			if err := expect(s.in, buf[:3]); err != nil {
				return err
			}
			for range binary.BigEndian.Uint16(buf[1:]) {
				if err := s.rectangle(); err != nil {
					return err
				}
			}
			return nil
		case 2: // Bell
		case 3: // ServerCutText
			if err := expect(s.in, buf); err != nil {
				return err
			}
			if err := skip(s.in, int64(binary.BigEndian.Uint32(buf[3:]))); err != nil {
				return err
			}
		default:
			return fmt.Errorf("rfb: unexpected message %d", buf[0])
		}
	}
}

func (s *screen) rectangle() error {
	head := make([]byte, 12)
	if err := expect(s.in, head); err != nil {
		return err
	}
	at := func(i int) int { return int(binary.BigEndian.Uint16(head[2*i:])) }
	x, y, w, h := at(0), at(1), at(2), at(3)
	if encoding := binary.BigEndian.Uint32(head[8:]); encoding != 0 || x+w > s.width || y+h > s.height {
		return fmt.Errorf("rfb: unexpected rectangle of encoding %d at %d,%d, %d by %d", int32(encoding), x, y, w, h) //nolint:gosec // signed by definition
	}
	for row := y; row < y+h; row++ {
		from := 4 * (row*s.width + x)
		if err := expect(s.in, s.pixels[from:from+4*w]); err != nil {
			return err
		}
	}
	return nil
}

// painted says whether the screen shows more than one colour.
func (s *screen) painted() bool {
	const by = 8
	for i := 0; i+3 < len(s.pixels); i += 4 {
		for c := range 3 {
			if d := int(s.pixels[i+c]) - int(s.pixels[c]); d > by || d < -by {
				return true
			}
		}
	}
	return false
}

// shows says whether the screen shows a provider's sign-in page, known by the
// colour of the band at its top.
func (s *screen) shows(provider idp.Provider) bool {
	const by, rows = 12, 60
	r, g, b := provider.Band()
	near := func(got byte, want uint8) bool { return int(got)-int(want) <= by && int(want)-int(got) <= by }
	run := 0
	for y := range s.height {
		p := s.pixels[4*(y*s.width+s.width/2):]
		if near(p[0], b) && near(p[1], g) && near(p[2], r) {
			if run++; run >= rows {
				return true
			}
			continue
		}
		run = 0
	}
	return false
}

func expect(r io.Reader, into []byte) error {
	if _, err := io.ReadFull(r, into); err != nil {
		return fmt.Errorf("rfb: %w", err)
	}
	return nil
}

func skip(r io.Reader, n int64) error {
	if _, err := io.CopyN(io.Discard, r, n); err != nil {
		return fmt.Errorf("rfb: %w", err)
	}
	return nil
}

// follow keeps the viewer going, as one in a page does, until the connection
// is closed.
func (s *screen) follow() {
	_ = s.until(s.whole(), func() bool { return false })
}
