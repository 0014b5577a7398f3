package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// betweenRequests is how long a connection may stay without a request:
	// browsers open some in advance.
	betweenRequests = 2 * time.Minute
	// answerTimeout bounds the writing of an answer of this proxy's own.
	answerTimeout = 5 * time.Second
)

// Serve serves the streams of one machine's line until l is closed, ctx ends
// or the proxy is closed. It owns l, and returns when l is closed and every
// goroutine that it started has ended: nil after one of these, ErrFlood if it
// had to end the line, else the error of l.
//
// The streams are those of a line: their Close ends the sending direction only,
// and they may also have a CloseWrite that does.
func (p *Proxy) Serve(ctx context.Context, id Identity, l net.Listener) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		_ = l.Close()
		return ErrClosed
	}
	p.serving.Add(1)
	p.mu.Unlock()
	defer p.serving.Done()

	ctx, cancel := context.WithCancel(ctx)
	defer onEnd(p.ctx, cancel)()
	var conns sync.WaitGroup
	defer func() {
		cancel()
		_ = l.Close() // before the wait: connections end with their line
		conns.Wait()
	}()
	defer onEnd(ctx, func() { _ = l.Close() })()
	lines := newLineLimit()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("egress: accept: %w", err)
		}
		n := p.enter(id.MachineID)
		if n > 2*p.cfg.MaxConns {
			// It goes on opening streams though they are refused, and each
			// holds memory until the guest closes it.
			p.leave(id.MachineID)
			_ = conn.Close()
			return ErrFlood
		}
		conns.Go(func() {
			defer p.leave(id.MachineID)
			c := &guestConn{proxy: p, id: id, conn: conn, br: bufio.NewReaderSize(conn, MaxHeaderBytes), lines: lines}
			c.serve(ctx, n > p.cfg.MaxConns)
		})
	}
}

// enter counts a connection of a machine, and returns how many it has now.
func (p *Proxy) enter(machine string) int {
	p.metrics.active.Inc()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns[machine]++
	return p.conns[machine]
}

func (p *Proxy) leave(machine string) {
	p.metrics.active.Dec()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[machine]--; p.conns[machine] == 0 {
		delete(p.conns, machine)
	}
}

// guestConn is one connection of a guest. One goroutine owns it.
type guestConn struct {
	proxy *Proxy
	id    Identity
	conn  net.Conn
	br    *bufio.Reader // what the guest sends; its size limits a head
	lines *lineLimit
}

// serve answers the connection's requests, one after the other, and leaves it
// closed in both directions.
func (c *guestConn) serve(ctx context.Context, tooMany bool) {
	defer onEnd(ctx, func() { cut(c.conn) })()
	defer c.finish()
	if tooMany {
		c.record(&request{begun: time.Now()}, &Error{Code: TooMany})
		c.refuse(TooMany)
		return
	}
	for ctx.Err() == nil {
		more, err := c.next(ctx)
		if err != nil || !more {
			return
		}
	}
}

// finish ends the sending direction and discards what the guest still sends
// until it ends too. A line's stream keeps what nobody reads in memory, so
// until then the connection counts. The line itself ends a stream that was
// closed on this side only after some minutes.
func (c *guestConn) finish() {
	_ = c.conn.SetReadDeadline(time.Now().Add(c.proxy.cfg.IdleTimeout))
	_ = c.conn.Close()
	_, _ = io.Copy(io.Discard, c.conn)
}

// request is what is recorded of one request.
type request struct {
	begun    time.Time
	target   target
	name     string   // of the target, as the log tells it: see claimed
	port     uint16   // the same
	up       Upstream // the way out
	sent     int64    // bytes from the guest
	received int64    // bytes to the guest
}

// aim notes a target that was accepted.
func (r *request) aim(t target) { r.target, r.name, r.port = t, t.host, t.port }

// next reads one request and answers it. more says whether another may follow.
func (c *guestConn) next(ctx context.Context) (more bool, err error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(betweenRequests))
	if _, err := c.br.Peek(1); err != nil {
		return false, err
	}
	r := &request{begun: time.Now()}
	_ = c.conn.SetReadDeadline(r.begun.Add(c.proxy.cfg.HeaderTimeout))
	req, asked, err := readRequest(c.br)
	_ = c.conn.SetReadDeadline(time.Time{})
	r.name, r.port = claimed(asked)
	if err != nil {
		var refused *Error
		if errors.As(err, &refused) {
			c.refuse(refused.Code)
		}
		c.record(r, err)
		return false, err
	}
	if req.Method == http.MethodConnect {
		err = c.tunnel(ctx, r, req.RequestURI)
	} else {
		more, err = c.plain(ctx, r, req)
	}
	c.record(r, err)
	return more, err
}

