package guestapi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A terminal stream is a sequence of frames in each direction: one byte of
// type, four bytes of payload length (big-endian), the payload.

// TermFrameType says what a frame of a terminal stream carries.
type TermFrameType byte

// The types of frames. The numbers are sent.
const (
	TermData   TermFrameType = 0 // the terminal's bytes; both directions
	TermResize TermFrameType = 1 // columns and rows, two bytes each; to the guest
	TermExit   TermFrameType = 2 // the shell's exit code, four bytes; from the guest, its last frame
)

const termHeaderBytes = 5

// Bounds of a terminal's size.
const (
	MinTermSize = 1
	MaxTermSize = 1000
)

// ErrTermFrame says that a frame breaks the rules above; the stream cannot be
// read any further.
var ErrTermFrame = errors.New("guestapi: not a terminal frame")

// WriteTermFrame writes one frame with a single Write, so that frames of
// several writers need only a lock around this call. A payload longer than
// MaxTerminalFrame is ErrTermFrame and nothing is written.
func WriteTermFrame(w io.Writer, t TermFrameType, payload []byte) error {
	if err := checkTermFrame(t, len(payload)); err != nil {
		return err
	}
	b := make([]byte, termHeaderBytes+len(payload))
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload))) //nolint:gosec // at most MaxTerminalFrame
	copy(b[termHeaderBytes:], payload)
	_, err := w.Write(b)
	return err
}

// ReadTermFrame reads one frame into buf, growing it if it has to, and returns
// the payload, which is good until buf is used again. The stream's end between
// two frames is io.EOF, inside of one io.ErrUnexpectedEOF. No more than
// MaxTerminalFrame bytes are ever held, whatever the header says.
func ReadTermFrame(r io.Reader, buf []byte) (TermFrameType, []byte, error) {
	var h [termHeaderBytes]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	t := TermFrameType(h[0])
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxTerminalFrame {
		return 0, nil, fmt.Errorf("%w: a payload of %d bytes", ErrTermFrame, n)
	}
	if err := checkTermFrame(t, int(n)); err != nil {
		return 0, nil, err
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, buf, nil
}

// checkTermFrame says whether a frame of type t may have n bytes of payload.
func checkTermFrame(t TermFrameType, n int) error {
	ok := false
	switch t {
	case TermData:
		ok = n <= MaxTerminalFrame
	case TermResize, TermExit:
		ok = n == 4
	}
	if !ok {
		return fmt.Errorf("%w: type %d with %d bytes", ErrTermFrame, t, n)
	}
	return nil
}

// EncodeTermSize is the payload of a TermResize frame. Sizes outside of the
// bounds are brought to the nearest one.
func EncodeTermSize(cols, rows int) []byte {
	b := make([]byte, 4)
	binary.BigEndian.PutUint16(b, clampTermSize(cols))
	binary.BigEndian.PutUint16(b[2:], clampTermSize(rows))
	return b
}

func clampTermSize(n int) uint16 {
	return uint16(min(max(n, MinTermSize), MaxTermSize))
}

// DecodeTermSize reads the payload of a TermResize frame; a size outside of
// the bounds is ErrTermFrame.
func DecodeTermSize(payload []byte) (cols, rows int, err error) {
	if len(payload) != 4 {
		return 0, 0, fmt.Errorf("%w: a size of %d bytes", ErrTermFrame, len(payload))
	}
	cols = int(binary.BigEndian.Uint16(payload))
	rows = int(binary.BigEndian.Uint16(payload[2:]))
	if cols < MinTermSize || cols > MaxTermSize || rows < MinTermSize || rows > MaxTermSize {
		return 0, 0, fmt.Errorf("%w: a size of %d by %d", ErrTermFrame, cols, rows)
	}
	return cols, rows, nil
}

// EncodeTermExit is the payload of a TermExit frame.
func EncodeTermExit(code int32) []byte {
	return binary.BigEndian.AppendUint32(nil, uint32(code)) //nolint:gosec // two's complement both ways
}

// DecodeTermExit reads the payload of a TermExit frame.
func DecodeTermExit(payload []byte) (int32, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("%w: an exit code of %d bytes", ErrTermFrame, len(payload))
	}
	return int32(binary.BigEndian.Uint32(payload)), nil //nolint:gosec // two's complement both ways
}
