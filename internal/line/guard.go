package line

import (
	"encoding/binary"
	"errors"
	"net"
	"time"
)

// What guard must know of yamux's frames: a header of 12 bytes (version, type,
// flags, stream, length), and behind the header of a data frame as many bytes
// as its length says.
const (
	frameHeader = 12
	frameData   = 0
	framePing   = 2
	flagSYN     = 1
)

// What the other end may send. A keepalive needs one ping in Patience. A line
// that carries 100 MB in a second in pieces of 32 KiB needs some thousand
// frames, and as many again that open, widen and close streams.
const (
	maxPings  = 16 // within Patience
	maxFrames = 50_000
	framesPer = time.Second
)

var (
	errFlood    = errors.New("line: more frames or pings than any use of it needs")
	errOversize = errors.New("line: a frame larger than a stream's window")
)

// guard ends a line whose other end floods it. yamux answers each ping in a
// goroutine of its own, which waits for as long as the other end does not read:
// a guest could fill the host's memory with them. Frames that carry little or
// nothing cost the host more time than the guest.
//
// It reads along without changing anything. One goroutine reads.
type guard struct {
	net.Conn

	header [frameHeader]byte
	have   int   // bytes of header that were read
	body   int64 // bytes of the frame's body still to come

	pings, frames budget
}

// budget counts what came since a time.
type budget struct {
	spent int
	since time.Time
}

// spend takes one of what is allowed within a time, and says whether there was
// one left.
func (b *budget) spend(allowed int, within time.Duration, now time.Time) bool {
	if now.Sub(b.since) > within {
		b.spent, b.since = 0, now
	}
	b.spent++
	return b.spent <= allowed
}

// Read reads, and looks at what was read. An error is final: the line ends
// with it.
func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if floods := g.look(p[:n]); floods != nil {
		return 0, floods
	}
	return n, err
}

func (g *guard) look(p []byte) error {
	for len(p) > 0 {
		if g.body > 0 {
			skip := min(g.body, int64(len(p)))
			g.body -= skip
			p = p[skip:]
			continue
		}
		n := copy(g.header[g.have:], p)
		g.have += n
		p = p[n:]
		if g.have < frameHeader {
			return nil
		}
		g.have = 0
		if err := g.frame(); err != nil {
			return err
		}
	}
	return nil
}

// frame judges the header that is complete.
func (g *guard) frame() error {
	now := time.Now()
	if !g.frames.spend(maxFrames, framesPer, now) {
		return errFlood
	}
	switch g.header[1] {
	case frameData:
		// yamux reads and drops whatever length a frame names for a stream
		// that is gone: it would do nothing else until the last byte.
		if g.body = int64(binary.BigEndian.Uint32(g.header[8:])); g.body > Window {
			return errOversize
		}
	case framePing:
		asks := binary.BigEndian.Uint16(g.header[2:])&flagSYN != 0
		if asks && !g.pings.spend(maxPings, Patience, now) {
			return errFlood
		}
	}
	return nil
}
