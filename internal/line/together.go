package line

import (
	"encoding/binary"
	"net"
)

// together writes the header of a frame and its body at once. yamux writes them
// one after the other: the other end would wake up for twelve bytes, and sleep
// again until it gets what they announce. Only one goroutine may write.
type together struct {
	net.Conn
	header [frameHeader]byte // of a frame whose body has not been written yet
	held   bool
}

// Write writes p, or holds it back if it is a header that a body will follow.
func (t *together) Write(p []byte) (int, error) {
	if t.held {
		t.held = false
		both := net.Buffers{t.header[:], p}
		n, err := both.WriteTo(t.Conn)
		return max(int(n)-frameHeader, 0), err
	}
	if len(p) == frameHeader && p[1] == frameData && binary.BigEndian.Uint32(p[8:]) > 0 {
		copy(t.header[:], p)
		t.held = true
		return len(p), nil
	}
	return t.Conn.Write(p)
}
