package httpapi

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// observe is the outermost handler: it counts, and turns a panic into a problem.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		_, pattern := s.mux.Handler(r)
		r = withRoute(r, pattern)
		defer func() {
			p := recover()
			aborted := p == http.ErrAbortHandler //nolint:errorlint // it is panicked with as it is
			if p != nil && !aborted {
				s.log.ErrorContext(r.Context(), "panic", slog.Any("panic", p), slog.String("route", pattern), slog.String("stack", string(debug.Stack())))
				if rec.status == 0 {
					s.problem(rec, r, ProblemCodeInternal, internalDetail)
				} else {
					aborted = true // half an answer must not look like a whole one
				}
			}
			s.metrics.request(r.Method, pattern, rec.status, time.Since(start))
			s.log.DebugContext(r.Context(), "request", slog.String("route", pattern), slog.Int("status", rec.status), slog.Duration("took", time.Since(start)))
			if aborted {
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush, hijack and set deadlines.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// harden checks the Host header and sets the headers that keep the page and
// the API to themselves.
func (s *Server) harden(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
		if s.secure(r) {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		// Health checks come by address: a prober in a cluster knows no name.
		if !s.hostAllowed(r.Host) && !isHealth(route(r)) {
			h.Set("Content-Security-Policy", policy("", false))
			s.problem(w, r, ProblemCodeHostRefused, "The server does not answer under this name. Use the address that it printed, or add the name to its configuration (hosts).")
			return
		}
		h.Set("Content-Security-Policy", policy(r.Host, s.secure(r)))
		next.ServeHTTP(w, r)
	})
}

func isHealth(pattern string) bool { return pattern == "GET /healthz" || pattern == "GET /readyz" }

// policy is the Content-Security-Policy: nothing from elsewhere, nothing
// inline. The page gives xterm.js, which writes style elements, a document that
// does the same through the object model.
func policy(host string, secure bool) string {
	connect := "'self'"
	if host != "" { // 'self' does not cover WebSockets in older browsers
		scheme := "ws://"
		if secure {
			scheme = "wss://"
		}
		connect += " " + scheme + host
	}
	return "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; " +
		"font-src 'self'; connect-src " + connect + "; worker-src 'self'; manifest-src 'self'; " +
		"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// hostAllowed says whether a Host header names this server. It may be put into
// a header afterwards: nothing but a known name and a port passes.
func (s *Server) hostAllowed(host string) bool {
	name, ok := splitHost(host)
	return ok && (isLoopback(name) || s.hosts[name])
}

// splitHost takes the port off, and says whether what it has is a host at all.
func splitHost(host string) (string, bool) {
	name := host
	if h, port, err := net.SplitHostPort(host); err == nil {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return "", false
		}
		name = h
	} else {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	}
	return strings.ToLower(name), name != ""
}

func isLoopback(name string) bool {
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}

// cleanHost is one configured host name, or address.
func cleanHost(h string) (string, error) {
	name := strings.ToLower(strings.TrimSpace(h))
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return "", fmt.Errorf("httpapi: host %q: a name or IPv4 address without scheme and port is needed", h)
		}
	}
	if name == "" || len(name) > 253 {
		return "", errors.New("httpapi: a host is empty or too long")
	}
	return name, nil
}

// checkOrigin refuses writes that a browser sends for another site.
func (s *Server) checkOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.cross.Check(r); err != nil {
			s.problem(w, r, ProblemCodeCrossOrigin, "Your browser says that this request comes from another site, so it was refused.")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limitBody holds every body to its size and its time.
func (s *Server) limitBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBody {
			s.tooLarge(w, r)
			return
		}
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readBodyTimeout))
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) tooLarge(w http.ResponseWriter, r *http.Request) {
	s.problem(w, r, ProblemCodeBodyTooLarge, "A request's body is at most 1 MiB.")
}

// secure says whether the browser's side of the connection is HTTPS.
func (s *Server) secure(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	return s.cfg.BehindProxy && strings.EqualFold(lastOf(r.Header.Values("X-Forwarded-Proto")), "https")
}

// local says whether both ends of a connection are on this machine, and it was
// asked for by a loopback name: plain http stays on the machine.
func (s *Server) local(r *http.Request) bool {
	name, ok := splitHost(r.Host)
	return ok && isLoopback(name) && isLoopback(peer(r))
}

// peer is the address of the other end of the connection, without port.
func peer(r *http.Request) string {
	h, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return h
}

// client is whom attempts are counted for: the address of the connection, or
// what the operator's own proxy says; of an IPv6 address the /64 that one
// person has.
func (s *Server) client(r *http.Request) string {
	from := peer(r)
	if s.cfg.BehindProxy {
		if f := lastOf(r.Header.Values("X-Forwarded-For")); f != "" {
			from = f
		}
	}
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return "unknown"
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// lastOf returns the last element of a list header: the one that the nearest
// proxy added. The ones before it can be anybody's.
func lastOf(values []string) string {
	if len(values) == 0 {
		return ""
	}
	v := values[len(values)-1]
	if i := strings.LastIndexByte(v, ','); i >= 0 {
		v = v[i+1:]
	}
	return strings.TrimSpace(v)
}
