package guestapi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

var inputs = []Input{
	{Type: InputMove, ID: 1, X: 65535, Y: 7},
	{Type: InputButton, ID: 2, X: 3, Y: 4, Button: 9, Down: true},
	{Type: InputButton, ID: 1<<32 - 1, Button: 1},
	{Type: InputWheel, ID: 3, X: 1, Y: 2, DX: MaxWheel, DY: -MaxWheel},
	{Type: InputKey, ID: 4, Keysym: 0x1001f642, Down: true},
	{Type: InputKey, ID: 5, Keysym: 'a'},
	{Type: InputText, ID: 6, Text: "å世🙂"},
	{Type: InputText, ID: 7, Text: strings.Repeat("x", MaxInputText)},
	{Type: InputRelease},
	{Type: ScreenClipboard, Text: strings.Repeat("y", MaxClipboard)},
	{Type: ScreenClipboard},
}

func TestInputRoundTrip(t *testing.T) {
	for _, in := range inputs {
		b := AppendInput([]byte("before"), in)
		got, err := ParseInput(b[6:])
		if err != nil || !reflect.DeepEqual(got, in) {
			t.Errorf("%q: got %+v, %v", in.Type, got, err)
		}
		// It is a frame as well, whose payload it is but for the type.
		var stream bytes.Buffer
		if err := WriteScreenFrame(&stream, in.Type, b[7:]); err != nil {
			t.Errorf("%q: %v", in.Type, err)
		}
		kind, payload, err := ReadScreenFrame(iotest.OneByteReader(&stream), nil)
		if err != nil || kind != in.Type || !bytes.Equal(payload, b[7:]) {
			t.Errorf("%q: a frame %q of %d bytes, %v", in.Type, kind, len(payload), err)
		}
		if in.Type == InputRelease || in.Type == ScreenClipboard || in.Type == InputText {
			continue
		}
		for n := 1; n < len(b)-6; n++ { // all else has one length
			if _, err := ParseInput(b[6:][:n]); !errors.Is(err, ErrScreenFrame) {
				t.Errorf("%q cut to %d bytes: %v", in.Type, n, err)
			}
		}
		if _, err := ParseInput(append(b[6:], 0)); !errors.Is(err, ErrScreenFrame) {
			t.Errorf("%q with one byte more: %v", in.Type, err)
		}
	}
}

func TestParseInputRefuses(t *testing.T) {
	for name, m := range map[string]string{
		"nothing":             "",
		"a type there is not": "z\x00\x00\x00\x01",
		"a frame's type":      "v\x00\x00\x00\x01",
		"button 0":            "d\x00\x00\x00\x01\x00\x00\x00\x00\x00\x01",
		"button 10":           "d\x00\x00\x00\x01\x00\x00\x00\x00\x0a\x01",
		"down twice":          "d\x00\x00\x00\x01\x00\x00\x00\x00\x01\x02",
		"a key down twice":    "y\x00\x00\x00\x01\x00\x00\x00\x61\x02",
		"too much wheel":      "w\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x2e\xe1",
		"too much, backwards": "w\x00\x00\x00\x01\x00\x00\x00\x00\xd1\x1f\x00\x00",
		"no text":             "t\x00\x00\x00\x01",
		"too long a text":     "t\x00\x00\x00\x01" + strings.Repeat("x", MaxInputText+1),
		"text of bytes":       "t\x00\x00\x00\x01\xff",
		"a clipboard of them": "p\xff",
		"too much clipboard":  "p" + strings.Repeat("x", MaxClipboard+1),
		"more than a release": "u\x00",
	} {
		if in, err := ParseInput([]byte(m)); !errors.Is(err, ErrScreenFrame) {
			t.Errorf("%s: %+v, %v", name, in, err)
		}
	}
}

