package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
)

// doorAddr is where what comes through a door is from, inside.
var doorAddr = netip.MustParseAddr("127.0.0.98")

// Door is a port of this host that leads to the same port of a namespace's own
// loopback address. What comes through it comes from an address that nothing
// else uses, so that a capture can tell it apart. Its methods may be called
// concurrently.
type Door struct {
	to       netip.AddrPort
	inside   *Namespace
	listener net.Listener
	work     sync.WaitGroup
	ctx      context.Context // ends with the door
	end      context.CancelFunc

	mu    sync.Mutex
	shut  bool
	conns map[net.Conn]struct{}
}

// Door opens a door on a free port of loopback. It must be closed.
func (n *Namespace) Door() (*Door, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	to, err := netip.ParseAddrPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	d := &Door{to: to, inside: n, listener: l, conns: map[net.Conn]struct{}{}}
	d.ctx, d.end = context.WithCancel(context.Background())
	d.work.Go(d.accept)
	return d, nil
}

// Address is the same on both sides.
func (d *Door) Address() string { return d.to.String() }

// Expects says of a packet in the namespace that it went through the door.
func (d *Door) Expects(p Packet) bool { return p.Between(doorAddr, d.to) }

// Dial connects to what is behind the door, without going through it.
func (d *Door) Dial(ctx context.Context) (net.Conn, error) {
	return d.inside.Dial(ctx, net.TCPAddrFromAddrPort(netip.AddrPortFrom(doorAddr, 0)), d.to.String())
}

func (d *Door) accept() {
	for {
		outer, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.work.Go(func() { d.pass(outer) })
	}
}

func (d *Door) pass(outer net.Conn) {
	defer d.forget(outer)
	if !d.hold(outer) {
		return
	}
	inner, err := d.Dial(d.ctx)
	if err != nil {
		return
	}
	defer d.forget(inner)
	if !d.hold(inner) {
		return
	}
	Join(outer, inner)
}

func (d *Door) hold(c net.Conn) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conns[c] = struct{}{}
	return d.ctx.Err() == nil && !d.shut
}

func (d *Door) forget(c net.Conn) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.conns, c)
}

// Shut ends all connections that go through the door, and lets none through
// until open is called. Dial goes on.
func (d *Door) Shut() (open func()) {
	d.cut()
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.shut = false
	}
}

func (d *Door) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
	for c := range d.conns {
		_ = c.Close()
	}
}

// Close closes the door, and returns when nothing goes through it any more.
func (d *Door) Close() error {
	d.end()
	err := d.listener.Close()
	d.cut()
	d.work.Wait()
	return err
}

// Join copies both ways until both directions have ended, and hands the end of
// each on. An error ends both.
func Join(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(dst, src net.Conn) {
		if _, err := io.Copy(dst, src); err != nil {
			_ = a.Close()
			_ = b.Close()
			return
		}
		if h, ok := dst.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}
	both.Go(func() { oneWay(a, b) })
	both.Go(func() { oneWay(b, a) })
	both.Wait()
}
