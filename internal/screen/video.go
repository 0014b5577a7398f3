//go:build linux && cgo

package screen

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"sync/atomic"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/damage"
	"github.com/jezek/xgb/xproto"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/screen/vp8"
)

// video sends pictures of the screen as it changes. Without a change, a wish
// for a keyframe or blocks that are to be made sharper it sleeps. run owns all
// but the channels and the atomics.
type video struct {
	x       *server
	cfg     Config
	out     *output
	capture *capture
	encoder *vp8.Encoder
	began   time.Time

	given    atomic.Uint32 // the ID of the newest input that the X server was given
	givenAt  atomic.Int64  // when, in nanoseconds since began
	bitrate  atomic.Int64
	changed  chan struct{} // has one after a change of the screen
	resized  chan struct{} // has one after a change of its size
	keyframe chan struct{} // has one while a keyframe is wanted

	dirty, whole, key bool      // what the next picture is for
	last              time.Time // when the last one was taken
	lastChange        time.Time // when the last one with a change was
	active            []byte    // the macroblocks that have changed in this picture
	soft              []byte    // those that were last coded with a coarse quantizer
	anySoft           bool
	failures          int           // to take a picture, one after the other
	blockBytes        int           // that a block takes to be made sharp, about
	debt              time.Duration // how long what was sent takes at the bitrate, as of last
}

// maxGrabFailures is how often in a row a picture may fail to be taken, each
// time after asking for the screen's size again.
const maxGrabFailures = 20

func newVideo(x *server, out *output, cfg Config) (*video, error) {
	v := &video{
		x: x, cfg: cfg, out: out, began: time.Now(),
		blockBytes: 60, changed: make(chan struct{}, 1), resized: make(chan struct{}, 1), keyframe: make(chan struct{}, 1),
	}
	v.bitrate.Store(defaultBitrate)
	var err error
	if v.capture, err = newCapture(x); err != nil {
		return nil, err
	}
	if err := v.resize(); err != nil {
		v.close()
		return nil, err
	}
	return v, nil
}

// close is called when run has ended.
func (v *video) close() {
	if v.encoder != nil {
		v.encoder.Close()
	}
	v.capture.close()
}

func (v *video) askKeyframe() { poke(v.keyframe) }

func (v *video) setBitrate(bits uint32) {
	v.bitrate.Store(min(max(int64(bits), minBitrate), maxBitrate))
}

// gave notes that the X server was given an input.
func (v *video) gave(id uint32) {
	v.given.Store(id)
	v.givenAt.Store(int64(time.Since(v.began)))
}

// pause is the least time between two pictures. What moves by itself leaves half
// of the time free, so that what somebody does is not behind it in a queue.
func (v *video) pause(now time.Time) time.Duration {
	if now.Sub(v.began)-time.Duration(v.givenAt.Load()) < busyTime {
		return framePause
	}
	return calmPause
}

func (v *video) event(ev xgb.Event) {
	switch ev := ev.(type) {
	case damage.NotifyEvent:
		poke(v.changed)
	case xproto.ConfigureNotifyEvent:
		if ev.Window == v.x.root {
			poke(v.resized)
		}
	}
}

// resize begins anew with the size that the screen has now. Where that is the
// same, only a new picture is taken.
func (v *video) resize() error {
	was := v.capture.size
	if err := v.capture.measure(); err != nil {
		return err
	}
	v.whole = true
	if v.encoder != nil && v.capture.size == was {
		return nil
	}
	if v.encoder != nil {
		v.encoder.Close()
		v.encoder = nil
	}
	size := v.capture.size
	var err error
	v.encoder, err = vp8.NewEncoder(vp8.Config{
		Width: size.X, Height: size.Y, Speed: v.cfg.Speed, StaticThreshold: v.cfg.StaticThreshold, Bitrate: int(v.bitrate.Load()),
	})
	if err != nil {
		return err
	}
	columns, rows := v.encoder.Blocks()
	v.active, v.soft = make([]byte, columns*rows), make([]byte, columns*rows)
	v.key = true
	return nil
}

// run sends pictures until ctx ends or something fails.
func (v *video) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	ready := false // to send the next picture
	for {
		wait, due := v.next(time.Now())
		if due && ready {
			sent, err := v.picture()
			if err != nil {
				return err
			}
			ready = !sent
			continue
		}
		var after <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			after = timer.C
		}
		done := v.out.videoDone
		if ready {
			done = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.changed:
			v.dirty = true
		case <-v.keyframe:
			v.key = true
		case <-v.resized:
			if err := v.resize(); err != nil {
				return err
			}
		case <-done:
			ready = true
		case <-after:
		}
	}
}