func TestVideoAndCursorRoundTrip(t *testing.T) {
	f := VideoFrame{Keyframe: true, Input: 1<<32 - 1, Time: 1<<64 - 1, Width: 1280, Height: 800, Data: []byte{1, 2, 3}}
	if got, err := ParseVideo(AppendVideo(nil, f)); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("got %+v, %v", got, err)
	}
	f.Data = nil
	if _, err := ParseVideo(AppendVideo(nil, f)); !errors.Is(err, ErrScreenFrame) {
		t.Errorf("a picture without data: %v", err)
	}
	for _, c := range []Cursor{{}, {HotX: 3, HotY: 1, Width: 1, Height: 2, RGBA: []byte("12345678")}} {
		got, err := ParseCursor(AppendCursor(nil, c))
		if err != nil || got.HotX != c.HotX || got.Height != c.Height || !bytes.Equal(got.RGBA, c.RGBA) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	for _, c := range []Cursor{{Width: 1}, {Width: 1, Height: 1, RGBA: []byte("123")}, {Width: 257, Height: 1, RGBA: make([]byte, 4*257)}} {
		if c.Width == 1 && c.Height == 0 {
			c.RGBA = []byte("1234")
		}
		if _, err := ParseCursor(AppendCursor(nil, c)); !errors.Is(err, ErrScreenFrame) {
			t.Errorf("%dx%d, %d bytes: %v", c.Width, c.Height, len(c.RGBA), err)
		}
	}
}

func TestReadScreenFrameRefuses(t *testing.T) {
	frame := func(kind ScreenFrameType, n uint32) string {
		return string(binary.BigEndian.AppendUint32([]byte{byte(kind)}, n))
	}
	for name, tt := range map[string]struct {
		in   string
		want error
	}{
		"nothing":             {"", io.EOF},
		"half a header":       {"v\x00", io.ErrUnexpectedEOF},
		"no payload":          {frame(ScreenVideo, 20), io.ErrUnexpectedEOF},
		"half a payload":      {frame(ScreenVideo, 20) + "abc", io.ErrUnexpectedEOF},
		"a type there is not": {frame('z', 0), ErrScreenFrame},
		"too long a picture":  {frame(ScreenVideo, videoHeaderBytes+MaxVideoFrame+1), ErrScreenFrame},
		"4 GiB":               {frame(ScreenClipboard, 1<<32-1), ErrScreenFrame},
		"a keyframe's wish":   {frame(ScreenKeyframe, 1) + "x", ErrScreenFrame},
	} {
		if _, _, err := ReadScreenFrame(strings.NewReader(tt.in), nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
	}
	var out bytes.Buffer
	if err := WriteScreenFrame(&out, ScreenKeyframe, []byte{0}); !errors.Is(err, ErrScreenFrame) || out.Len() > 0 {
		t.Errorf("%v, %d bytes", err, out.Len())
	}
}

func FuzzParseInput(f *testing.F) {
	for _, in := range inputs {
		if len(in.Text) < 100 {
			f.Add(AppendInput(nil, in))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := ParseInput(b)
		if err != nil {
			if !errors.Is(err, ErrScreenFrame) {
				t.Fatal(err)
			}
			return
		}
		if again := AppendInput(nil, in); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzReadScreenFrame(f *testing.F) {
	f.Add([]byte("k\x00\x00\x00\x00b\x00\x00\x00\x04\x00\x00\x10\x00"))
	f.Add([]byte("v\x00\x40\x00\x00abc"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		var buf []byte
		var again bytes.Buffer
		for {
			kind, payload, err := ReadScreenFrame(r, buf)
			if err != nil {
				break
			}
			buf = payload
			if err := WriteScreenFrame(&again, kind, payload); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(b, again.Bytes()) {
			t.Fatalf("%x became %x", b, again.Bytes())
		}
	})
}

func FuzzParseVideo(f *testing.F) {
	f.Add(AppendVideo(nil, VideoFrame{Keyframe: true, Width: 2, Height: 2, Data: []byte("abc")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ParseVideo(b)
		if err != nil {
			return
		}
		if again := AppendVideo(nil, v); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	f.Add(AppendCursor(nil, Cursor{HotX: 1, Width: 1, Height: 1, RGBA: []byte("abcd")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCursor(b)
		if err != nil {
			return
		}
		if again := AppendCursor(nil, c); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
