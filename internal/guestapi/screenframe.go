package guestapi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// A screen stream (PathScreen) is a sequence of frames in each direction: one
// byte of type, four bytes of payload length (big-endian), the payload. All
// numbers in payloads are big-endian. One stream serves one viewer and has an
// encoder of its own.

// ScreenFrameType says what a frame of a screen stream carries.
type ScreenFrameType byte

// The types of frames from the guest.
const (
	ScreenVideo  ScreenFrameType = 'v' // a VideoFrame
	ScreenCursor ScreenFrameType = 'c' // a Cursor
)

// The types of frames to the guest, beside those of Input.
const (
	ScreenKeyframe ScreenFrameType = 'k' // the next frame is a keyframe; no payload
	ScreenBitrate  ScreenFrameType = 'b' // the encoder's target from now on, bits per second in four bytes
	ScreenResize   ScreenFrameType = 'r' // width and height that are wanted, two bytes each
)

// ScreenClipboard is text of a clipboard, UTF-8: from the guest what was copied
// in it, to the guest what the person's own clipboard holds.
const ScreenClipboard ScreenFrameType = 'p'

// The types of input. As frames to the guest, and as messages of the viewer,
// which are the type followed by the payload.
const (
	InputMove    ScreenFrameType = 'm' // the pointer, without a button's change
	InputButton  ScreenFrameType = 'd' // a button goes down or up, where it does
	InputWheel   ScreenFrameType = 'w'
	InputKey     ScreenFrameType = 'y' // a key goes down or up, by its X keysym
	InputText    ScreenFrameType = 't' // composed text: of an input method, of a soft keyboard
	InputRelease ScreenFrameType = 'u' // every key and button that is down goes up; no payload
)

// Limits of a screen stream.
const (
	MaxVideoFrame = 4 << 20   // bytes of an encoded frame
	MaxCursorSide = 128       // pixels; browsers show no larger one
	MaxInputText  = 4 << 10   // bytes of one message
	MaxWheel      = 120 * 100 // 120 are one notch

	// MaxScreenMessage is what one message of a data channel may be: a browser
	// takes no longer one. What goes to viewers as one is made to fit.
	MaxScreenMessage = 256 << 10
	MaxClipboard     = MaxScreenMessage - 1 // bytes; the other is the type
)

// A cursor fits into a message; this does not compile otherwise.
const _ = uint(MaxScreenMessage - (1 + 8 + 4*MaxCursorSide*MaxCursorSide))

const screenHeaderBytes = 5

// ErrScreenFrame says that a frame or a message breaks the rules of this file.
var ErrScreenFrame = errors.New("guestapi: not a frame of a screen")

// VideoFrame is one encoded picture of the screen.
type VideoFrame struct {
	Keyframe bool
	// Input is the ID of the newest input that had been given to the X server
	// when the picture was taken.
	Input uint32
	// Time is when the picture was taken, in microseconds of a clock of the
	// guest's that only goes forward.
	Time          uint64
	Width, Height uint16
	Data          []byte
}

const videoHeaderBytes = 17

// AppendVideo appends the payload of a ScreenVideo.
func AppendVideo(b []byte, f VideoFrame) []byte {
	flags := byte(0)
	if f.Keyframe {
		flags = 1
	}
	b = append(b, flags)
	b = binary.BigEndian.AppendUint32(b, f.Input)
	b = binary.BigEndian.AppendUint64(b, f.Time)
	b = binary.BigEndian.AppendUint16(b, f.Width)
	b = binary.BigEndian.AppendUint16(b, f.Height)
	return append(b, f.Data...)
}

