// Package stream carries a machine's screen or terminal between the person's
// browser (a WebSocket) and the machine (a byte stream over its line). It
// knows nothing of users: who may connect to what is decided by the function
// that opens the stream for a ticket.
package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// The close codes that are ours. They are part of the API.
const (
	CodeBadMessage websocket.StatusCode = 4400 // the first message was not a ticket, or a later one was not understood
	CodeBadTicket  websocket.StatusCode = 4401 // wrong, used, too old; or the user was signed out
	CodeNotFound   websocket.StatusCode = 4404 // no such session or machine
	CodeNoTicket   websocket.StatusCode = 4408 // no ticket came in time
	CodeEnded      websocket.StatusCode = 4409 // nothing to show: not yet, or no longer
)

// Causes with which the caller cancels the context of a connection, so that
// the page is told why.
var (
	ErrSignedOut = errors.New("stream: the user was signed out")
	ErrStopping  = errors.New("stream: the server is stopping")
)

const (
	// maxMessage limits one message from a viewer: a pasted text, at most.
	maxMessage = 1 << 20
	bufferSize = 32 << 10
)

// Options are the time limits of one connection and what the caller knows of
// its other end. The zero value of each is its default.
type Options struct {
	FirstMessage time.Duration // until the ticket must be there; 5 s
	Open         time.Duration // for opening the machine's end; 20 s
	Ping         time.Duration // between two keepalive pings; 15 s
	Pong         time.Duration // for the answer to a ping; 30 s
	Write        time.Duration // for one message to the viewer; 20 s
	// Ended is asked when the machine's end broke off: true says that it was
	// meant to (the session is over), so that the page need not try again. nil
	// is never.
	Ended func(context.Context) bool
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.FirstMessage, 5*time.Second)
	def(&o.Open, 20*time.Second)
	def(&o.Ping, 15*time.Second)
	def(&o.Pong, 30*time.Second)
	def(&o.Write, 20*time.Second)
	if o.Ended == nil {
		o.Ended = func(context.Context) bool { return false }
	}
	return o
}

// Stats says how one connection went.
type Stats struct {
	ToViewer   int64 // bytes
	FromViewer int64 // bytes
	Code       websocket.StatusCode
	// Err is for the log; nil when one of the ends simply closed.
	Err error
}

// Opener connects to the machine for a ticket, which it consumes. Its errors
// decide the close code: ErrTicket, store.ErrNotFound, session.ErrConflict,
// machine.ErrGone, session.ErrNotReady; every other one is internal.
type Opener func(ctx context.Context, ticket string) (io.ReadWriteCloser, error)

// ServeVNC serves one viewer: the first message is the ticket, from then on
// binary messages are the bytes of the RFB protocol in both directions. It
// returns when both directions have ended, the WebSocket is closed and so is
// what open returned; cancelling ctx ends it within seconds.
func ServeVNC(ctx context.Context, ws *websocket.Conn, open Opener, opts Options) Stats {
	return serve(ctx, ws, open, opts, codec{toMachine: rawToMachine, toViewer: rawToViewer})
}

// ServeTerminal serves one terminal in the same way. Binary messages are the
// terminal's bytes, a text message from the page changes its size; towards the
// machine the stream consists of guestapi terminal frames.
func ServeTerminal(ctx context.Context, ws *websocket.Conn, open Opener, opts Options) Stats {
	return serve(ctx, ws, open, opts, codec{toMachine: termToMachine, toViewer: termToViewer})
}

// codec is the difference between a screen and a terminal.
type codec struct {
	// toMachine handles one message of the viewer.
	toMachine func(c *conn, typ websocket.MessageType, r io.Reader, buf []byte) *closing
	// toViewer handles what the machine sends next.
	toViewer func(c *conn, buf []byte) *closing
}

// closing is why a connection ends: what the page is told, what the log is.
type closing struct {
	code   websocket.StatusCode
	reason string // a plain sentence of at most 123 bytes
	err    error
}

// conn is one connection while it is served.
type conn struct {
	ws       *websocket.Conn
	machine  io.ReadWriteCloser
	opts     Options
	toViewer atomic.Int64
	fromView atomic.Int64
}

func serve(ctx context.Context, ws *websocket.Conn, open Opener, opts Options, cd codec) Stats {
	c := &conn{ws: ws, opts: opts.withDefaults()}
	end := c.admit(ctx, open)
	if end == nil {
		end = c.run(ctx, cd)
	}
	// Close waits a few seconds for the viewer's own close frame, then cuts.
	_ = ws.Close(end.code, end.reason)
	return Stats{ToViewer: c.toViewer.Load(), FromViewer: c.fromView.Load(), Code: end.code, Err: end.err}
}

// admit takes the ticket and opens the machine's end.
func (c *conn) admit(ctx context.Context, open Opener) *closing {
	ticket, end := c.firstMessage(ctx)
	if end != nil {
		return end
	}
	octx, cancel := context.WithTimeout(ctx, c.opts.Open)
	defer cancel()
	m, err := open(octx, ticket)
	if err != nil {
		return refused(ctx, err)
	}
	c.machine = m
	c.ws.SetReadLimit(maxMessage)
	return nil
}

