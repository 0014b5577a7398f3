package rtc

import (
	"errors"
	"io"
	"sync"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const (
	clockRate = 90_000
	// maxPayload leaves room in a packet of 1200 bytes for header, extensions and
	// what sending again adds.
	maxPayload = 1170

	maxFrames     = 6         // that wait to be sent
	maxFrameBytes = 512 << 10 // of them, unless it is one alone
)

// frames are the pictures that wait to be sent: few, since an old one is in the
// way of a new one. Where they are too many all are left out until the next
// keyframe.
type frames struct {
	wake chan struct{}

	mu      sync.Mutex
	open    bool // the viewer has connected
	list    []guestapi.VideoFrame
	bytes   int
	needKey bool
}

func newFrames() *frames { return &frames{wake: make(chan struct{}, 1), needKey: true} }

// push takes a picture. dropped is how many are left out for it, or because of
// what was left out before; askKey says that a keyframe is needed.
func (q *frames) push(f guestapi.VideoFrame) (dropped int, askKey bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open {
		return 0, false
	}
	if q.needKey && !f.Keyframe {
		return 1, true
	}
	if len(q.list) >= maxFrames || len(q.list) > 0 && q.bytes+len(f.Data) > maxFrameBytes {
		dropped = len(q.list)
		q.list, q.bytes = nil, 0
		if !f.Keyframe {
			q.needKey = true
			return dropped + 1, true
		}
	}
	q.needKey = false
	q.list, q.bytes = append(q.list, f), q.bytes+len(f.Data)
	select {
	case q.wake <- struct{}{}:
	default:
	}
	return dropped, false
}

func (q *frames) pop() (guestapi.VideoFrame, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 {
		return guestapi.VideoFrame{}, false
	}
	f := q.list[0]
	q.list, q.bytes = q.list[1:], q.bytes-len(f.Data)
	return f, true
}

func (q *frames) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = true
}

// packets makes RTP of pictures.
type packets struct {
	track     *webrtc.TrackLocalStaticRTP
	payloader rtp.Payloader
	sequencer rtp.Sequencer
	playout   uint8 // id of the header extension; 0: the viewer does not know it
	base      uint32
	first     uint64
	begun     bool
}

func newPackets(track *webrtc.TrackLocalStaticRTP, codec string, base uint32) *packets {
	p := &packets{track: track, payloader: &codecs.VP8Payloader{EnablePictureID: true}, sequencer: rtp.NewRandomSequencer(), base: base}
	if codec == H264 {
		p.payloader = &codecs.H264Payloader{}
	}
	return p
}

// timestamp is a picture's, by the machine's clock. One that jumps confuses the
// viewer of that machine only.
func (p *packets) timestamp(f guestapi.VideoFrame) uint32 {
	if !p.begun {
		p.begun, p.first = true, f.Time
	}
	micros := f.Time - p.first
	return p.base + uint32(micros/100*9+micros%100*9/100) //nolint:gosec // it wraps
}

// send sends one picture, all at once. io.ErrClosedPipe when the connection has
// ended.
func (p *packets) send(f guestapi.VideoFrame, timestamp uint32) (bytes int, err error) {
	payloads := p.payloader.Payload(maxPayload, f.Data)
	for i, payload := range payloads {
		packet := rtp.Packet{Header: rtp.Header{
			Version: 2, SequenceNumber: p.sequencer.NextSequenceNumber(), Timestamp: timestamp, Marker: i == len(payloads)-1,
		}, Payload: payload}
		if p.playout != 0 {
			if err := packet.SetExtension(p.playout, []byte{0, 0, 0}); err != nil { // show it at once
				return bytes, err
			}
		}
		if err := p.track.WriteRTP(&packet); err != nil && errors.Is(err, io.ErrClosedPipe) {
			return bytes, io.ErrClosedPipe
		}
		bytes += len(payload)
	}
	return bytes, nil
}