// ParseVideo reads the payload of a ScreenVideo, of which Data is a part.
func ParseVideo(b []byte) (VideoFrame, error) {
	if len(b) <= videoHeaderBytes || b[0] > 1 {
		return VideoFrame{}, fmt.Errorf("%w: a picture of %d bytes", ErrScreenFrame, len(b))
	}
	return VideoFrame{
		Keyframe: b[0] == 1,
		Input:    binary.BigEndian.Uint32(b[1:]),
		Time:     binary.BigEndian.Uint64(b[5:]),
		Width:    binary.BigEndian.Uint16(b[13:]),
		Height:   binary.BigEndian.Uint16(b[15:]),
		Data:     b[videoHeaderBytes:],
	}, nil
}

// Cursor is the pointer's picture, which is not in the video. Without width and
// height there is none to be shown.
type Cursor struct {
	HotX, HotY, Width, Height uint16
	RGBA                      []byte // not premultiplied
}

// AppendCursor appends the payload of a ScreenCursor.
func AppendCursor(b []byte, c Cursor) []byte {
	for _, v := range [...]uint16{c.HotX, c.HotY, c.Width, c.Height} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	return append(b, c.RGBA...)
}

// ParseCursor reads the payload of a ScreenCursor, of which RGBA is a part.
func ParseCursor(b []byte) (Cursor, error) {
	if len(b) < 8 {
		return Cursor{}, fmt.Errorf("%w: a cursor of %d bytes", ErrScreenFrame, len(b))
	}
	c := Cursor{
		HotX: binary.BigEndian.Uint16(b), HotY: binary.BigEndian.Uint16(b[2:]),
		Width: binary.BigEndian.Uint16(b[4:]), Height: binary.BigEndian.Uint16(b[6:]),
		RGBA: b[8:],
	}
	if c.Width > MaxCursorSide || c.Height > MaxCursorSide || len(c.RGBA) != 4*int(c.Width)*int(c.Height) {
		return Cursor{}, fmt.Errorf("%w: a cursor of %dx%d in %d bytes", ErrScreenFrame, c.Width, c.Height, len(b))
	}
	return c, nil
}

// Input is what a viewer does. Which fields count is its Type's matter; all
// but InputRelease and ScreenClipboard have an ID.
type Input struct {
	Type   ScreenFrameType
	ID     uint32 // counts up in each viewer
	X, Y   uint16 // pixels of the screen; of InputMove, InputButton and InputWheel
	Button uint8  // as X counts them: 1 left, 2 middle, 3 right, 8 back, 9 forward
	Down   bool   // of InputButton and InputKey
	DX, DY int16  // of InputWheel: right and down, 120 for a notch
	Keysym uint32 // of InputKey
	Text   string // of InputText and ScreenClipboard
}

// AppendInput appends a message: the type and the payload. What ParseInput
// would refuse is the caller's mistake.
func AppendInput(b []byte, in Input) []byte {
	b = append(b, byte(in.Type))
	switch in.Type {
	case InputRelease:
		return b
	case ScreenClipboard:
		return append(b, in.Text...)
	}
	b = binary.BigEndian.AppendUint32(b, in.ID)
	switch in.Type {
	case InputMove, InputButton, InputWheel:
		b = binary.BigEndian.AppendUint16(b, in.X)
		b = binary.BigEndian.AppendUint16(b, in.Y)
	case InputKey:
		b = binary.BigEndian.AppendUint32(b, in.Keysym)
	case InputText:
		b = append(b, in.Text...)
	}
	down := byte(0)
	if in.Down {
		down = 1
	}
	switch in.Type {
	case InputButton:
		b = append(b, in.Button, down)
	case InputWheel:
		b = binary.BigEndian.AppendUint16(b, uint16(in.DX)) //nolint:gosec // its bits
		b = binary.BigEndian.AppendUint16(b, uint16(in.DY)) //nolint:gosec // its bits
	case InputKey:
		b = append(b, down)
	}
	return b
}

