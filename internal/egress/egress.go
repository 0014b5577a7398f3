// Package egress is the forward proxy at the host's end of a machine's line:
// the one place where it is decided what may leave. Each stream that a guest
// opens carries HTTP/1.1 proxy requests: CONNECT, or absolute-form requests
// for plain http.
//
// Who asks is known from the line that a stream came over, never from what it
// says. Only ports 80 and 443 of public names and addresses can be reached.
// Whatever is not clearly allowed is refused, and when a way out fails there
// is no other way: nothing falls back to a direct connection.
//
// A guest is hostile. It can hold MaxConns connections, each with one bounded
// header or one copy buffer per direction, and nothing that it sends ends up
// in a log but the host name and port of its request, the name short and made
// of a name's characters only.
package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// MaxHeaderBytes is the longest request head that a guest may send.
const MaxHeaderBytes = 16 << 10

// Defaults of Config.
const (
	DefaultMaxConns       = 256
	DefaultHeaderTimeout  = 10 * time.Second
	DefaultConnectTimeout = 30 * time.Second
	DefaultIdleTimeout    = 15 * time.Minute
	DefaultTotalTimeout   = 24 * time.Hour
	DefaultMaxBytes       = 64 << 30
)

// Errors that callers tell apart.
var (
	// ErrConfig: the configuration is not usable. It names the rule that was
	// broken and holds no part of an upstream's URL.
	ErrConfig = errors.New("egress: configuration")
	// ErrClosed: the proxy was closed before Serve was called.
	ErrClosed = errors.New("egress: closed")
	// ErrFlood: a guest held more than twice MaxConns connections open.
	ErrFlood = errors.New("egress: the guest opened too many connections")
)

// Config says how a Proxy works. Zero durations and counts mean the defaults.
type Config struct {
	// Rules are for everybody; an Identity may have further ones.
	Rules Rules
	// Roots are the authorities of https upstreams and sites that this host
	// itself asks; nil: the system's.
	Roots *x509.CertPool
	// Health is told when an upstream begins to fail, or works again. It must
	// return at once. Optional.
	Health func(up Upstream, works bool)
	// MaxConns is how many connections one machine may have at a time; more
	// are answered with 503.
	MaxConns int
	// HeaderTimeout is how long a request head may take from its first byte.
	HeaderTimeout time.Duration
	// ConnectTimeout is how long it may take until a destination is reached:
	// name, connection and the upstream's answer together.
	ConnectTimeout time.Duration
	// IdleTimeout is how long neither side of a connection may send a byte.
	IdleTimeout time.Duration
	// TotalTimeout is how long one connection may last.
	TotalTimeout time.Duration
	// MaxBytes is how much one connection may carry, both directions together.
	MaxBytes int64
	// Logger gets one line per connection or plain request; nil: none.
	Logger *slog.Logger
	// Registerer gets the metrics; nil: none.
	Registerer prometheus.Registerer
}

// Identity is whose line it is.
type Identity struct {
	UserID    string
	MachineID string
	SessionID string // empty for a CLI machine
	Rules     Rules  // beside those for everybody
}

// network is what the proxy needs of the world outside: the boundary at which
// the tests of this package put a fake.
type network struct {
	dial    func(ctx context.Context, network, addr string) (net.Conn, error)
	resolve func(ctx context.Context, network, host string) ([]netip.Addr, error)
	own     func() ([]netip.Addr, error) // this host's own addresses
}

// Proxy serves the lines of all machines. All methods may be called
// concurrently.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	net     network
	metrics *metrics
	buffers sync.Pool // of *[]byte, largeBuffer long

	ctx    context.Context // ends at Close
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	serving sync.WaitGroup // Serve calls; Add only under mu with closed false
	conns   map[string]int // connections by machine
	ways    map[string]*way
	health  map[string]*health // by the upstream's Addr
}

// New checks cfg and returns a proxy, which the caller closes. Nothing leaves
// through it before Open.
func New(cfg Config) (*Proxy, error) {
	var dialer net.Dialer
	return newProxy(cfg, network{
		dial:    dialer.DialContext,
		resolve: net.DefaultResolver.LookupNetIP,
		own:     interfaceAddrs,
	})
}

func newProxy(cfg Config, n network) (*Proxy, error) {
	if cfg.MaxConns == 0 {
		cfg.MaxConns = DefaultMaxConns
	}
	if cfg.HeaderTimeout == 0 {
		cfg.HeaderTimeout = DefaultHeaderTimeout
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = DefaultConnectTimeout
	}
	if cfg.IdleTimeout == 0 {
		cfg.IdleTimeout = DefaultIdleTimeout
	}
	if cfg.TotalTimeout == 0 {
		cfg.TotalTimeout = DefaultTotalTimeout
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	if cfg.MaxConns < 0 || cfg.HeaderTimeout < 0 || cfg.ConnectTimeout < 0 || cfg.IdleTimeout < 0 || cfg.TotalTimeout < 0 || cfg.MaxBytes < 0 {
		return nil, fmt.Errorf("%w: a limit is negative", ErrConfig)
	}
	if err := cfg.Rules.Check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	p := &Proxy{
		cfg: cfg, log: cfg.Logger, net: n, metrics: m,
		conns: map[string]int{}, ways: map[string]*way{}, health: map[string]*health{},
	}
	p.buffers.New = func() any { b := make([]byte, largeBuffer); return &b }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p, nil
}

// Close ends every connection and every Serve, and returns when they have
// ended. Idempotent.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.serving.Wait()
	return nil
}

// interfaceAddrs returns the addresses of this host's network interfaces.
func interfaceAddrs() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out, nil
}
