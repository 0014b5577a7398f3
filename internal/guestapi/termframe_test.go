package guestapi

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestTermFrameRoundTrip(t *testing.T) {
	tests := []struct {
		name    string
		typ     TermFrameType
		payload []byte
	}{
		{"empty data", TermData, nil},
		{"data", TermData, []byte("ls -l\r")},
		{"most data", TermData, bytes.Repeat([]byte{0xff}, MaxTerminalFrame)},
		{"resize", TermResize, EncodeTermSize(120, 40)},
		{"exit", TermExit, EncodeTermExit(-1)},
	}
	var stream bytes.Buffer
	for _, tt := range tests {
		if err := WriteTermFrame(&stream, tt.typ, tt.payload); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
	}
	r := iotest.OneByteReader(&stream) // a frame may arrive in pieces
	buf := make([]byte, 8)
	for _, tt := range tests {
		typ, payload, err := ReadTermFrame(r, buf)
		if err != nil || typ != tt.typ || !bytes.Equal(payload, tt.payload) {
			t.Fatalf("%s: got type %d, %d bytes, %v", tt.name, typ, len(payload), err)
		}
	}
	if _, _, err := ReadTermFrame(r, buf); err != io.EOF {
		t.Fatalf("after the last frame: %v, want io.EOF", err)
	}
}

func TestReadTermFrameRefuses(t *testing.T) {
	tests := []struct {
		name, in string
		want     error
	}{
		{"half a header", "\x00\x00", io.ErrUnexpectedEOF},
		{"no payload", "\x00\x00\x00\x00\x05", io.ErrUnexpectedEOF},
		{"half a payload", "\x00\x00\x00\x00\x05abc", io.ErrUnexpectedEOF},
		{"unknown type", "\x03\x00\x00\x00\x00", ErrTermFrame},
		{"too long", "\x00\x00\x01\x00\x01" + strings.Repeat("x", MaxTerminalFrame+1), ErrTermFrame},
		{"length beyond an int32", "\x00\xff\xff\xff\xff", ErrTermFrame},
		{"short resize", "\x01\x00\x00\x00\x03abc", ErrTermFrame},
		{"long exit", "\x02\x00\x00\x00\x05abcde", ErrTermFrame},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := ReadTermFrame(strings.NewReader(tt.in), nil); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestWriteTermFrameRefuses(t *testing.T) {
	var out bytes.Buffer
	for _, tt := range []struct {
		typ TermFrameType
		n   int
	}{{TermData, MaxTerminalFrame + 1}, {TermResize, 3}, {TermExit, 0}, {TermFrameType(9), 0}} {
		if err := WriteTermFrame(&out, tt.typ, make([]byte, tt.n)); !errors.Is(err, ErrTermFrame) {
			t.Errorf("type %d, %d bytes: %v", tt.typ, tt.n, err)
		}
	}
	if out.Len() != 0 {
		t.Errorf("%d bytes were written", out.Len())
	}
}

func TestTermSize(t *testing.T) {
	cols, rows, err := DecodeTermSize(EncodeTermSize(0, 70000))
	if err != nil || cols != MinTermSize || rows != MaxTermSize {
		t.Errorf("clamped to %d by %d, %v", cols, rows, err)
	}
	for _, bad := range []string{"", "\x00\x50", "\x00\x00\x00\x18", "\x00\x50\xff\xff", "\x00\x50\x00\x18\x00"} {
		if _, _, err := DecodeTermSize([]byte(bad)); !errors.Is(err, ErrTermFrame) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTermExit(t *testing.T) {
	for _, code := range []int32{0, 1, 137, -1} {
		if got, err := DecodeTermExit(EncodeTermExit(code)); err != nil || got != code {
			t.Errorf("%d became %d, %v", code, got, err)
		}
	}
	if _, err := DecodeTermExit([]byte("abc")); !errors.Is(err, ErrTermFrame) {
		t.Errorf("three bytes: %v", err)
	}
}

// FuzzReadTermFrame: whatever a guest sends, a frame that is read obeys the
// limits and is written back as the same bytes.
func FuzzReadTermFrame(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x02hi"))
	f.Add([]byte("\x01\x00\x00\x00\x04\x00\x50\x00\x18"))
	f.Add([]byte("\x02\x00\x00\x00\x04\xff\xff\xff\xff"))
	f.Add([]byte("\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var again bytes.Buffer
		for {
			typ, payload, err := ReadTermFrame(r, nil)
			if err != nil {
				break
			}
			if len(payload) > MaxTerminalFrame {
				t.Fatalf("a payload of %d bytes", len(payload))
			}
			if err := WriteTermFrame(&again, typ, payload); err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
		}
		if !bytes.HasPrefix(in, again.Bytes()) {
			t.Fatal("written back, the frames differ")
		}
	})
}
