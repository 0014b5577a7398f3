package idp

import (
	"context"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits on what a client may send or hold open.
const (
	maxHeaderBytes = 64 << 10
	maxBodyBytes   = 32 << 20 // a prompt with its tools' descriptions is large
	headerTimeout  = 30 * time.Second
	idleTimeout    = 5 * time.Minute
)

// DefaultPassword signs in to every account unless Config.Password says
// otherwise.
const DefaultPassword = "open-sesame"

// Config says how the provider is started. The zero value is usable.
type Config struct {
	// Listen is the proxy's address; default "127.0.0.1:0".
	Listen string
	// Listener, if not nil, is served in place of Listen.
	Listener net.Listener
	// StateDir keeps the test CA between runs; empty: a new CA, in memory.
	StateDir string
	// ProxyUsers maps user names to passwords. If it is not empty, every
	// request needs Proxy-Authorization (Basic) with one of them; without it
	// the answer is 407.
	ProxyUsers map[string]string
	// Password is what the sign-in pages accept, for any email address;
	// default DefaultPassword.
	Password string
	// AccessTTL is how long an access token lives; default 8 hours.
	AccessTTL time.Duration
	// Sites are further hosts, served over both https and plain http.
	Sites map[string]http.Handler
	// Logger may be nil. No secret is logged.
	Logger *slog.Logger
}

// Server is a running identity provider. All methods may be called
// concurrently.
type Server struct {
	cfg    Config
	log    *slog.Logger
	ca     *authority
	signer *jwtSigner
	ledger *ledger
	faults *faultSet
	rec    *recorder
	mux    *http.ServeMux
	hosts  map[string]Provider // the providers' hosts

	addr    net.Addr
	outer   *http.Server // speaks the proxy protocol
	inner   *http.Server // speaks to clients inside their tunnels
	tunnels *queueListener
	cancel  context.CancelFunc
	stopCtx func() bool

	running sync.WaitGroup // the two Serve loops

	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // handlers; Add only under mu with closed false
}

// Start starts the provider. It ends when ctx does or at Close, whichever is
// first; Close must be called in any case and waits until everything ended.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Listen == "" {
		cfg.Listen = "127.0.0.1:0"
	}
	if cfg.Password == "" {
		cfg.Password = DefaultPassword
	}
	if cfg.AccessTTL == 0 {
		cfg.AccessTTL = 8 * time.Hour
	}
	if cfg.AccessTTL < 0 {
		return nil, errors.New("idp: AccessTTL is negative")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	ca, err := newAuthority(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	signer, err := newJWTSigner()
	if err != nil {
		return nil, err
	}
	l := cfg.Listener
	if l == nil {
		if l, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("idp: listen: %w", err)
		}
	}
	s := &Server{
		cfg: cfg, log: cfg.Logger, ca: ca, signer: signer,
		ledger:  newLedger(cfg.AccessTTL),
		faults:  newFaultSet(),
		rec:     newRecorder(),
		mux:     http.NewServeMux(),
		hosts:   make(map[string]Provider),
		addr:    l.Addr(),
		tunnels: newQueueListener(l.Addr()),
	}
	s.routes()
	s.serve(ctx, l)
	return s, nil
}

func (s *Server) serve(ctx context.Context, l net.Listener) {
	base, cancel := context.WithCancel(ctx)
	s.cancel = cancel
	quiet := slog.NewLogLogger(s.log.Handler(), slog.LevelDebug)
	s.outer = &http.Server{
		Handler: s.whileOpen(http.HandlerFunc(s.proxy)), ErrorLog: quiet,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return base },
	}
	s.inner = &http.Server{
		Handler: s.whileOpen(http.HandlerFunc(s.inside)), ErrorLog: quiet,
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return base },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if tc, ok := c.(*tls.Conn); ok {
				c = tc.NetConn()
			}
			if t, ok := c.(*tunnel); ok {
				return context.WithValue(ctx, tunnelKey{}, t)
			}
			return ctx
		},
	}
	s.running.Go(func() { s.ended(s.outer.Serve(l)) })
	s.running.Go(func() { s.ended(s.inner.Serve(s.tunnels)) })
	s.stopCtx = context.AfterFunc(ctx, s.shut)
}

func (s *Server) ended(err error) {
	if !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		s.log.Error("the test identity provider stopped", "error", err)
	}
}

// shut ends everything without waiting. Idempotent.
func (s *Server) shut() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.tunnels.Close()
	s.outer.Close()
	s.inner.Close()
}

// Close ends every connection and returns when no goroutine of the server is
// left. Idempotent.
func (s *Server) Close() error {
	s.stopCtx()
	s.shut()
	s.running.Wait()
	s.active.Wait()
	return nil
}

// whileOpen counts running handlers, so that Close can wait for them.
func (s *Server) whileOpen(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			panic(http.ErrAbortHandler)
		}
		s.active.Add(1)
		s.mu.Unlock()
		defer s.active.Done()
		h.ServeHTTP(w, r)
	})
}

// Addr is the proxy's host and port.
func (s *Server) Addr() string { return s.addr.String() }

// ProxyURL is the proxy's URL with the credentials of the named proxy user, or
// without credentials if user is empty or unknown.
func (s *Server) ProxyURL(user string) string {
	u := url.URL{Scheme: "http", Host: s.Addr()}
	if pw, ok := s.cfg.ProxyUsers[user]; ok {
		u.User = url.UserPassword(user, pw)
	}
	return u.String()
}

// CAPEM is the test CA's certificate.
func (s *Server) CAPEM() []byte { return slices.Clone(s.ca.pem) }

// Certificate is one of the test CA's for another server, found at a name or an
// address.
func (s *Server) Certificate(host string) (*tls.Certificate, error) { return s.ca.leaf(host) }

// Hosts are the names that the server answers for, sorted.
func (s *Server) Hosts() []string {
	all := slices.Collect(maps.Keys(s.hosts))
	all = slices.AppendSeq(all, maps.Keys(s.cfg.Sites))
	slices.Sort(all)
	return all
}

// known says whether the server answers for host.
func (s *Server) known(host string) bool {
	if _, ok := s.hosts[host]; ok {
		return true
	}
	_, ok := s.cfg.Sites[host]
	return ok
}

// proxyUser returns who sent the request, by its Proxy-Authorization.
func (s *Server) proxyUser(r *http.Request) (user string, ok bool) {
	scheme, b64, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	if strings.EqualFold(scheme, "Basic") {
		raw, err := base64.StdEncoding.DecodeString(b64)
		if err == nil {
			name, pw, _ := strings.Cut(string(raw), ":")
			want, exists := s.cfg.ProxyUsers[name]
			if exists && subtle.ConstantTimeCompare([]byte(pw), []byte(want)) == 1 {
				return name, true
			}
		}
	}
	return "", len(s.cfg.ProxyUsers) == 0
}
