// Package httpapi is the service's HTTP side: routes, who is asking, errors as
// RFC 9457 problems, events as server-sent events, and the WebSockets of the
// viewer and the terminal. Routes and bodies are generated from
// api/openapi.yaml; what happens behind them is UseCases.
package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/stream/rtc"
	"github.com/anteroom/anteroom/internal/web"
)

// Config is what a Server needs. UseCases and Auth are required; the zero
// value of everything else is its default.
type Config struct {
	UseCases UseCases
	Outward  Outward
	Auth     Auth
	// WebRTC shows screens that way; nil: there is noVNC only. The caller closes
	// it, after Shutdown.
	WebRTC *rtc.Gateway
	// IceServers are handed to pages, with credentials of the moment; nil: none.
	IceServers func() []rtc.IceServer

	// Hosts are the host names, without port, under which the service may be
	// reached beside those of the loopback interface. A request for any other
	// name is refused: a page that had its own name point here could otherwise
	// act as if it were ours.
	Hosts []string
	// BehindProxy says that a reverse proxy of the operator's is in front, whose
	// X-Forwarded-Proto and X-Forwarded-For are to be believed.
	BehindProxy bool
	// MetricsPublic serves /metrics without a user.
	MetricsPublic bool
	// Connect says that this is the server of one `anteroom connect`.
	Connect bool

	Version string
	// Ready says whether the service can take sign-ins; nil is always. Whoever
	// asks is told of session.ErrNotReady and ErrMachines, of other errors that
	// the log has them.
	Ready func(context.Context) error
	// Registry takes the server's metrics and is what /metrics shows; nil is one
	// of its own.
	Registry *prometheus.Registry
	Logger   *slog.Logger
	Page     fs.FS // the built page; nil is the embedded one
	Clock    func() time.Time

	CookieTTL time.Duration // 30 days
	Heartbeat time.Duration // of event streams, and between two looks whether a stream's user is still signed in; 15 s
}

const (
	maxBody           = 1 << 20
	maxHeaderBytes    = 16 << 10
	readHeaderTimeout = 5 * time.Second
	readBodyTimeout   = 30 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 2 * time.Minute
	maxStreamsPerUser = 64
)

// Server answers HTTP requests. Its methods may be called concurrently.
type Server struct {
	cfg     Config
	log     *slog.Logger
	hosts   map[string]bool
	mux     *http.ServeMux
	handler http.Handler
	cross   *http.CrossOriginProtection
	logins  *attempts
	live    *liveStreams
	metrics *metrics
}

// New checks cfg and returns a server that is ready to answer.
func New(cfg Config) (*Server, error) {
	if cfg.UseCases == nil || cfg.Auth == nil || cfg.Outward == nil {
		return nil, errors.New("httpapi: UseCases, Auth and Outward are required")
	}
	cfg = withDefaults(cfg)
	s := &Server{
		cfg:    cfg,
		log:    cfg.Logger,
		hosts:  make(map[string]bool),
		mux:    http.NewServeMux(),
		cross:  http.NewCrossOriginProtection(),
		logins: newAttempts(cfg.Clock),
		live:   newLiveStreams(maxStreamsPerUser),
	}
	for _, h := range cfg.Hosts {
		name, err := cleanHost(h)
		if err != nil {
			return nil, err
		}
		s.hosts[name] = true
		// Behind a proxy that rewrites Host, the page's origin is not r.Host.
		if err := s.cross.AddTrustedOrigin("https://" + name); err != nil {
			return nil, fmt.Errorf("httpapi: host %q: %w", h, err)
		}
	}
	page, err := web.New(cfg.Page)
	if err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	if s.metrics, err = newMetrics(cfg.Registry); err != nil {
		return nil, fmt.Errorf("httpapi: %w", err)
	}
	HandlerWithOptions(api{s}, StdHTTPServerOptions{BaseRouter: s.mux, ErrorHandlerFunc: s.badParameter})
	s.mux.HandleFunc("/api/", s.noSuchRoute)
	s.mux.Handle("/", s.onlyGet(page))
	s.handler = s.observe(s.harden(s.checkOrigin(s.limitBody(s.authenticate(s.mux)))))
	return s, nil
}

func withDefaults(cfg Config) Config {
	if cfg.Registry == nil {
		cfg.Registry = prometheus.NewRegistry()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Ready == nil {
		cfg.Ready = func(context.Context) error { return nil }
	}
	if cfg.Page == nil {
		cfg.Page = web.Built()
	}
	if cfg.CookieTTL == 0 {
		cfg.CookieTTL = 30 * 24 * time.Hour
	}
	if cfg.Heartbeat == 0 {
		cfg.Heartbeat = 15 * time.Second
	}
	return cfg
}

// Handler returns what answers the requests: all routes, and the page.
func (s *Server) Handler() http.Handler { return s.handler }

// HTTPServer returns an http.Server with this handler and the limits that it
// counts on. The caller adds address and certificates and runs it. To stop:
// Shutdown of s first, then that of the http.Server, which would wait for the
// event streams otherwise.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// Shutdown ends all event streams, viewers and terminals, telling the pages to
// come back, and returns once they have ended, or with ctx's error. No new
// ones are let in. Idempotent.
func (s *Server) Shutdown(ctx context.Context) error { return s.live.stop(ctx) }

// api has the handlers of the generated interface.
type api struct{ *Server }

var _ ServerInterface = api{}

// noSuchRoute answers what the generated routes do not: with 405 if the path is
// known for another method, else with 404.
func (s *Server) noSuchRoute(w http.ResponseWriter, r *http.Request) {
	if allow := s.allowed(r); len(allow) > 0 {
		w.Header().Set("Allow", strings.Join(allow, ", "))
		s.problem(w, r, ProblemCodeMethodNotAllowed, "This address does not take "+printable(r.Method)+".")
		return
	}
	s.problem(w, r, ProblemCodeNotFound, "There is nothing at this address.")
}

func (s *Server) allowed(r *http.Request) []string {
	var out []string
	for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		try := r.Clone(r.Context())
		try.Method = m
		if _, pattern := s.mux.Handler(try); strings.HasPrefix(pattern, m+" ") {
			out = append(out, m)
		}
	}
	return out
}

// onlyGet keeps other methods from the page, and tells them which a route
// beside the page takes (POST /healthz).
func (s *Server) onlyGet(page http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.problem(w, r, ProblemCodeMethodNotAllowed, "This address does not take "+printable(r.Method)+".")
			return
		}
		page.ServeHTTP(w, r)
	})
}
