// Package rtc shows a machine's screen by WebRTC. It ends the peer connection on
// the host: pictures come from the machine as opaque frames of a screen stream
// and leave as RTP, what the viewer does goes back on the same stream. Like
// package stream it knows nothing of users: who may connect to what is decided
// by the function that opens the machine's stream.
//
// All viewers share one UDP port, and one TCP port of the same number. The
// gateway is ICE-lite: it sends nothing to an address that a viewer names, and
// answers only whoever speaks to it with the right password.
package rtc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The codecs that there are, as the machine names them.
const (
	VP8  = "vp8"
	H264 = "h264"
)

// Errors that a caller tells apart.
var (
	ErrOffer          = errors.New("rtc: not an offer that can be taken")
	ErrTooManyViewers = errors.New("rtc: too many viewers")
	ErrClosed         = errors.New("rtc: closed")
)

// offerError is a sentence for whoever made the offer.
type offerError struct{ sentence string }

func (e *offerError) Error() string        { return e.sentence }
func (e *offerError) Is(target error) bool { return target == ErrOffer }

func refuse(format string, args ...any) error { return &offerError{fmt.Sprintf(format, args...)} }

// Config is what a Gateway needs. The zero value of everything but Address is
// its default.
type Config struct {
	// Address is host:port of the UDP and the TCP socket. Port 0 is any that is
	// free for both.
	Address string
	// Public are the addresses that viewers are told; without a port, the
	// sockets'. Empty: the host of Address, or where that is unspecified the
	// addresses of this computer.
	Public []string

	// TurnListen is host:port of a TURN server in this process, that relays to the
	// gateway's own sockets and nowhere else; empty: none.
	TurnListen string

	MaxPerSession int // viewers of one session; 8
	MaxPerUser    int // 16
	MaxViewers    int // 256

	Connect    time.Duration // for a viewer to connect after its offer; 15 s
	FirstFrame time.Duration // for the machine's first picture after it; 10 s

	Registerer prometheus.Registerer // nil: metrics are not shown
	Logger     *slog.Logger
}

