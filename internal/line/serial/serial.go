// Package serial carries connections, one after the other, over a byte channel
// that knows none: a virtio-serial port, which a guest opens once and for which
// a host may come, go and come back, without the guest being told for certain.
//
// The two directions must not wait for each other: a host reads all the time, and
// the channel takes a mark without the guest's reading it at once.
//
// The host opens a connection by a mark with a number of its own (Open); from
// the mark on the guest takes all that comes for the new connection, ends the
// one before, and answers with the same number; the host throws away what comes
// before that answer. A mark can be told from data wherever the stream was cut:
// data has each of its escape bytes doubled up with a zero.
//
//	data  any byte but 0xDB; 0xDB is sent as 0xDB 0x00
//	mark  0xDB 'O' (host: open) or 'A' (guest: accepted), 32 hexadecimal digits
package serial

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	escape   = 0xDB
	literal  = 0x00
	opens    = 'O'
	accepts  = 'A'
	idLength = 32
	// chunk is how much is read, and escaped, at a time.
	chunk = 32 << 10
)

// ErrProtocol says that the other end sent what is neither data nor a mark that
// it may send.
var ErrProtocol = errors.New("serial: the other end does not keep to the protocol")

// mark is what opens or accepts a connection.
func mark(kind byte, id string) []byte { return append([]byte{escape, kind}, id...) }

// encode appends p to b with its escape bytes spelt out.
func encode(b, p []byte) []byte {
	for {
		i := bytes.IndexByte(p, escape)
		if i < 0 {
			return append(b, p...)
		}
		b = append(append(b, p[:i]...), escape, literal)
		p = p[i+1:]
	}
}

// decoder takes the stream apart. The zero value is at its beginning.
type decoder struct {
	escaped bool   // the last byte was an escape
	kind    byte   // of the mark that is being read, or 0
	id      []byte // what has come of its number
}

// next takes a part of p: data (up to where there is a mark or the end), or a
// whole mark. What is left of p is to be given to it again.
func (d *decoder) next(p []byte) (data []byte, kind byte, id string, rest []byte, err error) {
	for len(p) > 0 {
		switch {
		case d.kind != 0:
			if !isHex(p[0]) {
				*d = decoder{}
				return nil, 0, "", p, ErrProtocol
			}
			d.id, p = append(d.id, p[0]), p[1:]
			if len(d.id) == idLength {
				kind, id = d.kind, string(d.id)
				*d = decoder{}
				return nil, kind, id, p, nil
			}
		case d.escaped && p[0] == escape: // the first was the last byte of a stream that was cut
			p = p[1:]
		case d.escaped && p[0] == literal:
			d.escaped = false
			return escapeByte(), 0, "", p[1:], nil
		case d.escaped && (p[0] == opens || p[0] == accepts):
			d.escaped, d.kind, p = false, p[0], p[1:]
		case d.escaped:
			d.escaped = false
			return nil, 0, "", p[1:], ErrProtocol
		case p[0] == escape:
			d.escaped, p = true, p[1:]
		default:
			i := bytes.IndexByte(p, escape)
			if i < 0 {
				i = len(p)
			}
			return p[:i], 0, "", p[i:], nil
		}
	}
	return nil, 0, "", nil, nil
}

func escapeByte() []byte { return []byte{escape} }

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// Open opens a connection from the host's end of the channel, which it owns
// from then on, and returns once the guest has accepted it. What an earlier
// connection has left in the channel is thrown away, for as long as ctx allows.
func Open(ctx context.Context, channel net.Conn) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = channel.SetDeadline(time.Unix(1, 0)) })
	c, err := open(channel)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = channel.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("serial: waiting for the guest: %w", err)
	}
	return c, nil
}

func open(channel net.Conn) (*hostConn, error) {
	number := make([]byte, idLength/2)
	_, _ = rand.Read(number)
	id := hex.EncodeToString(number)
	if _, err := channel.Write(mark(opens, id)); err != nil {
		return nil, err
	}
	c := &hostConn{Conn: channel, buffer: make([]byte, chunk)}
	for {
		n, err := channel.Read(c.buffer)
		if err != nil {
			return nil, err
		}
		for rest := c.buffer[:n]; len(rest) > 0; {
			var kind byte
			var got string
			// What an earlier connection was cut off in may be anything.
			if _, kind, got, rest, err = c.in.next(rest); err == nil && kind == accepts && got == id {
				c.rest = rest
				return c, nil
			}
		}
	}
}

// hostConn is a connection's end at the host. One goroutine reads.
type hostConn struct {
	net.Conn

	in     decoder
	buffer []byte
	rest   []byte // of buffer, not yet decoded
	data   []byte // decoded, not yet read

	writing sync.Mutex // guards out
	out     []byte
}

// Read reads what the guest has sent. A mark within is ErrProtocol: a guest has
// nothing to accept that was not opened.
func (c *hostConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.data) == 0 {
		if len(c.rest) == 0 {
			n, err := c.Conn.Read(c.buffer)
			if err != nil {
				return 0, err
			}
			c.rest = c.buffer[:n]
		}
		var kind byte
		var err error
		if c.data, kind, _, c.rest, err = c.in.next(c.rest); err != nil || kind != 0 {
			return 0, ErrProtocol
		}
	}
	n := copy(p, c.data)
	c.data = c.data[n:]
	return n, nil
}

