//go:build cgo

package vp8_test

import (
	"fmt"
	"image"
	"image/color"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/screen/vp8"
	"github.com/anteroom/anteroom/internal/screen/vp8/vp8test"
)

func newEncoder(t testing.TB, w, h, speed int) *vp8.Encoder {
	t.Helper()
	e, err := vp8.NewEncoder(vp8.Config{Width: w, Height: h, Speed: speed, StaticThreshold: 100, Bitrate: 4_000_000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func plain(w, h int, c color.RGBA) []byte {
	return slices.Repeat([]byte{c.B, c.G, c.R, 0}, w*h)
}

// The last column and row of an odd picture are in it twice.
func TestOddSizes(t *testing.T) {
	for _, size := range []image.Point{{64, 48}, {65, 48}, {64, 49}, {33, 31}, {16, 16}} {
		e := newEncoder(t, size.X, size.Y, 8)
		d, err := vp8test.New()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		want := color.RGBA{200, 40, 90, 255}
		if err := e.Convert(plain(size.X, size.Y, want), image.Rectangle{Max: size}); err != nil {
			t.Fatal(err)
		}
		f, err := e.Encode(vp8.Params{Keyframe: true, MaxQuantizer: 2, Bitrate: 4_000_000, Duration: 16667})
		if err != nil || !f.Keyframe {
			t.Fatalf("%v: %v", size, err)
		}
		got, err := d.Decode(f.Data)
		if err != nil {
			t.Fatal(err)
		}
		w, h := e.Size()
		if got.Bounds().Max != image.Pt(w, h) || w&1 != 0 || h&1 != 0 || w-size.X > 1 || h-size.Y > 1 {
			t.Errorf("%v became %v", size, got.Bounds())
		}
		for y := range h {
			for x := range w {
				c := got.RGBAAt(x, y)
				if d := max(int(c.R)-int(want.R), int(want.R)-int(c.R), int(c.G)-int(want.G), int(want.G)-int(c.G), int(c.B)-int(want.B), int(want.B)-int(c.B)); d > 6 {
					t.Fatalf("%v: %v at %d, %d", size, c, x, y)
				}
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []vp8.Config{{}, {Width: 15, Height: 100}, {Width: 100, Height: 20000}} {
		if e, err := vp8.NewEncoder(c); err == nil {
			e.Close()
			t.Errorf("%+v was taken", c)
		}
	}
	e := newEncoder(t, 101, 51, 8)
	for _, r := range []image.Rectangle{{}, image.Rect(1, 0, 10, 10), image.Rect(0, 0, 9, 10), image.Rect(0, 0, 102, 10), image.Rect(-2, 0, 10, 10)} {
		if e.Convert(make([]byte, 101*51*4), r) == nil {
			t.Errorf("%v was taken", r)
		}
	}
	if e.Convert(make([]byte, 399), image.Rect(0, 0, 10, 10)) == nil {
		t.Error("too few bytes were taken")
	}
	if _, err := e.Encode(vp8.Params{Active: make([]byte, 3), Duration: 1, Bitrate: 1, MaxQuantizer: 60}); err == nil {
		t.Error("a map of another size was taken")
	}
}

// page is like text: dark strokes on white, with pictures in colour between.
func page(w, h int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	out := plain(w, h, color.RGBA{250, 250, 250, 255})
	rect := func(x, y, dx, dy int, c [3]byte) {
		for j := y; j < min(y+dy, h); j++ {
			for i := x; i < min(x+dx, w); i++ {
				copy(out[4*(j*w+i):], c[:])
			}
		}
	}
	for y := 8; y < h; y += 18 {
		for x := 10; x < w-20; x += 3 + r.IntN(6) {
			rect(x, y+r.IntN(4), 1+r.IntN(2), 4+r.IntN(8), [3]byte{40, 30, 20})
		}
	}
	for range 12 {
		rect(r.IntN(w), r.IntN(h), 60+r.IntN(120), 40+r.IntN(80), [3]byte{byte(r.IntN(256)), byte(r.IntN(256)), byte(r.IntN(256))})
	}
	return out
}

// Encoding a page of 1280x800 that scrolls by 7 pixels for each picture, and
// one whose only change is of 200x40 pixels.
func BenchmarkEncode(b *testing.B) {
	const w, h = 1280, 800
	tall := page(w, 2*h)
	for _, speed := range []int{4, 6, 8, 10, 12, 14, 16} {
		for _, small := range []bool{false, true} {
			b.Run(fmt.Sprintf("speed=%d/small=%v", speed, small), func(b *testing.B) {
				e := newEncoder(b, w, h, speed)
				columns, rows := e.Blocks()
				active := make([]byte, columns*rows)
				var convert, encode []time.Duration
				bytes, q := 0, 0
				for i := 0; b.Loop(); i++ {
					at := i * 7 % h * w * 4
					r := image.Rect(0, 0, w, h)
					if small && i > 0 {
						r = image.Rect(400, 400, 600, 440)
						clear(active)
						for y := 25; y < 28; y++ {
							for x := 25; x < 38; x++ {
								active[y*columns+x] = 1
							}
						}
					} else {
						for j := range active {
							active[j] = 1
						}
					}
					t0 := time.Now()
					if err := e.Convert(tall[at:], r); err != nil {
						b.Fatal(err)
					}
					t1 := time.Now()
					f, err := e.Encode(vp8.Params{Keyframe: i == 0, Active: active, MaxQuantizer: vp8.MaxQuantizer, Bitrate: 8_000_000, Duration: 16667})
					if err != nil {
						b.Fatal(err)
					}
					convert, encode = append(convert, t1.Sub(t0)), append(encode, time.Since(t1))
					bytes += len(f.Data)
					q += f.Quantizer
				}
				slices.Sort(convert)
				slices.Sort(encode)
				ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
				b.ReportMetric(ms(convert[len(convert)/2]), "ms-convert-p50")
				b.ReportMetric(ms(encode[len(encode)/2]), "ms-encode-p50")
				b.ReportMetric(ms(encode[len(encode)*95/100]), "ms-encode-p95")
				b.ReportMetric(float64(bytes)/float64(len(encode)), "B/frame")
				b.ReportMetric(float64(q)/float64(len(encode)), "quantizer")
			})
		}
	}
}
