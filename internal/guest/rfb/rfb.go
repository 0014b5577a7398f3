// Package rfb sets the size of a VNC server's screen, as a viewer of it does.
package rfb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// The limits of a screen's size (a phone held upright, a 4K screen).
const (
	MinSide   = 320
	MaxWidth  = 3840
	MaxHeight = 2160
)

// Resize sets the size of the screen of the server at the unix socket, within
// the limits, the way a viewer does it (RFC 6143 and the ExtendedDesktopSize
// pseudo-encoding). xrandr offers listed modes only. It returns when the server
// has done it, after 5 s at the latest.
func Resize(ctx context.Context, socket string, width, height int) error {
	width = min(max(width, MinSide), MaxWidth)
	height = min(max(height, MinSide), MaxHeight)
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	was, err := handshake(conn)
	if err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	if was == [2]uint16{uint16(width), uint16(height)} {
		return nil
	}
	const (
		extendedDesktopSize = -308
		setEncodings        = 2
		updateRequest       = 3
		setDesktopSize      = 251
	)
	msg := []byte{setEncodings, 0, 0, 1}
	msg = binary.BigEndian.AppendUint32(msg, 0xffffffff+1+extendedDesktopSize)
	// Not incremental, since only then the layout is sent; one pixel is enough.
	onePixel := []byte{updateRequest, 0, 0, 0, 0, 0, 0, 1, 0, 1}
	msg = append(msg, onePixel...)
	if _, err := conn.Write(msg); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	screen, err := readScreen(conn)
	if err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	msg = []byte{setDesktopSize, 0}
	msg = binary.BigEndian.AppendUint16(msg, uint16(width))
	msg = binary.BigEndian.AppendUint16(msg, uint16(height))
	msg = append(msg, 1, 0) // one screen
	binary.BigEndian.PutUint16(screen[8:], uint16(width))
	binary.BigEndian.PutUint16(screen[10:], uint16(height))
	msg = append(msg, screen...)
	msg = append(msg, onePixel...)
	if _, err := conn.Write(msg); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	// The answer is another ExtendedDesktopSize rectangle, with the result.
	if _, err := readScreen(conn); err != nil {
		return fmt.Errorf("resize: %w", err)
	}
	return nil
}

// handshake speaks RFB 3.8 with security type None and returns the screen's
// size.
func handshake(conn net.Conn) ([2]uint16, error) {
	var size [2]uint16
	buf := make([]byte, 12)
	if _, err := io.ReadFull(conn, buf); err != nil {
		return size, err
	}
	if _, err := conn.Write([]byte("RFB 003.008\n")); err != nil {
		return size, err
	}
	if _, err := io.ReadFull(conn, buf[:1]); err != nil {
		return size, err
	}
	if _, err := io.CopyN(io.Discard, conn, int64(buf[0])); err != nil {
		return size, err
	}
	if _, err := conn.Write([]byte{1}); err != nil { // None
		return size, err
	}
	if _, err := io.ReadFull(conn, buf[:4]); err != nil {
		return size, err
	}
	if binary.BigEndian.Uint32(buf) != 0 {
		return size, errors.New("the X server refused the handshake")
	}
	if _, err := conn.Write([]byte{1}); err != nil { // shared
		return size, err
	}
	init := make([]byte, 24)
	if _, err := io.ReadFull(conn, init); err != nil {
		return size, err
	}
	size = [2]uint16{binary.BigEndian.Uint16(init), binary.BigEndian.Uint16(init[2:])}
	_, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(init[20:])&0xffff))
	return size, err
}

// readScreen waits for a framebuffer update with an ExtendedDesktopSize
// rectangle and returns its first screen (16 bytes). A refusal is an error.
func readScreen(conn net.Conn) ([]byte, error) {
	head := make([]byte, 12)
	for {
		if _, err := io.ReadFull(conn, head[:1]); err != nil {
			return nil, err
		}
		switch head[0] {
		case 0: // FramebufferUpdate
			if _, err := io.ReadFull(conn, head[:3]); err != nil {
				return nil, err
			}
			screen, err := readRectangles(conn, int(binary.BigEndian.Uint16(head[1:])))
			if screen != nil || err != nil {
				return screen, err
			}
		case 2: // Bell
		case 3: // ServerCutText
			if _, err := io.ReadFull(conn, head[:7]); err != nil {
				return nil, err
			}
			if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head[3:]))); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("unexpected message %d", head[0])
		}
	}
}

// readRectangles reads n rectangles, of which it expects raw pixels (skipped)
// and ExtendedDesktopSize (its first screen is returned).
func readRectangles(conn net.Conn, n int) ([]byte, error) {
	var screen []byte
	for range n {
		head := make([]byte, 12)
		if _, err := io.ReadFull(conn, head); err != nil {
			return nil, err
		}
		at := func(i int) int64 { return int64(binary.BigEndian.Uint16(head[2*i:])) }
		switch encoding := int32(binary.BigEndian.Uint32(head[8:])); encoding { //nolint:gosec // RFC 6143: it is signed
		case 0: // raw, 32 bits a pixel
			if _, err := io.CopyN(io.Discard, conn, at(2)*at(3)*4); err != nil {
				return nil, err
			}
		case -308:
			body := make([]byte, 4+16)
			if _, err := io.ReadFull(conn, body); err != nil {
				return nil, err
			}
			if extra := int64(body[0]) - 1; extra > 0 {
				if _, err := io.CopyN(io.Discard, conn, extra*16); err != nil {
					return nil, err
				}
			}
			// The y position carries the result of a request.
			if result := at(1); result != 0 {
				return nil, fmt.Errorf("the X server refused the size: result %d", result)
			}
			screen = body[4:]
		default:
			return nil, fmt.Errorf("unexpected rectangle of encoding %d", encoding)
		}
	}
	return screen, nil
}
