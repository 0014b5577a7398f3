package rtc

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// written are the types of frames that a machine was sent, and when.
type written struct {
	types []guestapi.ScreenFrameType
	at    []time.Duration
	began time.Time
}

func (w *written) Write(p []byte) (int, error) {
	w.types = append(w.types, guestapi.ScreenFrameType(p[0]))
	w.at = append(w.at, time.Since(w.began))
	return len(p), nil
}

// However often a keyframe is asked for, the machine hears of it no more often
// than the floor, and always once more after the last.
func TestKeyframeFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &written{began: time.Now()}
		asked := 0
		g := newToGuest(w, func() { asked++ })
		done := make(chan struct{})
		go func() { defer close(done); _ = g.run() }()
		for range 120 { // for 1.2 s
			g.keyframe()
			time.Sleep(10 * time.Millisecond) // of the fake clock
		}
		time.Sleep(time.Minute) // of the fake clock
		synctest.Wait()
		g.keyframe()
		synctest.Wait()
		g.finish()
		<-done
		want := []time.Duration{0, keyframeFloor, 2 * keyframeFloor, 3 * keyframeFloor, time.Minute + 1200*time.Millisecond}
		if !slices.Equal(w.at, want) || asked != len(want) {
			t.Errorf("it was asked at %v, want %v", w.at, want)
		}
	})
}

func TestToGuestOrder(t *testing.T) {
	w := &written{began: time.Now()}
	g := newToGuest(w, func() {})
	move := guestapi.Input{Type: guestapi.InputMove}
	key := guestapi.Input{Type: guestapi.InputKey, Down: true}
	do := func(in guestapi.Input) {
		t.Helper()
		if err := g.input(in, true); err != nil {
			t.Fatal(err)
		}
	}
	do(key) // does not control yet
	g.want(100, 100)
	g.control(true)
	do(move)
	do(move) // takes the place of the one before
	do(key)
	do(move)
	g.bitrate(1)
	g.bitrate(2)
	g.want(200, 200)
	g.finish()
	if err := g.run(); err != nil {
		t.Fatal(err)
	}
	if want := "mymrb"; string(bytesOf(w.types)) != want {
		t.Errorf("%s, want %s", bytesOf(w.types), want)
	}
}

// Only what came in order says that all before it was handed on.
func TestToGuestCounts(t *testing.T) {
	g := newToGuest(&written{}, func() {})
	g.control(true)
	for _, in := range []struct {
		guestapi.Input
		ordered bool
	}{
		{guestapi.Input{Type: guestapi.InputKey, ID: 3}, true},
		{guestapi.Input{Type: guestapi.InputMove, ID: 5}, true},
		{guestapi.Input{Type: guestapi.ScreenClipboard, Text: "x"}, true},
		{guestapi.Input{Type: guestapi.InputMove, ID: 9}, false},
	} {
		if err := g.input(in.Input, in.ordered); err != nil {
			t.Fatal(err)
		}
	}
	if n := g.lastHanded(); n != 0 {
		t.Errorf("%d is handed on before anything is written", n)
	}
	g.finish()
	if err := g.input(guestapi.Input{Type: guestapi.InputKey, ID: 10}, true); err != nil {
		t.Fatal(err)
	}
	if err := g.run(); err != nil {
		t.Fatal(err)
	}
	if n := g.lastHanded(); n != 5 {
		t.Errorf("%d was handed on", n)
	}
}

// Who loses control lets go of everything; what waited is not done any more.
func TestToGuestReleases(t *testing.T) {
	w := &written{began: time.Now()}
	g := newToGuest(w, func() {})
	g.control(true)
	for i := 0; ; i++ {
		err := g.input(guestapi.Input{Type: guestapi.InputKey, ID: 7, Down: true}, true)
		if err == nil && i < maxWaiting {
			continue
		}
		if !errors.Is(err, errStalled) || i != maxWaiting {
			t.Fatalf("%v after %d", err, i)
		}
		break
	}
	g.control(false)
	g.control(false)
	g.finish()
	if err := g.run(); err != nil {
		t.Fatal(err)
	}
	if string(bytesOf(w.types)) != "u" || g.lastHanded() != 0 {
		t.Errorf("%s, and %d was handed on", bytesOf(w.types), g.lastHanded())
	}
}

func bytesOf(types []guestapi.ScreenFrameType) []byte {
	var out []byte
	for _, t := range types {
		out = append(out, byte(t))
	}
	return out
}

// The queue of pictures stays short, and goes on with a keyframe.
func TestFrames(t *testing.T) {
	q := newFrames()
	push := func(key bool, size int, wantDropped int, wantAsk bool) {
		t.Helper()
		if dropped, ask := q.push(guestapi.VideoFrame{Keyframe: key, Data: make([]byte, size)}); dropped != wantDropped || ask != wantAsk {
			t.Fatalf("%d were dropped, ask is %v; want %d, %v", dropped, ask, wantDropped, wantAsk)
		}
	}
	push(true, 1, 0, false) // nobody is there
	q.start()
	push(false, 1, 1, true)
	push(true, guestapi.MaxVideoFrame, 0, false) // one alone may be long
	push(false, 1, 2, true)                      // not behind it
	push(false, 1, 1, true)
	push(true, 1, 0, false)
	for range maxFrames - 1 {
		push(false, 1, 0, false)
	}
	push(true, 1, maxFrames, false)
	if f, ok := q.pop(); !ok || !f.Keyframe {
		t.Error("no keyframe")
	}
	if _, ok := q.pop(); ok || q.bytes != 0 {
		t.Error("something is left")
	}
}
