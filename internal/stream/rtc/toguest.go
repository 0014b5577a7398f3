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
	keyframeFloor  = 500 * time.Millisecond        // between two keyframes that a machine is asked for
	maxWaiting     = 512                           // messages to a machine that takes none
	maxWaitingSize = 4 * guestapi.MaxScreenMessage // the clipboard may be given more than once
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
	queue    []toldMessage
	size     int
	move     toldMessage // not in the queue yet: a newer one takes its place
	handed   uint32      // the ID of the last ordered input that has been written
	key      bool
	keyAt    time.Time
	rate     uint32
	resize   [2]uint16
	finished bool
	onKey    func()
}

// toldMessage is one message to a machine. ID is that of an ordered input, or 0.
type toldMessage struct {
	msg []byte
	id  uint32
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

// input sends on what a viewer does, if it controls. ordered is what came on the
// channel that keeps the order: only its IDs say that all before has been
// handed on. errStalled if too much waits already.
func (t *toGuest) input(in guestapi.Input, ordered bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.allowed || t.finished {
		return nil
	}
	msg := toldMessage{msg: guestapi.AppendInput(nil, in)}
	if ordered {
		msg.id = in.ID
	}
	if in.Type == guestapi.InputMove {
		t.move = msg
		t.tell()
		return nil
	}
	return t.append(msg)
}

// append queues a message behind the last move. The caller has locked.
func (t *toGuest) append(m toldMessage) error {
	if t.move.msg != nil {
		t.queue, t.size = append(t.queue, t.move), t.size+len(t.move.msg)
		t.move = toldMessage{}
	}
	if len(t.queue) >= maxWaiting || t.size+len(m.msg) > maxWaitingSize {
		return errStalled
	}
	t.queue, t.size = append(t.queue, m), t.size+len(m.msg)
	t.tell()
	return nil
}

// control says whether the viewer controls. Who no longer does holds no key.
func (t *toGuest) control(allowed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.allowed && !allowed {
		// What waits is not done any more, but for what lets go.
		t.queue, t.size, t.move = nil, 0, toldMessage{}
		_ = t.append(toldMessage{msg: []byte{byte(guestapi.InputRelease)}})
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

// finish has run write what waits and return.
func (t *toGuest) finish() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.finished = true
	t.tell()
}

// next takes what is to be written. wait is when to ask again, if there is
// something that may not be written yet.
func (t *toGuest) next(now time.Time) (msgs []toldMessage, wait time.Duration, finished bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	msgs = t.queue
	t.queue, t.size = nil, 0
	if t.move.msg != nil {
		msgs = append(msgs, t.move)
		t.move = toldMessage{}
	}
	tell := func(b []byte) { msgs = append(msgs, toldMessage{msg: b}) }
	if t.resize[0] != 0 {
		b := binary.BigEndian.AppendUint16([]byte{byte(guestapi.ScreenResize)}, t.resize[0])
		tell(binary.BigEndian.AppendUint16(b, t.resize[1]))
		t.resize = [2]uint16{}
	}
	if t.rate != 0 {
		tell(binary.BigEndian.AppendUint32([]byte{byte(guestapi.ScreenBitrate)}, t.rate))
		t.rate = 0
	}
	if t.key {
		wait = keyframeFloor - now.Sub(t.keyAt)
		if t.keyAt.IsZero() || wait <= 0 {
			tell([]byte{byte(guestapi.ScreenKeyframe)})
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
			if err := guestapi.WriteScreenFrame(t.w, guestapi.ScreenFrameType(m.msg[0]), m.msg[1:]); err != nil {
				return err
			}
			if m.id != 0 {
				t.wrote(m.id)
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

func (t *toGuest) wrote(id uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.handed = id
}

// lastHanded is the ID of the last ordered input that has been written; once run
// has returned it does not change.
func (t *toGuest) lastHanded() uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.handed
}
