package rtc

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const (
	keyframeFloor  = 500 * time.Millisecond // between two keyframes that a machine is asked for
	maxWaiting     = 512                    // messages to a machine that takes none
	maxWaitingSize = 2 * guestapi.MaxClipboard
)

var errStalled = errors.New("rtc: the machine takes no input")

// toGuest writes to the machine what a viewer does and what the gateway wants.
// What only the newest of counts is kept once; the rest is bounded, and too much
// of it is the machine's fault.
type toGuest struct {
	w    io.Writer
	wake chan struct{}

	mu       sync.Mutex
	allowed  bool // the viewer controls
	queue    [][]byte
	size     int
	move     []byte // not in the queue yet: a newer one takes its place
	key      bool
	keyAt    time.Time
	rate     uint32
	resize   [2]uint16
	taken    uint32 // number of the newest input that is no move and was let in
	finished bool
	onKey    func()
}

func newToGuest(w io.Writer, onKey func()) *toGuest {
	return &toGuest{w: w, wake: make(chan struct{}, 1), onKey: onKey}
}

func (t *toGuest) tell() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// input sends on what a viewer does, if it controls. errStalled if too much
// waits already.
func (t *toGuest) input(in guestapi.Input) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.allowed || t.finished {
		return nil
	}
	msg := guestapi.AppendInput(nil, in)
	if in.Type == guestapi.InputMove {
		t.move = msg
		t.tell()
		return nil
	}
	if err := t.append(msg); err != nil {
		return err
	}
	t.taken = in.ID
	return nil
}

// append queues a message behind the last move. The caller has locked.
func (t *toGuest) append(msg []byte) error {
	if t.move != nil {
		t.queue, t.size = append(t.queue, t.move), t.size+len(t.move)
		t.move = nil
	}
	if len(t.queue) >= maxWaiting || t.size+len(msg) > maxWaitingSize {
		return errStalled
	}
	t.queue, t.size = append(t.queue, msg), t.size+len(msg)
	t.tell()
	return nil
}

// control says whether the viewer controls. Who no longer does holds no key.
func (t *toGuest) control(allowed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.allowed && !allowed {
		// What waits is not done any more, but for what lets go; unless the page
		// was told that it is.
		if !t.finished {
			t.queue, t.size, t.move = nil, 0, nil
		}
		_ = t.append([]byte{byte(guestapi.InputRelease)})
	}
	t.allowed = allowed
}

// keyframe asks for one: at once, or when the last is keyframeFloor ago.
func (t *toGuest) keyframe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.key = true
	t.tell()
}

// bitrate is the encoder's from now on.
func (t *toGuest) bitrate(bits uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = bits
	t.tell()
}

// want is the size that a viewer has room for.
func (t *toGuest) want(width, height uint16) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.allowed {
		t.resize = [2]uint16{width, height}
		t.tell()
	}
}

// finish has run write what waits and return. Nothing more is let in: taken is the
// number of the last input, moves aside, that was, or 0.
func (t *toGuest) finish() (taken uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = true
	t.tell()
	return t.taken
}

// next takes what is to be written. wait is when to ask again, if there is
// something that may not be written yet.
func (t *toGuest) next(now time.Time) (msgs [][]byte, wait time.Duration, finished bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	msgs = t.queue
	t.queue, t.size = nil, 0
	if t.move != nil {
		msgs = append(msgs, t.move)
		t.move = nil
	}
	if t.resize[0] != 0 {
		b := binary.BigEndian.AppendUint16([]byte{byte(guestapi.ScreenResize)}, t.resize[0])
		msgs = append(msgs, binary.BigEndian.AppendUint16(b, t.resize[1]))
		t.resize = [2]uint16{}
	}
	if t.rate != 0 {
		msgs = append(msgs, binary.BigEndian.AppendUint32([]byte{byte(guestapi.ScreenBitrate)}, t.rate))
		t.rate = 0
	}
	if t.key {
		wait = keyframeFloor - now.Sub(t.keyAt)
		if t.keyAt.IsZero() || wait <= 0 {
			msgs = append(msgs, []byte{byte(guestapi.ScreenKeyframe)})
			t.key, t.keyAt, wait = false, now, 0
			t.onKey()
		}
	}
	return msgs, wait, t.finished
}

// run writes until finish, or an error of the writer.
func (t *toGuest) run() error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		msgs, wait, finished := t.next(time.Now())
		for _, m := range msgs {
			if err := guestapi.WriteScreenFrame(t.w, guestapi.ScreenFrameType(m[0]), m[1:]); err != nil {
				return err
			}
		}
		if finished {
			return nil
		}
		var later <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			later = timer.C
		}
		select {
		case <-t.wake:
		case <-later:
		}
	}
}