// firstMessage waits for the ticket. The read itself is not cancelled by time:
// the library would cut the connection without a close code.
func (c *conn) firstMessage(ctx context.Context) (string, *closing) {
	type message struct {
		typ  websocket.MessageType
		data []byte
		err  error
	}
	c.ws.SetReadLimit(MaxTicketMessage)
	got := make(chan message, 1)
	go func() {
		typ, data, err := c.ws.Read(context.WithoutCancel(ctx))
		got <- message{typ, data, err}
	}()
	timer := time.NewTimer(c.opts.FirstMessage)
	defer timer.Stop()
	var end *closing
	select {
	case m := <-got:
		if m.err != nil {
			return "", viewerGone(m.err)
		}
		ticket, err := parseTicket(m.data)
		if m.typ != websocket.MessageText || err != nil {
			return "", &closing{CodeBadMessage, "The first message was not a ticket.", nil}
		}
		return ticket, nil
	case <-timer.C:
		end = &closing{CodeNoTicket, "No ticket came in time.", nil}
	case <-ctx.Done():
		end = cancelled(ctx)
	}
	_ = c.ws.Close(end.code, end.reason) // ends the read
	<-got
	return "", end
}

// run carries bytes until the first of the two directions, the keepalive or
// ctx ends, then ends the others.
func (c *conn) run(ctx context.Context, cd codec) *closing {
	ended := make(chan *closing, 3)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { ended <- c.pumpToMachine(cd) })
	wg.Go(func() { ended <- c.pumpToViewer(cd) })
	wg.Go(func() {
		if end := c.keepalive(done); end != nil {
			ended <- end
		}
	})
	var end *closing
	select {
	case end = <-ended:
	case <-ctx.Done():
		end = cancelled(ctx)
	}
	if end.code == websocket.StatusTryAgainLater && ctx.Err() == nil && c.opts.Ended(ctx) {
		end = &closing{CodeEnded, "This has ended.", end.err}
	}
	close(done)
	_ = c.machine.Close()
	_ = c.ws.Close(end.code, end.reason)
	wg.Wait()
	return end
}

func (c *conn) pumpToMachine(cd codec) *closing {
	buf := make([]byte, bufferSize)
	for {
		typ, r, err := c.ws.Reader(context.Background())
		if err != nil {
			return viewerGone(err)
		}
		if end := cd.toMachine(c, typ, r, buf); end != nil {
			return end
		}
	}
}

func (c *conn) pumpToViewer(cd codec) *closing {
	buf := make([]byte, bufferSize)
	for {
		if end := cd.toViewer(c, buf); end != nil {
			return end
		}
	}
}

// keepalive finds viewers that went away without a word, and those that no
// longer read: a pong is only seen while the machine takes what the viewer
// sends.
func (c *conn) keepalive(done <-chan struct{}) *closing {
	tick := time.NewTicker(c.opts.Ping)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), c.opts.Pong)
		err := c.ws.Ping(ctx)
		cancel()
		if err != nil {
			return &closing{websocket.StatusGoingAway, "The connection no longer answered.", err}
		}
	}
}

// send writes one message to the viewer. A viewer that does not take it in
// time is cut off: the machine's own stream waits meanwhile.
func (c *conn) send(typ websocket.MessageType, p []byte) *closing {
	ctx, cancel := context.WithTimeout(context.Background(), c.opts.Write)
	defer cancel()
	if err := c.ws.Write(ctx, typ, p); err != nil {
		return viewerGone(err)
	}
	return nil
}

func refused(ctx context.Context, err error) *closing {
	switch {
	case ctx.Err() != nil:
		return cancelled(ctx)
	case errors.Is(err, ErrTicket):
		return &closing{CodeBadTicket, "The ticket is not good: it is wrong, was used before, or is too old.", nil}
	case errors.Is(err, store.ErrNotFound):
		return &closing{CodeNotFound, "There is nothing here by that name.", nil}
	case errors.Is(err, session.ErrConflict), errors.Is(err, machine.ErrGone):
		return &closing{CodeEnded, "There is nothing to show: it has not started yet, or it has ended.", nil}
	case errors.Is(err, session.ErrNotReady):
		return &closing{websocket.StatusTryAgainLater, "The server is just starting or stopping; connect again in a moment.", nil}
	}
	return &closing{websocket.StatusInternalError, "Something went wrong on the server.", fmt.Errorf("stream: open: %w", err)}
}

func cancelled(ctx context.Context) *closing {
	if errors.Is(context.Cause(ctx), ErrSignedOut) {
		return &closing{CodeBadTicket, "You were signed out.", nil}
	}
	return &closing{websocket.StatusGoingAway, "The server is stopping; connect again in a moment.", nil}
}

// viewerGone is the end of a connection from the viewer's side. That a viewer
// closes, or vanishes, is nothing for the log.
func viewerGone(err error) *closing {
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return &closing{websocket.StatusMessageTooBig, "A message was too long.", nil}
	}
	return &closing{websocket.StatusNormalClosure, "", nil}
}

// machineGone is the end of a connection from the machine's side.
func machineGone(err error) *closing {
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return &closing{websocket.StatusTryAgainLater, "The connection to the machine broke off.", err}
}
