package rtc

import (
	"encoding/json"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pion/datachannel"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const (
	maxUnsent  = 1 << 20 // bytes of a data channel that a viewer has not taken
	lowUnsent  = 256 << 10
	maxSamples = 32
	lastWords  = 300 * time.Millisecond // for a viewer to take the last message
)

// outbox is what the page is to be told on its channel. Of what only the newest
// counts only that is kept, so that a viewer that takes nothing costs little.
type outbox struct {
	wake chan struct{}
	low  chan struct{}
	max  int // bytes of a message that the viewer takes

	mu      sync.Mutex
	role    string
	size    [2]uint16
	samples [][2]uint32 // rtp, input
	cursor  []byte
	clip    []byte
	sent    struct {
		size [2]uint16
	}
}

func newOutbox(limit int) *outbox {
	return &outbox{wake: make(chan struct{}, 1), low: make(chan struct{}, 1), max: limit}
}

func (o *outbox) change(f func()) {
	o.mu.Lock()
	f()
	o.mu.Unlock()
	signal(o.wake)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (o *outbox) setRole(control bool) {
	o.change(func() {
		if o.role = "watch"; control {
			o.role = "control"
		}
	})
}

func (o *outbox) setSize(w, h uint16) {
	o.mu.Lock()
	same := o.sent.size == [2]uint16{w, h}
	o.sent.size = [2]uint16{w, h}
	o.mu.Unlock()
	if !same {
		o.change(func() { o.size = [2]uint16{w, h} })
	}
}

func (o *outbox) frame(timestamp, input uint32) {
	o.change(func() {
		if len(o.samples) == maxSamples {
			o.samples = o.samples[1:]
		}
		o.samples = append(o.samples, [2]uint32{timestamp, input})
	})
}

// setCursor takes the payload of a frame. Every browser takes one that long; for
// what takes less the old cursor stays.
func (o *outbox) setCursor(payload []byte) { o.binary(&o.cursor, guestapi.ScreenCursor, payload) }

// setClipboard takes the payload of a frame. What is longer than the viewer takes
// (no browser takes less than guestapi.MaxScreenMessage) is cut between two
// characters.
func (o *outbox) setClipboard(payload []byte) {
	if n := o.max - 1; len(payload) > n {
		for n > 0 && !utf8.RuneStart(payload[n]) {
			n--
		}
		payload = payload[:n]
	}
	o.binary(&o.clip, guestapi.ScreenClipboard, payload)
}

func (o *outbox) binary(to *[]byte, t guestapi.ScreenFrameType, payload []byte) {
	if 1+len(payload) > o.max {
		return
	}
	msg := append([]byte{byte(t)}, payload...)
	o.change(func() { *to = msg })
}

type outMessage struct {
	data []byte
	text bool
}

func (o *outbox) next() []outMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []outMessage
	text := func(v any) {
		b, _ := json.Marshal(v) // maps of numbers and words cannot fail
		out = append(out, outMessage{b, true})
	}
	if o.role != "" {
		text(map[string]string{"role": o.role})
		o.role = ""
	}
	if o.size[0] != 0 {
		text(map[string]any{"size": map[string]uint16{"width": o.size[0], "height": o.size[1]}})
		o.size = [2]uint16{}
	}
	for _, s := range o.samples {
		text(map[string]any{"frame": map[string]uint32{"rtp": s[0], "input": s[1]}})
	}
	o.samples = nil
	for _, b := range []*[]byte{&o.cursor, &o.clip} {
		if *b != nil {
			out = append(out, outMessage{*b, false})
			*b = nil
		}
	}
	return out
}

// run sends until done, or the channel has ended; then closing, if it is not
// empty, and waits a moment for the viewer to take it.
func (o *outbox) run(ch *datachannel.DataChannel, done <-chan struct{}, closing func() string) {
	ch.SetBufferedAmountLowThreshold(lowUnsent)
	ch.OnBufferedAmountLow(func() { signal(o.low) })
	for o.flush(ch, done) {
		select {
		case <-o.wake:
		case <-done:
			o.last(ch, closing())
			return
		}
	}
}

func (o *outbox) flush(ch *datachannel.DataChannel, done <-chan struct{}) bool {
	for _, m := range o.next() {
		for ch.BufferedAmount() > maxUnsent {
			select {
			case <-o.low:
			case <-done:
				return true
			}
		}
		if _, err := ch.WriteDataChannel(m.data, m.text); err != nil {
			return false
		}
	}
	return true
}

func (o *outbox) last(ch *datachannel.DataChannel, why string) {
	if why == "" || ch.BufferedAmount() > maxUnsent {
		return
	}
	ch.SetBufferedAmountLowThreshold(0)
	select {
	case <-o.low:
	default:
	}
	b, _ := json.Marshal(map[string]string{"closing": why})
	if _, err := ch.WriteDataChannel(b, true); err != nil {
		return
	}
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	for ch.BufferedAmount() > 0 {
		select {
		case <-o.low:
		case <-timer.C:
			return
		}
	}
}
