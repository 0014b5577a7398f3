//go:build linux

package catch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const patience = 20 * time.Second

// programs is the side of the programs: a stack of their own behind the device.
// It is the device too.
type programs struct {
	stack *stack.Stack
	link  *channel.Endpoint
	ended context.Context
	end   context.CancelFunc
}

func newPrograms(t *testing.T) *programs {
	t.Helper()
	p := &programs{link: channel.New(queueLength, MTU, "")}
	p.ended, p.end = context.WithCancel(context.Background())
	p.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	if err := p.stack.CreateNIC(nic, p.link); err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{address4(deviceNumber), address6(deviceNumber)} {
		own := tcpip.ProtocolAddress{Protocol: network(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix()}
		if err := p.stack.AddProtocolAddress(nic, own, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	p.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nic}, {Destination: header.IPv6EmptySubnet, NIC: nic}})
	t.Cleanup(p.stack.Close)
	return p
}

func network(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// Read gives the next packet that a program sends.
func (p *programs) Read(b []byte) (int, error) {
	pkt := p.link.ReadContext(p.ended)
	if pkt == nil {
		return 0, os.ErrClosed
	}
	defer pkt.DecRef()
	v := pkt.ToView()
	defer v.Release()
	return copy(b, v.AsSlice()), nil
}

// Write hands a packet to the programs.
func (p *programs) Write(b []byte) (int, error) {
	protocol := header.IPv4ProtocolNumber
	if header.IPVersion(b) == header.IPv6Version {
		protocol = header.IPv6ProtocolNumber
	}
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
	defer pkt.DecRef()
	p.link.InjectInbound(protocol, pkt)
	return len(b), nil
}

func (p *programs) Close() error {
	p.end()
	return nil
}

// tcp connects as a program does.
func (p *programs) tcp(t *testing.T, to string) (*gonet.TCPConn, error) {
	t.Helper()
	a := netip.MustParseAddrPort(to)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := gonet.DialContextTCP(ctx, p.stack, full(a), network(a.Addr()))
	if err == nil {
		_ = conn.SetDeadline(time.Now().Add(patience))
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func (p *programs) udp(t *testing.T, to string) *gonet.UDPConn {
	t.Helper()
	a := netip.MustParseAddrPort(to)
	remote := full(a)
	conn, err := gonet.DialUDP(p.stack, nil, &remote, network(a.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// datagram sends one to where nobody takes it, and returns what becomes of it.
func (p *programs) datagram(t *testing.T, to string) tcpip.Error {
	t.Helper()
	a := netip.MustParseAddrPort(to)
	var queue waiter.Queue
	failed, notify := waiter.NewChannelEntry(waiter.EventErr)
	queue.EventRegister(&failed)
	ep, err := p.stack.NewEndpoint(udp.ProtocolNumber, network(a.Addr()), &queue)
	if err != nil {
		t.Fatal(err)
	}
	defer ep.Close()
	if err := ep.Connect(full(a)); err != nil {
		t.Fatal(err)
	}
	if _, err := ep.Write(strings.NewReader("hello"), tcpip.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-notify:
		return ep.LastError()
	case <-time.After(patience):
		return nil
	}
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// lookUp asks for a name's address as a program does.
func (p *programs) lookUp(t *testing.T, name string, kind dnsmessage.Type) (dnsmessage.RCode, []netip.Addr) {
	t.Helper()
	conn := p.udp(t, ask4)
	if _, err := conn.Write(question(t, name, kind)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, maxAnswer)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return parse(t, b[:n])
}

const ask4 = "198.18.0.2:53"

// question is a question about a name.
func question(t testing.TB, name string, kind dnsmessage.Type) []byte {
	t.Helper()
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: kind, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// parse reads an answer.
func parse(t testing.TB, b []byte) (dnsmessage.RCode, []netip.Addr) {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("%x: %v", b, err)
	}
	if !m.Response || m.ID != 4711 {
		t.Errorf("the answer's header is %+v", m.Header)
	}
	var out []netip.Addr
	for _, a := range m.Answers {
		switch r := a.Body.(type) {
		case *dnsmessage.AResource:
			out = append(out, netip.AddrFrom4(r.A))
		case *dnsmessage.AAAAResource:
			out = append(out, netip.AddrFrom16(r.AAAA))
		default:
			t.Errorf("the answer has a %T", r)
		}
	}
	return m.RCode, out
}

// out is the way out: it notes where to, and serves each connection with serve.
// A nil serve refuses all.
type out struct {
	mu      sync.Mutex // guards what follows, while connections are made
	serve   func(net.Conn)
	targets []string
	serving sync.WaitGroup
}

var errRefused = errors.New("refused")

func (o *out) dial(_ context.Context, target string) (net.Conn, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.targets = append(o.targets, target)
	if o.serve == nil {
		return nil, errRefused
	}
	here, there, err := pair()
	if err != nil {
		return nil, err
	}
	serve := o.serve
	o.serving.Go(func() { serve(there) })
	return here, nil
}

// becomes serves otherwise from now on.
func (o *out) becomes(serve func(net.Conn)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.serve = serve
}

func (o *out) asked() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]string(nil), o.targets...)
}

// pair is a TCP connection, which ends each direction by itself as a stream of
// a line does.
func pair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = l.Close() }()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

// echo sends back what comes, and ends when that does.
func echo(conn net.Conn) {
	_, _ = io.Copy(conn, conn)
	_ = conn.Close()
}

// join is the agent's, as far as it matters here.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			_ = half.CloseWrite()
			return
		}
		_ = to.Close()
		_ = from.Close()
	}
	both.Go(func() { one(a, b) })
	both.Go(func() { one(b, a) })
	both.Wait()
	_ = a.Close()
	_ = b.Close()
}

// newRig starts a Catcher between programs and a way out.
func newRig(t *testing.T, o *out, goodbye time.Duration) (*programs, *Catcher) {
	t.Helper()
	p := newPrograms(t)
	c, err := start(p, Config{Dial: o.dial, Join: join, Logger: slog.New(slog.DiscardHandler)}, goodbye)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		o.serving.Wait()
	})
	return p, c
}
