// Package line is the one byte channel between a machine and its host,
// multiplexed into streams (yamux). The streams that the host opens are HTTP
// requests to the guest agent, or upgrades for pictures and terminals; the
// streams that the guest opens are requests to the host's egress proxy.
//
// The other end of a line is hostile: what it can make this end hold in memory
// is bounded by Window times the number of open streams, which are at most
// MaxStreams; a frame that breaks the protocol, and more pings than a keepalive
// needs, end the line; and a peer that stops reading or answering ends it after
// Patience.
package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/hashicorp/yamux"
)

const (
	// Window is how many bytes one stream may have under way, unread.
	Window = 512 << 10
	// Backlog is how many streams may be opened and not yet accepted.
	Backlog = 256
	// Patience is how long a write may block and a keepalive may stay
	// unanswered. It is long because ten machines may start at once on two cores.
	Patience = 20 * time.Second
	// MaxStreams is how many streams may be there at a time, of both ends
	// together, before a host gives the line up. A stream that this end has
	// closed counts until the other end closes it too, at most lingering. (The
	// egress has a lower limit for those that the guest opens.)
	MaxStreams = 1024
	lingering  = time.Minute
	// Upgrade is the protocol name of streams that turn into raw bytes.
	Upgrade = "anteroom-stream"
)

// ErrClosed is returned once the line is closed or broken. It is a
// net.ErrClosed too.
var ErrClosed = fmt.Errorf("line: %w", net.ErrClosed)

// errStreams says that the other end keeps streams open that this one closed.
var errStreams = errors.New("too many streams are open")

// Line is one end of the channel. Its methods may be called concurrently.
type Line struct {
	session *yamux.Session
}

// Host takes the host's end over conn, which the line then owns.
func Host(conn net.Conn) (*Line, error) { return open(&guard{Conn: conn}, yamux.Client) }

// Guest takes the guest's end over conn, which the line then owns.
func Guest(conn net.Conn) (*Line, error) { return open(conn, yamux.Server) }

func open(conn net.Conn, side func(io.ReadWriteCloser, *yamux.Config) (*yamux.Session, error)) (*Line, error) {
	cfg := yamux.DefaultConfig()
	cfg.AcceptBacklog = Backlog
	cfg.MaxStreamWindowSize = Window
	cfg.ConnectionWriteTimeout = Patience
	cfg.KeepAliveInterval = Patience
	cfg.StreamOpenTimeout = Patience
	cfg.StreamCloseTimeout = lingering
	cfg.LogOutput = io.Discard // the guest chooses what would be logged; errors reach the callers
	session, err := side(&together{Conn: conn}, cfg)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("line: %w", err)
	}
	return &Line{session: session}, nil
}

// Dial opens a stream to the other end.
func (l *Line) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.session.NumStreams() >= MaxStreams {
		_ = l.Close()
		return nil, fmt.Errorf("%w: %w", ErrClosed, errStreams)
	}
	stream, err := l.session.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return stream, nil
}

// Accept waits for a stream that the other end opens.
func (l *Line) Accept() (net.Conn, error) {
	stream, err := l.session.AcceptStream()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClosed, err)
	}
	return stream, nil
}

// Close ends the line and all its streams. Idempotent.
func (l *Line) Close() error { return l.session.Close() }

// Addr makes a Line a net.Listener for the streams of the other end.
func (l *Line) Addr() net.Addr { return l.session.LocalAddr() }

// Done is closed when the line has ended, from either side.
func (l *Line) Done() <-chan struct{} { return l.session.CloseChan() }

// Client returns an HTTP client whose every request is a stream of this line,
// whatever its URL's host. Response headers are limited to maxHeader bytes.
func (l *Line) Client(maxHeader int64) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) },
			DisableKeepAlives:      true,
			DisableCompression:     true,
			MaxResponseHeaderBytes: maxHeader,
		},
		// A guest has no business sending the host anywhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