// Write sends p, or as much of it as can be sent before the connection ends.
func (c *hostConn) Write(p []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	return writeEncoded(c.Conn, &c.out, p)
}

// writeEncoded writes p, piece by piece; n counts bytes of p.
func writeEncoded(w io.Writer, out *[]byte, p []byte) (n int, err error) {
	for len(p) > 0 {
		piece := p[:min(len(p), chunk)]
		*out = encode((*out)[:0], piece)
		if _, err := w.Write(*out); err != nil {
			return n, err
		}
		n += len(piece)
		p = p[len(piece):]
	}
	return n, nil
}

// Port is the guest's end of the channel.
type Port struct {
	file  io.ReadWriter
	fresh chan *guestConn // opened by the host and not yet taken; the newest only

	writing sync.Mutex // guards what follows
	out     []byte
	current *guestConn // the one that what comes is for
}

// absent is how long a port whose host is away is left alone.
const absent = 20 * time.Millisecond

// Listen takes the guest's end of the channel, which is read as long as there
// is one. A read of nothing (io.EOF) says that no host is there at the moment.
// Ended receives the error with which reading has failed for good.
func Listen(file io.ReadWriter) (port *Port, ended <-chan error) {
	p := &Port{file: file, fresh: make(chan *guestConn, 1)}
	done := make(chan error, 1)
	go func() {
		done <- p.read()
	}()
	return p, done
}

// Accept returns the connection that the host has opened last, once there is one
// that has not been returned. Somebody must always be about to take and to read
// it: what comes for it holds up what comes behind.
func (p *Port) Accept(ctx context.Context) (net.Conn, error) {
	select {
	case c := <-p.fresh:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *Port) read() error {
	buffer := make([]byte, chunk)
	var in decoder
	for {
		n, err := p.file.Read(buffer)
		for rest := buffer[:n]; len(rest) > 0; {
			var data []byte
			var kind byte
			var id string
			var broken error
			data, kind, id, rest, broken = in.next(rest)
			switch {
			case broken != nil:
				p.replace(nil)
			case kind == opens:
				if err := p.accept(id); err != nil {
					return err
				}
			case len(data) > 0:
				p.deliver(data)
			}
		}
		if errors.Is(err, io.EOF) {
			p.replace(nil)
			time.Sleep(absent)
			continue
		}
		if err != nil {
			p.replace(nil)
			return err
		}
	}
}

// accept ends the connection that there is and begins another.
func (p *Port) accept(id string) error {
	c := newGuestConn(p)
	p.replace(c)
	p.writing.Lock()
	_, err := p.file.Write(mark(accepts, id))
	p.writing.Unlock()
	if err != nil {
		return fmt.Errorf("serial: accepting a connection: %w", err)
	}
	select {
	case old := <-p.fresh: // nobody has come for it
		_ = old.Close()
	default:
	}
	p.fresh <- c
	return nil
}

// replace ends the connection that there is. A write of its that is under way
// ends before another's begins.
func (p *Port) replace(c *guestConn) {
	p.writing.Lock()
	old := p.current
	p.current = c
	if old != nil {
		old.end()
	}
	p.writing.Unlock()
}

func (p *Port) deliver(data []byte) {
	p.writing.Lock()
	c := p.current
	p.writing.Unlock()
	if c != nil {
		_, _ = c.incoming.Write(data) // fails once it is closed
	}
}

// guestConn is a connection's end in the guest.
type guestConn struct {
	port     *Port
	outgoing *io.PipeReader // what has come from the host
	incoming *io.PipeWriter
	closed   chan struct{}
	once     sync.Once
}

func newGuestConn(p *Port) *guestConn {
	r, w := io.Pipe()
	return &guestConn{port: p, outgoing: r, incoming: w, closed: make(chan struct{})}
}

// Read reads what the host has sent; io.EOF when the connection has ended.
func (c *guestConn) Read(b []byte) (int, error) { return c.outgoing.Read(b) }

// Write sends b. It may wait for a host that is away.
func (c *guestConn) Write(b []byte) (int, error) {
	p := c.port
	p.writing.Lock()
	defer p.writing.Unlock()
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
		return writeEncoded(p.file, &p.out, b)
	}
}

// end ends the connection: its reader sees that, and nothing can be written.
func (c *guestConn) end() {
	c.once.Do(func() {
		close(c.closed)
		_ = c.incoming.Close()
	})
}

// Close ends the connection on this side; the host is not told. Idempotent.
func (c *guestConn) Close() error {
	c.end()
	return c.outgoing.Close()
}

type address struct{}

func (address) Network() string { return "serial" }
func (address) String() string  { return "serial" }

func (c *guestConn) LocalAddr() net.Addr              { return address{} }
func (c *guestConn) RemoteAddr() net.Addr             { return address{} }
func (c *guestConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *guestConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *guestConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
