package rtc

import (
	"testing"
	"time"

	"github.com/pion/rtcp"
)

// path is a way to a viewer, simulated: one bottleneck with a queue, delay, loss
// and reports every 100 ms. Nothing in it takes real time.
type path struct {
	t    *testing.T
	now  time.Time
	rate *rate

	bits   float64       // per second through the bottleneck
	delay  time.Duration // one way
	queue  time.Duration // at most; what comes then is lost
	lossy  int           // every so many packets one is lost; 0: none
	offset time.Duration // of the viewer's clock

	free    time.Time // when the bottleneck is
	n       int
	pending []arrival
	highest time.Duration // delay in the queue since it was last reset
}

type arrival struct {
	seq  uint16
	came bool
	at   time.Time
}

func newPath(t *testing.T, bits float64) *path {
	p := &path{t: t, now: time.Unix(1000, 0), bits: bits, delay: 25 * time.Millisecond, queue: time.Second, offset: time.Hour}
	p.rate = newRate(func() time.Time { return p.now })
	return p
}

const tick = 20 * time.Millisecond // 50 pictures a second

// run has an encoder use a part of its target for a while; a screen that is still
// uses little.
func (p *path) run(d time.Duration, use float64) {
	for end := p.now.Add(d); p.now.Before(end); p.now = p.now.Add(tick) {
		bytes := float64(p.rate.Target()) * use * tick.Seconds() / 8
		for ; bytes > 0; bytes -= 1200 {
			p.send(int(min(bytes, 1200)))
		}
		if p.now.UnixNano()/int64(tick)%5 == 0 {
			p.report()
		}
	}
}

func (p *path) send(bytes int) {
	seq := p.rate.number(bytes)
	p.n++
	if p.free.Before(p.now) {
		p.free = p.now
	}
	wait := p.free.Sub(p.now)
	a := arrival{seq: seq, came: wait <= p.queue && (p.lossy == 0 || p.n%p.lossy != 0)}
	if a.came {
		p.highest = max(p.highest, wait)
		p.free = p.free.Add(time.Duration(float64(bytes*8) / p.bits * float64(time.Second)))
		a.at = p.free.Add(p.delay)
	}
	p.pending = append(p.pending, a)
}

// report is what a viewer would say of all packets that have arrived by now.
func (p *path) report() {
	n := 0
	for i, a := range p.pending {
		if a.came && !a.at.After(p.now) {
			n = i + 1
		}
	}
	if n == 0 {
		return
	}
	fb := &rtcp.TransportLayerCC{BaseSequenceNumber: p.pending[0].seq, PacketStatusCount: uint16(n)} //nolint:gosec // few
	var symbols []uint16
	clock := func(at time.Time) time.Duration { return time.Duration(at.UnixNano()) + p.offset }
	var last time.Duration
	for _, a := range p.pending[:n] {
		if !a.came {
			symbols = append(symbols, rtcp.TypeTCCPacketNotReceived)
			continue
		}
		at := clock(a.at)
		if last == 0 {
			fb.ReferenceTime = uint32(at / (64 * time.Millisecond)) //nolint:gosec // its low bits
			last = time.Duration(fb.ReferenceTime) * 64 * time.Millisecond
		}
		symbols = append(symbols, rtcp.TypeTCCPacketReceivedLargeDelta)
		fb.RecvDeltas = append(fb.RecvDeltas, &rtcp.RecvDelta{Type: rtcp.TypeTCCPacketReceivedLargeDelta, Delta: (at - last).Microseconds()})
		last = at
	}
	fb.PacketChunks = []rtcp.PacketStatusChunk{&rtcp.StatusVectorChunk{SymbolList: symbols}}
	p.pending = append(p.pending[:0], p.pending[n:]...)
	p.rate.Report(fb)
}

func (p *path) between(what string, low, high int) {
	p.t.Helper()
	if got := p.rate.Target(); got < low || got > high {
		p.t.Errorf("%s: the target is %d, not from %d to %d", what, got, low, high)
	}
}

func TestRateFindsTheWay(t *testing.T) {
	for _, bits := range []float64{300_000, 1_000_000, 3_000_000, 6_000_000} {
		p := newPath(t, bits)
		p.run(20*time.Second, 1)
		p.highest = 0
		p.run(10*time.Second, 1)
		p.between("steady", int(bits*0.55), int(bits*1.25))
		if p.highest > 400*time.Millisecond {
			t.Errorf("%v bit/s: the queue is %v long", bits, p.highest)
		}
		t.Logf("%v bit/s: target %d, queue at most %v", bits, p.rate.Target(), p.highest)
	}
}

func TestRateFollows(t *testing.T) {
	p := newPath(t, 20_000_000)
	p.run(20*time.Second, 1)
	p.between("wide", maxRate, maxRate)
	p.bits = 1_000_000
	p.run(3*time.Second, 1)
	p.between("narrow", minRate, 1_200_000)
	p.bits = 20_000_000
	p.run(10*time.Second, 1)
	p.between("wide again", 3_000_000, maxRate)
	p.bits = 50_000
	p.run(20*time.Second, 1)
	p.between("hardly anything", minRate, minRate*3/2)
}

// A screen that is still proves nothing: the target stays where it may begin.
func TestRateOfAStillScreen(t *testing.T) {
	p := newPath(t, 1_000_000)
	p.run(time.Minute, 0.01)
	p.between("still", startRate, startRate)
	p.run(5*time.Second, 1)
	p.between("in motion", minRate, 1_300_000)
	p.run(time.Minute, 0.01)
	p.between("still again", startRate/2, startRate)
}

func TestRateWithLoss(t *testing.T) {
	p := newPath(t, 20_000_000)
	p.lossy = 100
	p.run(20*time.Second, 1)
	p.between("1% of loss", maxRate/2, maxRate)
	p.lossy = 5
	p.run(20*time.Second, 1)
	p.between("20% of loss", lossyRate*9/10, lossyRate*2)
	p.lossy = 0
	p.run(20*time.Second, 1)
	p.between("none again", 3_000_000, maxRate)
	// Loss that is the bottleneck's own, without much of a queue.
	p = newPath(t, 400_000)
	p.queue = 10 * time.Millisecond
	p.run(30*time.Second, 1)
	p.between("policed", minRate, 700_000)
}

// Delay that is there always is no queue, and a clock that drifts is none either.
func TestRateOverALongWay(t *testing.T) {
	p := newPath(t, 20_000_000)
	p.delay = 300 * time.Millisecond
	for range 60 {
		p.run(time.Second, 1)
		p.offset += 200 * time.Microsecond
	}
	p.between("far", maxRate/2, maxRate)
}

// FuzzReport: whatever a viewer reports, the target keeps its bounds.
func FuzzReport(f *testing.F) {
	f.Add([]byte{0x8f, 0xcd, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 2, 0, 0, 0, 0, 0x20, 0x02, 4, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		var fb rtcp.TransportLayerCC
		if fb.Unmarshal(b) != nil {
			return
		}
		now := time.Unix(1000, 0)
		r := newRate(func() time.Time { return now })
		for range 100 {
			r.number(1200)
			r.Report(&fb)
			now = now.Add(50 * time.Millisecond)
			if got := r.Target(); got < minRate || got > maxRate {
				t.Fatalf("the target is %d", got)
			}
		}
	})
}