// next says whether a picture is due, or else how long it is until one is; 0 if
// there is nothing to wait for.
func (v *video) next(now time.Time) (wait time.Duration, due bool) {
	switch {
	case v.key:
		wait = v.last.Add(framePause).Sub(now)
	case v.dirty || v.whole:
		// The coarsest quantizer is not always enough: then there are fewer
		// pictures, instead of ever longer queues on the way.
		wait = v.last.Add(max(v.pause(now), v.debt-maxDebt)).Sub(now)
	case v.anySoft:
		wait = max(v.lastChange.Add(refineAfter).Sub(now), v.last.Add(max(calmPause, v.debt-maxDebt)).Sub(now))
	default:
		return 0, false
	}
	return max(wait, 0), wait <= 0
}

// picture takes, encodes and sends one, unless there is nothing new in it.
func (v *video) picture() (sent bool, err error) {
	began := time.Now()
	refining := 0 // blocks
	rects, input, err := v.grab()
	if err != nil {
		// The most likely reason is a new size.
		v.last = began
		if v.failures++; v.failures > maxGrabFailures {
			return false, fmt.Errorf("screen: taking a picture: %w", err)
		}
		return false, v.resize()
	}
	v.failures = 0
	still := len(rects) == 0 && !v.key
	if still && (!v.anySoft || began.Sub(v.lastChange) < refineAfter) {
		return false, nil
	}
	p := vp8.Params{
		Keyframe: v.key, MaxQuantizer: vp8.MaxQuantizer, Bitrate: int(v.bitrate.Load()), Active: v.active,
		Duration: min(max(began.Sub(v.last), framePause), longestFrameTime).Microseconds(),
	}
	if still {
		p.MaxQuantizer = refineQuantizer
		refining = v.refine(p.Bitrate)
	}
	frame, err := v.encoder.Encode(p)
	if err != nil {
		return false, err
	}
	v.debt = max(v.debt-began.Sub(v.last), 0) + time.Duration(len(frame.Data))*8*time.Second/time.Duration(p.Bitrate)
	v.last = began
	v.softened(frame, refining)
	if len(rects) > 0 || frame.Keyframe {
		v.lastChange = began
	}
	v.key = false
	width, height := v.encoder.Size()
	out := make([]byte, 0, len(frame.Data)+32)
	v.out.put(guestapi.ScreenVideo, guestapi.AppendVideo(out, guestapi.VideoFrame{
		Keyframe: frame.Keyframe, Input: input, Time: uint64(began.Sub(v.began).Microseconds()), //nolint:gosec // it grows from 0
		Width: uint16(width), Height: uint16(height), Data: frame.Data, //nolint:gosec // the encoder's limits
	}))
	return true, nil
}

// grab brings the encoder's picture up to date and returns what has changed in
// it, and the newest input that it may show.
func (v *video) grab() (rects []image.Rectangle, input uint32, err error) {
	input = v.given.Load()
	if !v.dirty && !v.whole {
		return nil, input, nil
	}
	clear(v.active)
	rects, err = v.capture.takeDamage()
	if err != nil {
		return nil, 0, err
	}
	if v.whole {
		rects = []image.Rectangle{{Max: v.capture.size}}
	}
	if err := v.capture.grab(rects, v.encoder.Convert); err != nil {
		return nil, 0, err
	}
	v.dirty, v.whole = false, false
	columns, _ := v.encoder.Blocks()
	for _, r := range rects {
		mark(v.active, columns, r)
	}
	return rects, input, nil
}

// mark sets the macroblocks that a rectangle touches.
func mark(blocks []byte, columns int, r image.Rectangle) {
	left, right := r.Min.X/vp8.MacroBlock, (r.Max.X-1)/vp8.MacroBlock
	for row := r.Min.Y / vp8.MacroBlock; row <= (r.Max.Y-1)/vp8.MacroBlock; row++ {
		line := blocks[row*columns:][left : right+1]
		for i := range line {
			line[i] = 1
		}
	}
}

// refine chooses blocks to make sharp, and returns how many: as many as the way
// to the viewer probably takes in maxDebt, so that they hold up no change.
func (v *video) refine(bitrate int) int {
	clear(v.active)
	room := max(int(float64(bitrate)/8*maxDebt.Seconds())/v.blockBytes, 1)
	n := 0
	for i, soft := range v.soft {
		if soft != 0 && n < room {
			v.active[i] = 1
			n++
		}
	}
	return n
}

// softened notes which macroblocks are to be coded again when the screen stands
// still.
func (v *video) softened(frame vp8.Frame, refining int) {
	soft := frame.Quantizer > refineQuantizer
	switch {
	case refining > 0:
		for i, taken := range v.active {
			v.soft[i] &^= taken
		}
		v.blockBytes = min(max(len(frame.Data)/refining, 8), 400)
	case frame.Keyframe:
		for i := range v.soft {
			v.soft[i] = 0
			if soft {
				v.soft[i] = 1
			}
		}
	default:
		for i, changed := range v.active {
			if changed != 0 {
				v.soft[i] = 0
				if soft {
					v.soft[i] = 1
				}
			}
		}
	}
	v.anySoft = bytes.IndexByte(v.soft, 1) >= 0
}
