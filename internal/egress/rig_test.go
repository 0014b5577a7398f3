package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/line"
)

// sites is a fake internet: names with addresses, and what answers there. It
// implements network. Connections are real TCP over loopback that claim the
// address that was dialled.
type sites struct {
	t     testing.TB
	mu    sync.Mutex
	names map[string][]string
	serve map[string]func(net.Conn) // by "address:port"
	leads map[string]string         // where a connection claims to lead, if elsewhere
	own   []netip.Addr
	dials []string
	asked []string
	work  sync.WaitGroup
}

func newSites(t testing.TB) *sites {
	s := &sites{t: t, names: map[string][]string{}, serve: map[string]func(net.Conn){}, leads: map[string]string{}}
	t.Cleanup(s.work.Wait)
	return s
}

// at puts handler, which need not close its connection, at a name's port.
func (s *sites) at(name, addr string, port int, handler func(net.Conn)) {
	s.names[name] = append(s.names[name], addr)
	s.serve[net.JoinHostPort(addr, fmt.Sprint(port))] = handler
}

func (s *sites) network() network {
	return network{
		dial: s.dial,
		resolve: func(_ context.Context, _, host string) ([]netip.Addr, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.asked = append(s.asked, host)
			var out []netip.Addr
			for _, a := range s.names[strings.TrimSuffix(host, ".")] {
				out = append(out, netip.MustParseAddr(a))
			}
			if out == nil {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return out, nil
		},
		own: func() ([]netip.Addr, error) { return s.own, nil },
	}
}

func (s *sites) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	s.mu.Lock()
	s.dials = append(s.dials, addr)
	handler, leads := s.serve[addr], s.leads[addr]
	s.mu.Unlock()
	if handler == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	far, err := l.Accept()
	if err != nil {
		return nil, err
	}
	s.work.Go(func() {
		defer far.Close()
		handler(far)
	})
	if leads == "" {
		leads = addr
	}
	return &farConn{TCPConn: conn.(*net.TCPConn), remote: net.TCPAddrFromAddrPort(netip.MustParseAddrPort(leads))}, nil
}

type farConn struct {
	*net.TCPConn
	remote net.Addr
}

func (c *farConn) RemoteAddr() net.Addr { return c.remote }

// echo sends back what comes, and ends when it ends.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// logs keeps what was logged.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// rig is a proxy with one line to it.
type rig struct {
	*Proxy
	t     testing.TB
	guest *line.Line
	logs  *logs
	done  chan error // what Serve returned
}

var testIdentity = Identity{UserID: "u1", MachineID: "m1", SessionID: "s1"}

// newDirect makes a rig that goes out to s directly.
func newDirect(t testing.TB, s *sites, cfg Config) *rig {
	t.Helper()
	l := &logs{}
	cfg.Logger = slog.New(slog.NewTextHandler(l, nil))
	p, err := newProxy(cfg, s.network())
	if err != nil {
		t.Fatal(err)
	}
	p.Open(testIdentity.UserID, Upstream{direct: true})
	return newRig(t, p, l)
}

// newVia makes a rig that goes out through the proxy at url.
func newVia(t testing.TB, url string, cfg Config) *rig {
	t.Helper()
	l := &logs{}
	cfg.Logger = slog.New(slog.NewTextHandler(l, nil))
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Open(testIdentity.UserID, mustUpstream(t, url))
	return newRig(t, p, l)
}

// mustUpstream parses the URL of one upstream.
func mustUpstream(t testing.TB, raw string) Upstream {
	t.Helper()
	all, err := ParseUpstreams([]UpstreamURL{UpstreamURL(raw)})
	if err != nil || len(all) != 1 {
		t.Fatalf("%d upstreams, %v", len(all), err)
	}
	return all[0]
}

func newRig(t testing.TB, p *Proxy, l *logs) *rig {
	t.Helper()
	r := &rig{Proxy: p, t: t, logs: l, done: make(chan error, 1)}
	var host *line.Line
	host, r.guest = linePair(t)
	go func() { r.done <- p.Serve(t.Context(), testIdentity, host) }()
	t.Cleanup(func() {
		_ = p.Close()
		<-r.done
		r.noGoroutines()
		_ = r.guest.Close()
	})
	return r
}

