//go:build linux && cgo

package screen

import (
	"encoding/binary"
	"image"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guest/rfb"
	"github.com/anteroom/anteroom/internal/guestapi"
)

// blocks are rectangles at odd places, of many sizes, none over another, and
// their colours.
func blocks() map[image.Rectangle]uint32 {
	out := map[image.Rectangle]uint32{}
	colours := []uint32{0xff0000, 0x00ff00, 0x0000ff, 0xffffff, 0x000000, 0x33aa77, 0xc08040, 0x123456}
	for i := range 40 {
		x, y := i%8*157+i%3, i/8*159+i%5
		out[image.Rect(x, y, x+23+2*i, y+21+2*i)] = colours[i%len(colours)]
	}
	return out
}

func middle(r image.Rectangle) image.Point { return r.Min.Add(r.Size().Div(2)) }

func TestPicturesAreWhatWasDrawn(t *testing.T) {
	x := startXvnc(t)
	c := x.client(t, 0)
	v := x.attach(t)
	v.until("the first picture", func() bool { return len(v.frames) > 0 })
	if !v.frames[0].Keyframe || v.frames[0].Width != 1280 || v.frames[0].Height != 800 {
		t.Errorf("the first frame: %+v", v.frames[0])
	}
	for r, rgb := range blocks() {
		c.fill(r, rgb)
		v.until("a block", func() bool { return v.shows(middle(r), rgb) })
	}
	// Sharp after a while, all of it: the edges of the blocks too.
	n, keyframes := v.count()
	if keyframes != 1 || n < 40 {
		t.Errorf("%d keyframes among %d frames", keyframes, n)
	}
	v.until("sharp edges", func() bool {
		for r, rgb := range blocks() {
			in := r.Inset(4) // colours have half the resolution
			for _, at := range []image.Point{in.Min, {in.Max.X - 1, in.Min.Y}, {in.Min.X, in.Max.Y - 1}, in.Max.Sub(image.Pt(1, 1))} {
				if !v.shows(at, rgb) {
					return false
				}
			}
		}
		return true
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	if !slices.IsSortedFunc(v.frames, func(a, b guestapi.VideoFrame) int { return int(int64(a.Time) - int64(b.Time)) }) {
		t.Error("time goes backwards")
	}
	var gap uint64 = 1 << 40
	for i := range v.frames[1:] {
		gap = min(gap, v.frames[i+1].Time-v.frames[i].Time)
	}
	if gap < uint64(framePause.Microseconds())-1 {
		t.Errorf("two pictures within %d µs", gap)
	}
}

func cpu(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// quiet waits until no frame has come for half a second.
func (v *viewer) quiet() int {
	v.t.Helper()
	for limit := time.Now().Add(limit); ; {
		before, _ := v.count()
		<-time.After(500 * time.Millisecond)
		if after, _ := v.count(); after == before {
			return after
		}
		if time.Now().After(limit) {
			v.t.Fatal("pictures of nothing")
		}
	}
}

func TestNothingIsSentWhileNothingChanges(t *testing.T) {
	x := startXvnc(t)
	c := x.client(t, 0)
	v := x.attach(t)
	v.until("the first picture", func() bool { return len(v.frames) > 0 })
	before := v.quiet()
	began := cpu(t)
	<-time.After(3 * time.Second)
	used := cpu(t) - began
	if after, _ := v.count(); after != before {
		t.Errorf("%d frames", after-before)
	}
	t.Logf("CPU time of 3 s: %v, the test's included", used)
	// A keyframe is there at once, and only that.
	asked := time.Now()
	v.send(guestapi.ScreenKeyframe, nil)
	v.until("a keyframe", func() bool { return len(v.frames) > before && v.frames[before].Keyframe })
	t.Logf("a keyframe after %v", time.Since(asked))
	v.quiet()
	if _, keyframes := v.count(); keyframes != 2 {
		t.Errorf("%d keyframes", keyframes)
	}
	// So is what an input has done, with the input's number.
	drawn := time.Now()
	v.input(guestapi.Input{Type: guestapi.InputMove, ID: 77, X: 5, Y: 5})
	<-time.After(50 * time.Millisecond)
	c.fill(image.Rect(100, 100, 200, 200), 0xff00ff)
	v.until("the block", func() bool { return v.shows(image.Pt(150, 150), 0xff00ff) && v.frames[len(v.frames)-1].Input == 77 })
	t.Logf("a change after %v", time.Since(drawn)-50*time.Millisecond)
}

func TestSizesChange(t *testing.T) {
	x := startXvnc(t)
	c := x.client(t, 0)
	v := x.attach(t)
	v.until("the first picture", func() bool { return len(v.frames) > 0 })
	is := func(w, h int) func() bool {
		return func() bool {
			f := v.frames[len(v.frames)-1]
			return int(f.Width) == w && int(f.Height) == h && v.shows(image.Pt(w-1, h-1), 0x3366cc) && v.shows(image.Pt(1, 1), 0x3366cc)
		}
	}
	c.fill(image.Rect(0, 0, rfb.MaxWidth, rfb.MaxHeight), 0x3366cc)
	for _, size := range []image.Point{{1000, 700}, {390, 844}, {1921, 1081}, {320, 320}, {3840, 2160}} {
		v.resize(size.X, size.Y)
		v.until(size.String(), func() bool { return len(v.frames) > 0 && int(v.frames[len(v.frames)-1].Width) == size.X&^1 })
		c.fill(image.Rect(0, 0, rfb.MaxWidth, rfb.MaxHeight), 0x3366cc)
		v.until(size.String(), is(size.X&^1, size.Y&^1))
	}
	// Others may make it odd.
	if err := rfb.Resize(t.Context(), x.socket, 1001, 701); err != nil {
		t.Fatal(err)
	}
	v.until("an even picture", func() bool { return v.frames[len(v.frames)-1].Width == 1002 })
	c.fill(image.Rect(0, 0, rfb.MaxWidth, rfb.MaxHeight), 0x3366cc)
	v.until("an even picture", is(1002, 702))
	if n, keyframes := v.count(); keyframes != 7 {
		t.Errorf("%d keyframes among %d frames", keyframes, n)
	}
}

// Where a picture cannot be small enough there are fewer of them: what is sent
// stays at the target.
func TestBitrate(t *testing.T) {
	const target = 2_000_000
	x := startXvnc(t)
	c := x.client(t, 0)
	v := x.attach(t)
	v.until("the first picture", func() bool { return len(v.frames) > 0 })
	v.send(guestapi.ScreenBitrate, binary.BigEndian.AppendUint32(nil, target))
	for i := range 80 {
		for j := range 60 {
			c.fill(image.Rect(j%10*128, j/10*128, j%10*128+128, j/10*128+128), uint32((i*31+j*17)*0x010305)&0xffffff)
		}
		n, _ := v.count()
		v.until("a picture", func() bool { return len(v.frames) > n || i < 2 })
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	bytes, last := 0, v.frames[len(v.frames)/2:]
	for _, f := range last[1:] {
		bytes += len(f.Data)
	}
	seconds := float64(last[len(last)-1].Time-last[0].Time) / 1e6
	got := float64(bytes) * 8 / seconds
	t.Logf("%d pictures in %.1f s: %.0f kbit/s", len(last), seconds, got/1000)
	if got > target*1.5 {
		t.Errorf("%.0f bit/s, the target is %d", got, target)
	}
}
