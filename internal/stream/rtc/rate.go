package rtc

import (
	"sync"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// The bounds of what an encoder is told, in bits per second.
const (
	minRate   = 150_000
	maxRate   = 8_000_000
	startRate = 2_500_000
	// lossyRate is as far as loss alone lowers it, without delay: where packets
	// are lost at any rate, a lower one loses no fewer.
	lossyRate = 600_000
)

const (
	history = 1 << 12 // packets that are remembered until they are reported
	// standing is the delay in a queue on the way that says that it does not empty
	// by itself: also the first packets of a picture find it full.
	standing   = 40 * time.Millisecond
	lookBack   = 250 * time.Millisecond // over which loss, delay and rate are measured
	baseSpan   = 10 * time.Second       // over which the shortest way is remembered
	fewPackets = 20                     // a loss ratio of fewer says nothing
)

// rate follows what the way to a viewer carries: down with a standing queue or
// with loss, up while what is sent comes through. A screen sends in bursts and
// mostly little, so it neither grows beyond startRate on what was never tried,
// nor takes a burst's own queue for congestion.
//
// It is an interceptor, which numbers the packets on their way out.
type rate struct {
	interceptor.NoOp
	now func() time.Time

	mu     sync.Mutex
	next   uint16
	sent   [history]sentPacket
	target float64
	window []result // of lookBack
	base   [2]time.Duration
	basis  time.Time // when base[0] began
	based  bool
	down   time.Time // when it was last lowered
	grown  time.Time
	proven float64 // the highest rate that came through since it was last lowered
	full   float64 // what came through when a queue last stood
	rtt    time.Duration
}

type sentPacket struct {
	seq   uint16
	bytes uint16
	known bool // not reported yet
	at    time.Time
}

// result is one packet of a report.
type result struct {
	at    time.Time // of the report
	lost  bool
	bytes int
	queue time.Duration // how much longer than the shortest it was on its way
}

func newRate(now func() time.Time) *rate { return &rate{now: now, target: startRate} }

// NewInterceptor implements interceptor.Factory: it is of one connection.
func (r *rate) NewInterceptor(string) (interceptor.Interceptor, error) { return r, nil }

// BindLocalStream implements interceptor.Interceptor.
func (r *rate) BindLocalStream(info *interceptor.StreamInfo, next interceptor.RTPWriter) interceptor.RTPWriter {
	id := uint8(0)
	for _, e := range info.RTPHeaderExtensions {
		if e.URI == twccURI {
			id = uint8(e.ID) //nolint:gosec // 1 to 255
		}
	}
	if id == 0 {
		return next
	}
	return interceptor.RTPWriterFunc(func(h *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		seq := r.number(h.MarshalSize() + 4 + len(payload))
		ext, err := (&rtp.TransportCCExtension{TransportSequence: seq}).Marshal()
		if err != nil {
			return 0, err
		}
		if err := h.SetExtension(id, ext); err != nil {
			return 0, err
		}
		return next.Write(h, payload, a)
	})
}

func (r *rate) number(bytes int) uint16 {
	r.mu.Lock()
	defer r.mu.Unlock()
	seq := r.next
	r.next++
	r.sent[seq%history] = sentPacket{seq, uint16(min(bytes, 1<<16-1)), true, r.now()} //nolint:gosec // bounded
	return seq
}

// Target is the encoder's, in bits per second.
func (r *rate) Target() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int(r.target)
}