// tunnel answers a CONNECT.
func (c *guestConn) tunnel(ctx context.Context, r *request, authority string) error {
	t, err := parseTarget(authority, 0)
	if err != nil {
		c.refuse(codeOf(err, BadTarget))
		return err
	}
	r.aim(t)
	ctx, stop, err := c.leave(ctx, r)
	if err != nil {
		c.refuse(codeOf(err, NoUpstream))
		return err
	}
	defer stop()
	out, err := c.proxy.reach(ctx, r.up, t)
	if err != nil {
		err = ended(ctx, err)
		c.refuse(codeOf(err, ConnectFailed))
		return err
	}
	defer func() { _ = out.Close() }()
	defer onEnd(ctx, func() { cut(out); cut(c.conn) })()
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	if _, err := io.WriteString(c.conn, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return nil // the guest has gone
	}
	_ = c.conn.SetWriteDeadline(time.Time{})
	tooMuch := c.proxy.join(c.conn, c.ahead(), out, r)
	if tooMuch {
		return &Error{Code: TooMuch}
	}
	return ended(ctx, nil)
}

// ahead is what the guest sends from here on. The reader of heads goes, with its
// buffer, once it holds nothing more.
func (c *guestConn) ahead() io.Reader {
	br := c.br
	if c.br = nil; br.Buffered() == 0 {
		return c.conn
	}
	return br
}

// leave holds a request to the rules and finds the way out for it, in r. The
// context ends when that way is shut or the connection has lasted too long;
// the caller calls stop.
func (c *guestConn) leave(ctx context.Context, r *request) (_ context.Context, stop func(), err error) {
	for _, rules := range []Rules{c.proxy.cfg.Rules, c.id.Rules} {
		if err := rules.permits(r.target); err != nil {
			return nil, nil, err
		}
	}
	w, err := c.proxy.wayOf(ctx, c.id.UserID)
	if err != nil {
		return nil, nil, err
	}
	r.up = w.up
	ctx, cancel := context.WithCancelCause(ctx)
	ctx, late := context.WithTimeoutCause(ctx, c.proxy.cfg.TotalTimeout, &Error{Code: TooLong})
	unhook := onEnd(w.ctx, func() { cancel(&Error{Code: WayShut}) })
	return ctx, func() { unhook(); late(); cancel(nil) }, nil
}

// ended returns why this proxy ended a connection, where it did, or err.
func ended(ctx context.Context, err error) error {
	var e *Error
	if errors.As(context.Cause(ctx), &e) {
		return e
	}
	return err
}

// refuse answers with a code and its sentence. Whether the guest reads it is
// its own affair: the connection is closed after it.
func (c *guestConn) refuse(code Code) {
	status, sentence := code.answer()
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, _ = fmt.Fprintf(c.conn, "HTTP/1.1 %d %s\r\n%s: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
		status, http.StatusText(status), Header, code, len(sentence)+1, sentence)
}

// record logs and counts a request that was decided on: every line has the same
// attributes, of which a name of "" and a port of 0 say that none was read. A
// connection that ended before there was a request leaves no trace.
func (c *guestConn) record(r *request, err error) {
	decision := Allowed
	if err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return
		}
		decision = e.Code
	}
	c.proxy.metrics.decisions.WithLabelValues(string(decision)).Inc()
	ok, dropped := c.lines.take(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("user", c.id.UserID), slog.String("session", c.id.SessionID), slog.String("machine", c.id.MachineID),
		slog.String("name", r.name), slog.Int("port", int(r.port)),
		slog.String("upstream", r.up.Addr()),
		slog.Int64("bytes_up", r.sent), slog.Int64("bytes_down", r.received),
		slog.Duration("duration", time.Since(r.begun)), slog.String("decision", string(decision)),
	}
	if err != nil {
		attrs = append(attrs, slog.String("err", err.Error()))
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("dropped_lines", dropped))
	}
	c.proxy.log.LogAttrs(context.Background(), slog.LevelInfo, "egress", attrs...)
}

// lineLimit keeps a guest from filling the host's log: lineBurst lines at
// once, then linesPerSecond. Metrics count what is not logged.
type lineLimit struct {
	mu      sync.Mutex
	left    float64
	last    time.Time
	dropped int
}

const (
	lineBurst      = 500
	linesPerSecond = 20
)

func newLineLimit() *lineLimit { return &lineLimit{left: lineBurst, last: time.Now()} }

// take says whether a line may be logged, and how many were not since the
// last one that was.
func (l *lineLimit) take(now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left = min(lineBurst, l.left+linesPerSecond*now.Sub(l.last).Seconds())
	l.last = now
	if l.left < 1 {
		l.dropped++
		return false, 0
	}
	l.left--
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}
