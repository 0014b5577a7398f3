//go:build linux

// Package catch gives programs that know nothing of a proxy a way out all the
// same, the one that there is: a TUN device takes all that they send, a TCP/IP
// stack in this process ends every connection in it, and each is handed on as
// "name:port" to a dial function. Questions about names are answered here, with
// synthetic addresses that stand for the names.
//
// Nothing is passed on as a packet. Datagrams other than questions about names
// are refused with ICMP at once; what is neither TCP nor UDP is dropped.
//
// The programs are hostile to this process too. It holds at most maxConns
// connections, with buffers of at most bufferSize in each direction, and
// maxNames names; what is beyond is refused.
package catch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	// MTU is the largest packet that a device may carry. Each packet costs two
	// system calls, whatever its size: with a quarter of it downloads take half
	// as long again.
	MTU = 65535
	// maxConns is how many connections there may be at a time. It is half of
	// what the host lets a machine have: the proxy port has the rest.
	maxConns   = 128
	bufferSize = 128 << 10
	// queueLength is how many packets may wait for the device to take them. The
	// stack sends those beyond it again.
	queueLength = 512
	// dialTimeout is how long a program is kept waiting for an answer. The host
	// gives up earlier.
	dialTimeout = time.Minute
	// goodbye is how long an ended connection may take to be gone: a program
	// that neither reads nor closes would keep it for ever.
	goodbye = 10 * time.Second
	// closePause is the time between two tries to end connections that were
	// just being made.
	closePause = 10 * time.Millisecond
)

// nic is the one network interface of the stack.
const nic tcpip.NICID = 1

// Config is what a Catcher needs.
type Config struct {
	// Dial connects to "host:port", where the host is a name or an address as a
	// program gave it. It must be safe for concurrent use.
	Dial func(ctx context.Context, target string) (net.Conn, error)
	// Join copies between the two until both directions have ended, and closes
	// both.
	Join   func(a, b net.Conn)
	Logger *slog.Logger
}

// Catcher takes what comes out of a device until it is closed.
type Catcher struct {
	cfg     Config
	goodbye time.Duration
	device  io.ReadWriteCloser
	stack   *stack.Stack
	link    *channel.Endpoint
	names   *names
	ctx     context.Context // ends with Close; of connections, which no caller has one for
	cancel  context.CancelFunc
	pumps   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	closed bool
	open   int
	conns  sync.WaitGroup // added to under mu, while not closed
}

// New starts taking what comes out of device, one IP packet in each read, and
// giving it its answers, one in each write. The Catcher owns the device.
func New(device io.ReadWriteCloser, cfg Config) (*Catcher, error) {
	return start(device, cfg, goodbye)
}

func start(device io.ReadWriteCloser, cfg Config, goodbye time.Duration) (*Catcher, error) {
	c := &Catcher{
		cfg: cfg, goodbye: goodbye, device: device, names: newNames(), link: channel.New(queueLength, MTU, ""),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
		}),
	}
	if err := c.setUp(); err != nil {
		c.stack.Destroy()
		return nil, errors.Join(err, device.Close())
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.pumps.Go(c.take)
	c.pumps.Go(c.give)
	return c, nil
}

// setUp has the stack take every address for its own.
func (c *Catcher) setUp() error {
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize},
		option(tcpip.TCPSACKEnabled(true)),
		option(tcpip.TCPTimeWaitTimeoutOption(time.Second)), // nothing is ever late on this link
		option(tcpip.TCPLingerTimeoutOption(c.goodbye)),
	} {
		if err := c.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("catch: option %T: %s", o, err)
		}
	}
	if err := c.stack.CreateNIC(nic, c.link); err != nil {
		return fmt.Errorf("catch: %s", err)
	}
	if err := c.stack.SetPromiscuousMode(nic, true); err != nil {
		return fmt.Errorf("catch: %s", err)
	}
	if err := c.stack.SetSpoofing(nic, true); err != nil {
		return fmt.Errorf("catch: %s", err)
	}
	c.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	// Twice: those that are refused for being too many are under way too.
	c.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(c.stack, bufferSize, 2*maxConns, c.connection).HandlePacket)
	c.stack.SetTransportProtocolHandler(udp.ProtocolNumber, c.datagram)
	return nil
}

func option[T any](o T) *T { return &o }

// Close ends every connection and closes the device. It returns when all has
// ended. Idempotent.
func (c *Catcher) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		c.pumps.Wait()
		return nil
	}
	c.cancel()
	ended := make(chan struct{})
	go func() { c.conns.Wait(); close(ended) }()
	for done := false; !done; {
		// One that is only now being made was not there before.
		for _, e := range c.stack.RegisteredEndpoints() {
			e.Abort()
		}
		select {
		case <-ended:
			done = true
		case <-time.After(closePause):
		}
	}
	err := c.device.Close()
	c.link.Close()
	c.pumps.Wait()
	c.stack.Destroy()
	return err
}

// take hands the stack what programs send.
func (c *Catcher) take() {
	packet := make([]byte, MTU)
	for {
		n, err := c.device.Read(packet)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				c.cfg.Logger.Error("the TUN device cannot be read any more", "err", err)
			}
			return
		}
		protocol, ok := taken(packet[:n])
		if !ok {
			continue
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(packet[:n])})
		c.link.InjectInbound(protocol, p)
		p.DecRef()
	}
}

// give hands programs what the stack sends.
func (c *Catcher) give() {
	for {
		p := c.link.ReadContext(context.Background())
		if p == nil {
			return // it was closed
		}
		v := p.ToView()
		p.DecRef()
		// A packet that the device does not take is one that was lost.
		_, _ = c.device.Write(v.AsSlice())
		v.Release()
	}
}

// taken says of which protocol a packet is, if it is one that the stack gets to
// see: whole, and TCP or UDP. So nothing answers an echo request.
func taken(p []byte) (tcpip.NetworkProtocolNumber, bool) {
	var transport uint8
	var protocol tcpip.NetworkProtocolNumber
	switch header.IPVersion(p) {
	case header.IPv4Version:
		h := header.IPv4(p)
		if len(p) < header.IPv4MinimumSize || h.More() || h.FragmentOffset() != 0 {
			return 0, false
		}
		protocol, transport = header.IPv4ProtocolNumber, h.Protocol()
	case header.IPv6Version:
		if len(p) < header.IPv6MinimumSize {
			return 0, false
		}
		protocol, transport = header.IPv6ProtocolNumber, header.IPv6(p).NextHeader()
	default:
		return 0, false
	}
	return protocol, transport == uint8(header.TCPProtocolNumber) || transport == uint8(header.UDPProtocolNumber)
}
