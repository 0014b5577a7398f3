package idp

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

type tunnelKey struct{}

// tunnel is a connection inside which a client speaks to one host.
type tunnel struct {
	net.Conn
	r    io.Reader // the connection, after what was read ahead of it
	host string
	user string // the proxy user
}

func (t *tunnel) Read(p []byte) (int, error) { return t.r.Read(p) }

// proxy answers requests in the proxy protocol: CONNECT, and absolute-form
// requests for plain http.
func (s *Server) proxy(w http.ResponseWriter, r *http.Request) {
	user, ok := s.proxyUser(r)
	rec := Request{Method: r.Method, Host: hostOnly(r.Host), ProxyUser: user, From: hostOnly(r.RemoteAddr)}
	if r.Method != http.MethodConnect {
		rec.Path = r.URL.Path
	}
	rec.Provider = s.hosts[rec.Host]
	refuse := func(status int, text string) {
		rec.Status, rec.Refused = status, true
		s.rec.request(rec)
		s.rec.emit(Event{Kind: HostRefused, Provider: rec.Provider, Host: rec.Host, From: rec.From})
		http.Error(w, text, status)
	}
	switch {
	case !ok:
		w.Header().Set("Proxy-Authenticate", `Basic realm="anteroom test upstream"`)
		refuse(http.StatusProxyAuthRequired, "proxy credentials needed")
	case !s.known(rec.Host):
		refuse(http.StatusForbidden, "the test upstream does not serve this host")
	case r.Method == http.MethodConnect:
		s.connect(w, r, rec, refuse)
	case !r.URL.IsAbs() || r.URL.Scheme != "http":
		refuse(http.StatusBadRequest, "this is a proxy")
	default:
		s.plain(w, r, rec)
	}
}

func (s *Server) connect(w http.ResponseWriter, r *http.Request, rec Request, refuse func(int, string)) {
	_, port, err := net.SplitHostPort(r.Host)
	if err != nil || port != "443" && port != "80" {
		refuse(http.StatusForbidden, "CONNECT is for ports 80 and 443")
		return
	}
	f, ok := s.faults.wait(r.Context(), rec.Provider, AtConnect)
	if !ok || f.Drop {
		panic(http.ErrAbortHandler)
	}
	if f.Refuse {
		refuse(http.StatusBadGateway, "the test upstream was told to refuse")
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		s.log.Error("hijack failed", "error", err)
		return
	}
	rec.Status = http.StatusOK
	s.rec.request(rec)
	answer := "HTTP/1.1 200 Connection established\r\n\r\n"
	if f.Garbage {
		answer = garbage
	}
	if _, err := io.WriteString(conn, answer); err != nil || f.Garbage {
		conn.Close()
		return
	}
	t := &tunnel{Conn: conn, r: conn, host: rec.Host, user: rec.ProxyUser}
	if n := buf.Reader.Buffered(); n > 0 {
		t.r = io.MultiReader(io.LimitReader(bufio.NewReader(buf.Reader), int64(n)), conn)
	}
	if port == "80" {
		s.tunnels.put(t)
		return
	}
	s.tunnels.put(tls.Server(t, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if h.ServerName != "" && !strings.EqualFold(h.ServerName, t.host) {
				return nil, errors.New("idp: the server name is not the tunnel's host")
			}
			return s.ca.leaf(t.host)
		},
	}))
}

// plain serves an absolute-form request. The providers' own hosts are https
// only, like the real ones: they redirect.
func (s *Server) plain(w http.ResponseWriter, r *http.Request, rec Request) {
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if site, ok := s.cfg.Sites[rec.Host]; ok {
		r.Body = http.MaxBytesReader(sw, r.Body, maxBodyBytes)
		site.ServeHTTP(sw, r)
	} else {
		toHTTPS(sw, r, rec.Host)
	}
	rec.Status = sw.status
	s.rec.request(rec)
}

// toHTTPS sends a client to the same page by https.
func toHTTPS(w http.ResponseWriter, r *http.Request, host string) {
	u := *r.URL
	u.Scheme, u.Host = "https", host
	http.Redirect(w, r, u.String(), http.StatusPermanentRedirect)
}

// inside answers what a client asks for inside its tunnel.
func (s *Server) inside(w http.ResponseWriter, r *http.Request) {
	t, ok := r.Context().Value(tunnelKey{}).(*tunnel)
	if !ok {
		http.Error(w, "no tunnel", http.StatusInternalServerError)
		return
	}
	rec := Request{
		Method: r.Method, Host: t.host, Path: r.URL.Path, ProxyUser: t.user, From: hostOnly(r.RemoteAddr),
		Provider: s.hosts[t.host], UserAgent: r.UserAgent(), TLS: r.TLS != nil,
		ForwardedProxyHeader: r.Header.Get("Proxy-Authorization") != "",
	}
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		rec.Status = sw.status
		s.rec.request(rec)
	}()
	r.Body = http.MaxBytesReader(sw, r.Body, maxBodyBytes)
	switch site, isSite := s.cfg.Sites[t.host]; {
	case !strings.EqualFold(hostOnly(r.Host), t.host):
		http.Error(sw, "this tunnel is for another host", http.StatusMisdirectedRequest)
	case isSite:
		site.ServeHTTP(sw, r)
	case !rec.TLS:
		toHTTPS(sw, r, t.host)
	default:
		r.Host = t.host
		s.mux.ServeHTTP(sw, r)
	}
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the real writer.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func hostOnly(hostport string) string {
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = h
	}
	return strings.ToLower(hostport)
}

// queueListener is a listener whose connections are put into it.
type queueListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueueListener(addr net.Addr) *queueListener {
	return &queueListener{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands c to Accept, or closes it if the listener is closed.
func (l *queueListener) put(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		c.Close()
	}
}

func (l *queueListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *queueListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *queueListener) Addr() net.Addr { return l.addr }