// Report takes a report of the viewer's. What it says of packets that were never
// sent, or were reported before, is left out.
func (r *rate) Report(fb *rtcp.TransportLayerCC) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	arrival := time.Duration(fb.ReferenceTime) * 64 * time.Millisecond
	seq, deltas := fb.BaseSequenceNumber, fb.RecvDeltas
	fresh := 0
	each := func(symbol uint16) bool {
		if fresh == int(fb.PacketStatusCount) {
			return false
		}
		fresh++
		came := symbol != rtcp.TypeTCCPacketNotReceived
		if came {
			if len(deltas) == 0 {
				return false
			}
			arrival += time.Duration(deltas[0].Delta) * time.Microsecond
			deltas = deltas[1:]
		}
		r.packet(seq, came, arrival, now)
		seq++
		return true
	}
	for _, chunk := range fb.PacketChunks {
		switch c := chunk.(type) {
		case *rtcp.RunLengthChunk:
			for range c.RunLength {
				if !each(c.PacketStatusSymbol) {
					break
				}
			}
		case *rtcp.StatusVectorChunk:
			for _, s := range c.SymbolList {
				if !each(s) {
					break
				}
			}
		}
	}
	r.decide(now)
}

func (r *rate) packet(seq uint16, came bool, arrival time.Duration, now time.Time) {
	p := &r.sent[seq%history]
	if !p.known || p.seq != seq {
		return
	}
	p.known = false
	res := result{at: now, lost: !came, bytes: int(p.bytes)}
	if came {
		// The clocks differ by an unknown amount: only differences count.
		way := arrival - time.Duration(p.at.UnixNano())
		res.queue = way - r.shortest(way, now)
		r.rtt = now.Sub(p.at)
	}
	r.window = append(r.window, res)
}

// shortest is the shortest way of the last while, in two halves so that it
// follows a change of way and clocks that drift.
func (r *rate) shortest(way time.Duration, now time.Time) time.Duration {
	switch {
	case !r.based:
		r.based, r.basis, r.base = true, now, [2]time.Duration{way, way}
	case now.Sub(r.basis) > baseSpan/2:
		r.basis, r.base = now, [2]time.Duration{way, r.base[0]}
	}
	r.base[0] = min(r.base[0], way)
	return min(r.base[0], r.base[1])
}

func (r *rate) decide(now time.Time) {
	old := 0
	for old < len(r.window) && now.Sub(r.window[old].at) > lookBack {
		old++
	}
	r.window = append(r.window[:0], r.window[old:]...)
	lost, bytes, queue, came := 0, 0, time.Duration(1<<62), 0
	for _, p := range r.window {
		if p.lost {
			lost++
			continue
		}
		came++
		bytes += p.bytes
		queue = min(queue, p.queue)
	}
	if came == 0 && lost == 0 {
		return
	}
	through := float64(bytes*8) / lookBack.Seconds()
	loss := 0.0
	if len(r.window) >= fewPackets || lost > fewPackets/2 {
		loss = float64(lost) / float64(len(r.window))
	}
	r.proven = max(r.proven, through)
	wait := min(max(r.rtt, lookBack), time.Second) // until the last change shows
	switch {
	case came > 0 && queue > standing:
		if now.Sub(r.down) > wait {
			r.full = through
			r.lower(now, max(min(r.target, through)*0.85, r.target*0.5))
		}
	case loss > 0.1:
		if now.Sub(r.down) > wait {
			to := r.target * (1 - loss/2)
			if loss < 0.3 {
				to = max(to, min(r.target, lossyRate))
			}
			r.lower(now, to)
		}
	case loss < 0.05:
		r.raise(now)
	}
}

func (r *rate) lower(now time.Time, to float64) {
	r.target = min(max(to, minRate), maxRate)
	r.down, r.grown, r.proven = now, now, 0
}

// raise grows the target: freely up to where a screen begins, and beyond it only
// while most of it is used.
func (r *rate) raise(now time.Time) {
	past := min(now.Sub(r.grown), lookBack).Seconds()
	r.grown = now
	used := r.proven > 0.7*r.target
	perSecond := 0.25
	switch {
	case r.target > 1.2*r.full:
		perSecond = 0.6 // nothing speaks against it, or not any more
	case r.target > 0.8*r.full:
		perSecond = 0.05 // about as much as there is
	}
	if !used && r.target >= startRate {
		return
	}
	to := r.target*(1+perSecond*past) + 10_000*past
	if !used {
		to = min(to, startRate)
	}
	r.target = min(to, maxRate)
}