func (c Config) withDefaults() Config {
	number := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	number(&c.MaxPerSession, 8)
	number(&c.MaxPerUser, 16)
	number(&c.MaxViewers, 256)
	if c.Connect == 0 {
		c.Connect = 15 * time.Second
	}
	if c.FirstFrame == 0 {
		c.FirstFrame = 10 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Request is a viewer that wants to see a session's screen.
type Request struct {
	Session string
	User    string
	// Window names what the connection belongs to, within the session: its
	// connections control or watch together. Empty: this connection alone.
	Window string
	Offer  []byte
	// Open connects to the machine for the codec that was agreed on. Its errors
	// are Connect's. It is called once, after the offer was found good.
	Open func(ctx context.Context, codec string) (io.ReadWriteCloser, error)
	// Ended is asked when the machine's end broke off: true says that it was
	// meant to. nil is never.
	Ended func(context.Context) bool
}

// Gateway holds the sockets and the viewers. Its methods may be called
// concurrently.
type Gateway struct {
	cfg     Config
	log     *slog.Logger
	sockets *sockets
	turn    *turnServer // nil: none
	metrics *metrics

	partings partings

	mu       sync.Mutex
	closed   bool
	viewers  int
	users    map[string]int
	rooms    map[string]*room // by session
	live     sync.WaitGroup   // the viewers' goroutines
	lastWork context.Context  // ends with Close
	stop     context.CancelCauseFunc
}

// New opens the sockets. Close ends what it began.
func New(cfg Config) (*Gateway, error) {
	cfg = cfg.withDefaults()
	s, err := listen(cfg.Address, cfg.Public)
	if err != nil {
		return nil, err
	}
	var t *turnServer
	if cfg.TurnListen != "" {
		if t, err = newTurnServer(cfg.TurnListen, s); err != nil {
			return nil, errors.Join(fmt.Errorf("TURN: %w", err), s.Close())
		}
	}
	m, err := newMetrics(cfg.Registerer) // last: New may be tried again
	if err != nil {
		if t != nil {
			err = errors.Join(err, t.server.Close())
		}
		return nil, errors.Join(err, s.Close())
	}
	ctx, stop := context.WithCancelCause(context.Background())
	return &Gateway{
		cfg: cfg, log: cfg.Logger, sockets: s, turn: t, metrics: m,
		users: make(map[string]int), rooms: make(map[string]*room),
		lastWork: ctx, stop: stop,
	}, nil
}

// Address is where the sockets listen.
func (g *Gateway) Address() netip.AddrPort { return g.sockets.address }

// Public are the addresses that viewers are told.
func (g *Gateway) Public() []netip.AddrPort { return g.sockets.public }

// Connect answers a viewer's offer. ctx is for the answer; life ends the
// connection, its cause (stream.ErrSignedOut, stream.ErrStopping) is told to the
// page. ErrOffer comes with a sentence for the viewer, ErrTooManyViewers and
// ErrClosed mean what they say, every other error is Open's.
//
// Done of what is returned is closed when nothing of the connection is left.
func (g *Gateway) Connect(ctx, life context.Context, r Request) (*Conn, []byte, error) {
	offer, err := parseOffer(r.Offer)
	if err != nil {
		g.metrics.failed(failedOffer)
		return nil, nil, err
	}
	release, err := g.reserve(r)
	if err != nil {
		g.metrics.failed(failedLimit)
		return nil, nil, err
	}
	c, answer, err := g.connect(ctx, life, r, offer)
	if err != nil {
		release()
		return nil, nil, err
	}
	go func() {
		defer release()
		c.run()
	}()
	return c, answer, nil
}

// reserve takes a place for a viewer, until release is called.
func (g *Gateway) reserve(r Request) (release func(), err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	rm := g.rooms[r.Session]
	if rm == nil {
		rm = &room{}
	}
	if rm.places >= g.cfg.MaxPerSession || g.users[r.User] >= g.cfg.MaxPerUser || g.viewers >= g.cfg.MaxViewers {
		return nil, ErrTooManyViewers
	}
	g.rooms[r.Session] = rm
	rm.places++
	g.users[r.User]++
	g.viewers++
	g.live.Add(1)
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if rm.places--; rm.places == 0 {
			delete(g.rooms, r.Session)
		}
		if g.users[r.User]--; g.users[r.User] == 0 {
			delete(g.users, r.User)
		}
		g.viewers--
		g.live.Done()
	}, nil
}

func (g *Gateway) room(session string) *room {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.rooms[session]
}

// Find returns a user's connection to a session, or nil.
func (g *Gateway) Find(user, session, id string) *Conn {
	rm := g.room(session)
	if rm == nil {
		return nil
	}
	if c := rm.find(id); c != nil && c.req.User == user {
		return c
	}
	return nil
}

// Leave ends a user's connection to a session, as when the viewer leaves, and
// returns the ID of the last message of its ordered channel that was handed on
// to the machine, 0 for none: nothing is handed on after that. It is known for a
// while after the end of a connection too, whatever ended it. false: there is
// and was no such connection.
func (g *Gateway) Leave(ctx context.Context, user, session, id string) (input uint32, ok bool, err error) {
	p := g.partings.find(user, session, id)
	if p == nil {
		return 0, false, nil
	}
	if c := g.Find(user, session, id); c != nil {
		c.end(ending{})
	}
	select {
	case <-p.known:
		return p.input, true, nil
	case <-ctx.Done():
		return 0, true, ctx.Err()
	}
}

// Viewers is how many there are.
func (g *Gateway) Viewers() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.viewers
}

// Close ends all connections, waits for them, and closes the sockets.
func (g *Gateway) Close() error {
	g.mu.Lock()
	first := !g.closed
	g.closed = true
	g.mu.Unlock()
	g.stop(errStopping)
	g.live.Wait()
	if !first {
		return nil
	}
	var err error
	if g.turn != nil {
		err = g.turn.server.Close()
	}
	return errors.Join(err, g.sockets.Close())
}

// IceServers are what pages are told of the TURN server in this process, with
// credentials of the moment; none if there is none.
func (g *Gateway) IceServers() []IceServer {
	if g.turn == nil {
		return nil
	}
	return g.turn.relay.Servers()
}