// ParseInput reads a message of AppendInput. Anything else is ErrScreenFrame.
func ParseInput(b []byte) (Input, error) {
	bad := fmt.Errorf("%w: input of %d bytes", ErrScreenFrame, len(b))
	if len(b) == 0 {
		return Input{}, bad
	}
	in := Input{Type: ScreenFrameType(b[0])}
	b = b[1:]
	switch in.Type {
	case InputRelease:
		if len(b) != 0 {
			return Input{}, bad
		}
		return in, nil
	case ScreenClipboard:
		if len(b) > MaxClipboard || !utf8.Valid(b) {
			return Input{}, bad
		}
		in.Text = string(b)
		return in, nil
	}
	if len(b) < 4 {
		return Input{}, bad
	}
	in.ID, b = binary.BigEndian.Uint32(b), b[4:]
	switch {
	case in.Type == InputMove && len(b) == 4, in.Type == InputButton && len(b) == 6, in.Type == InputWheel && len(b) == 8:
		in.X, in.Y, b = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), b[4:]
	case in.Type == InputKey && len(b) == 5:
		in.Keysym, b = binary.BigEndian.Uint32(b), b[4:]
	case in.Type == InputText && len(b) > 0 && len(b) <= MaxInputText && utf8.Valid(b):
		in.Text = string(b)
		return in, nil
	default:
		return Input{}, bad
	}
	switch in.Type {
	case InputButton:
		in.Button, in.Down = b[0], b[1] == 1
		if in.Button == 0 || in.Button > 9 || b[1] > 1 {
			return Input{}, bad
		}
	case InputWheel:
		in.DX, in.DY = int16(binary.BigEndian.Uint16(b)), int16(binary.BigEndian.Uint16(b[2:])) //nolint:gosec // its bits
		if max(in.DX, in.DY) > MaxWheel || min(in.DX, in.DY) < -MaxWheel {
			return Input{}, bad
		}
	case InputKey:
		in.Down = b[0] == 1
		if b[0] > 1 {
			return Input{}, bad
		}
	}
	return in, nil
}

// maxScreenPayload is the limit of a frame's payload, in the direction in which
// it is longest; -1 of a type that there is not.
func maxScreenPayload(t ScreenFrameType) int {
	switch t {
	case ScreenVideo:
		return videoHeaderBytes + MaxVideoFrame
	case ScreenCursor:
		return 8 + 4*MaxCursorSide*MaxCursorSide
	case ScreenClipboard:
		return MaxClipboard
	case ScreenKeyframe, InputRelease:
		return 0
	case ScreenBitrate, ScreenResize:
		return 4
	case InputMove, InputButton, InputWheel, InputKey:
		return 12
	case InputText:
		return 4 + MaxInputText
	}
	return -1
}

// WriteScreenFrame writes one frame with a single Write, so that frames of
// several writers need only a lock around this call. A payload that is too long
// for its type is ErrScreenFrame and nothing is written.
func WriteScreenFrame(w io.Writer, t ScreenFrameType, payload []byte) error {
	if limit := maxScreenPayload(t); len(payload) > limit {
		return fmt.Errorf("%w: type %q with %d bytes", ErrScreenFrame, t, len(payload))
	}
	b := make([]byte, screenHeaderBytes, screenHeaderBytes+len(payload))
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload))) //nolint:gosec // at most MaxVideoFrame and its header
	_, err := w.Write(append(b, payload...))
	return err
}

// ReadScreenFrame reads one frame into buf, growing it if it has to, and returns
// the payload, which is good until buf is used again. The stream's end between
// two frames is io.EOF, inside of one io.ErrUnexpectedEOF. No more is ever held
// than the limit of the frame's type, whatever the header says.
func ReadScreenFrame(r io.Reader, buf []byte) (ScreenFrameType, []byte, error) {
	var h [screenHeaderBytes]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	t, n := ScreenFrameType(h[0]), binary.BigEndian.Uint32(h[1:])
	if limit := maxScreenPayload(t); limit < 0 || int64(n) > int64(limit) {
		return 0, nil, fmt.Errorf("%w: type %q with %d bytes", ErrScreenFrame, t, n)
	}
	if cap(buf) < int(n) {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r, buf); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, buf, nil
}
