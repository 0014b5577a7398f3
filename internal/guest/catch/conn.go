//go:build linux

package catch

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	dnsPort = 53
	// dnsIdle is how long a connection for questions about names may be silent.
	dnsIdle = 10 * time.Second
)

// enter takes a place for a connection, if there is one.
func (c *Catcher) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.open >= maxConns {
		return false
	}
	c.open++
	c.conns.Add(1)
	return true
}

func (c *Catcher) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	c.conns.Done()
}

// connection takes a program's connection from its first packet to its end. It
// is accepted only once the other side is there, so that the program sees a
// refusal as what it is.
func (c *Catcher) connection(r *tcp.ForwarderRequest) {
	if !c.enter() {
		r.Complete(true)
		return
	}
	defer c.leave()
	to := destination(r.ID())
	if to.Port() == dnsPort {
		if conn := accept(r); conn != nil {
			c.answerAll(conn)
			conn.end(c.goodbye)
		}
		return
	}
	host, release, ok := c.behind(to.Addr())
	if !ok {
		r.Complete(true)
		return
	}
	defer release()
	ctx, cancel := context.WithTimeout(c.ctx, dialTimeout)
	defer cancel()
	out, err := c.cfg.Dial(ctx, net.JoinHostPort(host, strconv.Itoa(int(to.Port()))))
	if err != nil {
		r.Complete(true)
		return
	}
	conn := accept(r)
	if conn == nil {
		_ = out.Close()
		return
	}
	// Closing is not enough for both: a stream of a line ends one direction.
	stop := context.AfterFunc(c.ctx, func() { _ = out.SetDeadline(time.Unix(1, 0)) })
	c.cfg.Join(conn, out)
	stop()
	conn.end(c.goodbye)
}

// destination is where a connection goes to.
func destination(id stack.TransportEndpointID) netip.AddrPort {
	a, _ := netip.AddrFromSlice(id.LocalAddress.AsSlice())
	return netip.AddrPortFrom(a, id.LocalPort)
}

// behind is the host that an address stands for: a name, or the address itself.
// It is not to be reached if it is a synthetic one that no name has.
func (c *Catcher) behind(a netip.Addr) (host string, release func(), ok bool) {
	if n, synthetic := numberOf(a); synthetic {
		return c.names.hold(n)
	}
	return a.String(), func() {}, true
}

// caught is a program's connection.
type caught struct {
	*gonet.TCPConn
	queue *waiter.Queue
	ep    tcpip.Endpoint
}

// accept answers the first packet of a connection with a handshake; nil if the
// program does not want it any more.
func accept(r *tcp.ForwarderRequest) *caught {
	queue := new(waiter.Queue)
	ep, err := r.CreateEndpoint(queue)
	r.Complete(err != nil)
	if err != nil {
		return nil
	}
	return &caught{TCPConn: gonet.NewTCPConn(queue, ep), queue: queue, ep: ep}
}

// end closes the connection and returns when the program has taken note, at
// the latest after a time.
func (c *caught) end(latest time.Duration) {
	_ = c.Close()
	gone, notify := waiter.NewChannelEntry(waiter.EventHUp)
	c.queue.EventRegister(&gone)
	defer c.queue.EventUnregister(&gone)
	if c.ep.Readiness(waiter.EventHUp) != 0 {
		return
	}
	timer := time.NewTimer(latest)
	defer timer.Stop()
	select {
	case <-notify:
	case <-timer.C:
		c.ep.Abort()
	}
}

// datagram answers a question about a name. All else it leaves to the stack,
// which refuses it. It runs within the delivery of the packet, so that the next
// one from the same port finds no endpoint of this one.
func (c *Catcher) datagram(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	if id.LocalPort != dnsPort {
		return false
	}
	ep, err := udp.NewForwarderRequest(c.stack, id, p).CreateEndpoint(new(waiter.Queue))
	if err != nil {
		return true
	}
	defer ep.Close()
	var query bytes.Buffer
	if _, err := ep.Read(&query, tcpip.ReadOptions{}); err != nil {
		return true // its checksum is wrong
	}
	if out := c.names.answer(query.Bytes()); out != nil {
		_, _ = ep.Write(bytes.NewReader(out), tcpip.WriteOptions{})
	}
	return true
}

// answerAll answers the questions that come over a connection, each behind its
// length, until there is one that has no answer.
func (c *Catcher) answerAll(conn net.Conn) {
	var length [2]byte
	query := make([]byte, maxQuery)
	for {
		_ = conn.SetDeadline(time.Now().Add(dnsIdle))
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if n > maxQuery {
			return
		}
		if _, err := io.ReadFull(conn, query[:n]); err != nil {
			return
		}
		out := c.names.answer(query[:n])
		if out == nil {
			return
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...)); err != nil { //nolint:gosec // an answer is short
			return
		}
	}
}
