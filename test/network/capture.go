package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// captureBuffer is how many bytes the kernel keeps for a capture that is slow.
	captureBuffer = 64 << 20
	// packetStart is how much of a packet is looked at.
	packetStart = 256
	// multicastReport is the ICMPv6 type with which the kernel itself tells its
	// neighbours which groups an address of its own belongs to (RFC 3810).
	multicastReport = 143
)

// markAddr is from where and to where a capture sends its marks, on loopback.
var markAddr = netip.MustParseAddr("127.0.0.99")

// Capture holds what was sent and received on all interfaces of a namespace,
// those that were made later included. Its methods may be called concurrently.
type Capture struct {
	namespace *Namespace
	expected  func(Packet) bool
	socket    *os.File
	ended     chan struct{}
	names     map[int]string // of the interfaces; the reader's alone

	mu      sync.Mutex
	strange []Packet // each once
	known   int      // packets that were expected
	marks   uint16   // that were sent
	last    uint16   // the mark that was seen last
	changed chan struct{}
}

// Capture begins to capture. Of packets for which expected says true only the
// number is kept. It must be closed.
func (n *Namespace) Capture(expected func(Packet) bool) (*Capture, error) {
	c := &Capture{namespace: n, expected: expected, ended: make(chan struct{}), names: map[int]string{}, changed: make(chan struct{})}
	err := n.Do(func() error {
		// Without the link's header, which loopback does not really have.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(network16(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		c.socket = os.NewFile(uintptr(fd), "capture")
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer)
	})
	if err != nil {
		return nil, fmt.Errorf("network: capture: %w", err)
	}
	go c.read()
	return c, nil
}

// network16 is a number as the network writes it.
func network16(n uint16) uint16 { return n<<8 | n>>8 }

func (c *Capture) read() {
	defer close(c.ended)
	raw, err := c.socket.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, packetStart)
	for {
		var n int
		var from unix.Sockaddr
		err := raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(err, unix.EAGAIN)
		})
		if err != nil {
			return // it is closed
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		p := parse(network16(link.Protocol), b[:n])
		p.Interface, p.Sent = c.name(link.Ifindex), link.Pkttype == unix.PACKET_OUTGOING
		c.take(p)
	}
}

func (c *Capture) name(index int) string {
	if name, ok := c.names[index]; ok {
		return name
	}
	name := fmt.Sprintf("interface %d", index)
	_ = c.namespace.Do(func() error {
		i, err := net.InterfaceByIndex(index)
		if err == nil {
			name = i.Name
		}
		return err
	})
	c.names[index] = name
	return name
}

func (c *Capture) take(p Packet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case p.From.Addr() == markAddr && p.To.Addr() == markAddr:
		if p.Protocol == "udp" && !p.Sent {
			c.last = p.To.Port()
			close(c.changed)
			c.changed = make(chan struct{})
		}
	case p.Protocol == "icmpv6" && p.Type == multicastReport && p.To.Addr().IsMulticast():
	case c.expected(p):
		c.known++
	case !slices.Contains(c.strange, p):
		c.strange = append(c.strange, p)
	}
}

// Strange returns, each once, the packets so far that were not expected, and how
// many were. Whatever was sent before the call is in it. It is an error if the
// capture has missed a packet.
func (c *Capture) Strange(ctx context.Context) (strange []Packet, expected int, err error) {
	if err := c.settle(ctx); err != nil {
		return nil, 0, err
	}
	var stats *unix.TpacketStats
	raw, err := c.socket.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		}), err)
	}
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("network: capture: %w", err)
	case stats.Drops > 0:
		return nil, 0, fmt.Errorf("network: the capture has missed %d packets", stats.Drops)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.strange), c.known, nil
}

// settle sends a mark and waits until it has been read: packets come in the
// order in which they were sent.
func (c *Capture) settle(ctx context.Context) error {
	c.mu.Lock()
	c.marks++
	mark := 1024 + c.marks
	c.mu.Unlock()
	if err := c.send(mark); err != nil {
		return fmt.Errorf("network: mark the capture: %w", err)
	}
	for {
		c.mu.Lock()
		last, changed := c.last, c.changed
		c.mu.Unlock()
		if last >= mark {
			return nil
		}
		select {
		case <-changed:
		case <-c.ended:
			return errors.New("network: the capture has ended")
		case <-ctx.Done():
			return fmt.Errorf("network: the capture does not see its mark: %w", ctx.Err())
		}
	}
}

func (c *Capture) send(mark uint16) error {
	return c.namespace.Do(func() error {
		at := net.UDPAddrFromAddrPort(netip.AddrPortFrom(markAddr, mark))
		conn, err := net.DialUDP("udp", &net.UDPAddr{IP: at.IP}, at)
		if err != nil {
			return err
		}
		_, err = conn.Write([]byte("mark"))
		return errors.Join(err, conn.Close())
	})
}

// Close ends the capture. Idempotent.
func (c *Capture) Close() error {
	err := c.socket.Close()
	<-c.ended
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