// linePair is a real line over a real socket.
func linePair(t testing.TB) (host, guest *line.Line) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if host, err = line.Host(a); err != nil {
		t.Fatal(err)
	}
	if guest, err = line.Guest(b); err != nil {
		t.Fatal(err)
	}
	return host, guest
}

// noGoroutines fails the test if a goroutine of the proxy is left after Close.
func (r *rig) noGoroutines() {
	r.t.Helper()
	buf := make([]byte, 1<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "egress.(*Proxy)") || strings.Contains(g, "egress.(*guestConn)") {
			r.t.Errorf("left behind:\n%s", g)
		}
	}
}

// client is a program in the guest with one connection to the proxy.
type client struct {
	t testing.TB
	net.Conn
	br *bufio.Reader
}

func (r *rig) open() *client {
	r.t.Helper()
	conn, err := r.guest.Dial(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	c := &client{t: r.t, Conn: conn, br: bufio.NewReader(conn)}
	r.t.Cleanup(func() { _ = conn.Close() })
	return c
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Fatal(err)
	}
}

// answer reads one answer to a request of the given method, with its body.
func (c *client) answer(method string) (*http.Response, string) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.br, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	if method == http.MethodConnect && resp.StatusCode == http.StatusOK {
		return resp, ""
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp, string(body)
}

// connect opens a tunnel, or fails the test.
func (r *rig) connect(to string) *client {
	r.t.Helper()
	c := r.open()
	c.send("CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n\r\n")
	if resp, body := c.answer(http.MethodConnect); resp.StatusCode != http.StatusOK {
		r.t.Fatalf("CONNECT %s: %s %s %s", to, resp.Status, resp.Header.Get(Header), body)
	}
	return c
}

// refused sends a request and fails the test unless it is refused with code.
func (r *rig) refused(request string, status int, code Code) {
	r.t.Helper()
	c := r.open()
	c.send(request)
	method, _, _ := strings.Cut(request, " ")
	resp, body := c.answer(method)
	if resp.StatusCode != status || resp.Header.Get(Header) != string(code) || !resp.Close {
		r.t.Errorf("%q: %s, %q, close %v; want %d and %q", request, resp.Status, resp.Header.Get(Header), resp.Close, status, code)
	}
	_, want := code.answer()
	if body != want+"\n" {
		r.t.Errorf("%q: the body is %q", request, body)
	}
	c.atEnd()
}

// atEnd fails the test unless the proxy has ended its direction.
func (c *client) atEnd() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.br); err != nil || len(rest) > 0 {
		c.t.Errorf("instead of the end there is %q, %v", rest, err)
	}
}

// timeoutCase runs one case of TestTimeouts inside its bubble.
func timeoutCase(t *testing.T, cfg Config, send string, script func(net.Conn), after time.Duration, want string) {
	var work sync.WaitGroup
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		if script == nil {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		near, far := net.Pipe()
		work.Go(func() {
			defer far.Close()
			done := make(chan struct{})
			work.Go(func() {
				defer close(done)
				_, _ = io.Copy(io.Discard, far) // until the proxy ends it
			})
			script(far)
			<-done
		})
		return near, nil
	}
	p, err := newProxy(cfg, network{dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	p.Open(testIdentity.UserID, Upstream{scheme: schemeHTTP, host: "proxy.example", port: 1})
	l := &oneListener{conns: make(chan net.Conn), done: make(chan struct{})}
	work.Go(func() {
		if err := p.Serve(t.Context(), testIdentity, l); err != nil {
			t.Error(err)
		}
	})
	guest, host := net.Pipe()
	l.conns <- host
	start := time.Now()
	work.Go(func() { _, _ = io.WriteString(guest, send) })
	got, err := io.ReadAll(guest)
	if string(got) != want || err != nil {
		t.Errorf("the guest got %q, %v, want %q", got, err, want)
	}
	if took := time.Since(start); took != after {
		t.Errorf("it took %v, want %v", took, after)
	}
	guest.Close()
	p.Close()
	work.Wait()
}
