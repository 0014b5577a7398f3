package egress

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const (
	upPass = "p@ss:/?%#"
	upAuth = "http://user:p%40ss%3A%2F%3F%25%23@"
)

// upstream is a scripted forward proxy.
type upstream struct {
	addr string
	mu   sync.Mutex
	got  []*http.Request
}

// newUpstream answers each connection's first request with script.
func newUpstream(t testing.TB, script func(req *http.Request, c net.Conn, br *bufio.Reader)) *upstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &upstream{addr: l.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				req, err := http.ReadRequest(br)
				if err != nil {
					return
				}
				u.mu.Lock()
				u.got = append(u.got, req)
				u.mu.Unlock()
				script(req, c, br)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return u
}

func (u *upstream) requests() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clone(u.got)
}

func say(s string) func(*http.Request, net.Conn, *bufio.Reader) {
	return func(_ *http.Request, c net.Conn, _ *bufio.Reader) { _, _ = io.WriteString(c, s) }
}

func TestUpstreamConnect(t *testing.T) {
	u := newUpstream(t, func(_ *http.Request, c net.Conn, br *bufio.Reader) {
		// In one segment: an informational answer, the answer with headers
		// that say there is a body, and the first bytes of the site.
		_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nearly bytes,")
		_, _ = io.Copy(c, br)
	})
	r := newVia(t, upAuth+u.addr, Config{})
	c := r.connect("name.example.com:443")
	c.send("hello")
	c.Close()
	if got, err := io.ReadAll(c.br); err != nil || string(got) != "early bytes,hello" {
		t.Errorf("%q, %v", got, err)
	}
	reqs := u.requests()
	if len(reqs) != 1 || reqs[0].Method != "CONNECT" || reqs[0].RequestURI != "name.example.com:443" || reqs[0].Host != "name.example.com:443" {
		t.Fatalf("%+v", reqs)
	}
	if len(reqs[0].Header) != 1 {
		t.Errorf("the upstream got %v", reqs[0].Header)
	}
	if user, pass, ok := proxyAuth(reqs[0]); !ok || user != "user" || pass != upPass {
		t.Errorf("credentials %q %q", user, pass)
	}
}

// proxyAuth reads Proxy-Authorization as net/http reads Authorization.
func proxyAuth(r *http.Request) (user, pass string, ok bool) {
	return (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth()
}

func TestUpstreamRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		script string
		code   Code
	}{
		"407":             {"HTTP/1.1 407 Nope\r\nProxy-Authenticate: Basic realm=hush\r\nContent-Length: 4\r\n\r\nhush", UpstreamAuth},
		"403":             {"HTTP/1.1 403 Forbidden\r\n\r\nhush", UpstreamRefused},
		"500":             {"HTTP/1.1 500 hush\r\n\r\n", UpstreamRefused},
		"502":             {"HTTP/1.1 502 Bad Gateway\r\n\r\n", UpstreamRefused},
		"a redirect":      {"HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\n", UpstreamRefused},
		"101":             {"HTTP/1.1 101 Switching Protocols\r\n\r\n", UpstreamRefused},
		"nothing":         {"", UpstreamProtocol},
		"half an answer":  {"HTTP/1.1 200 OK\r\n", UpstreamProtocol},
		"no HTTP":         {"SSH-2.0-hush\r\n\r\n", UpstreamProtocol},
		"a long header":   {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", MaxHeaderBytes) + "\r\n\r\n", UpstreamProtocol},
		"endless hinting": {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInformational+1) + "HTTP/1.1 200 OK\r\n\r\n", UpstreamProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUpstream(t, func(_ *http.Request, c net.Conn, _ *bufio.Reader) {
				_, _ = io.WriteString(c, tc.script)
				// Let it be read before the connection is reset.
				_ = c.(*net.TCPConn).CloseWrite()
				_, _ = io.Copy(io.Discard, c)
			})
			r := newVia(t, upAuth+u.addr, Config{})
			r.refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, tc.code)
			r.Proxy.Close()
			for _, secret := range []string{"hush", "p@ss", "p%40ss", u.addr} {
				if strings.Contains(r.logs.String(), secret) && secret != u.addr {
					t.Errorf("the log holds %q:\n%s", secret, r.logs)
				}
			}
		})
	}
}

func TestUpstreamUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	r := newVia(t, upAuth+addr, Config{})
	r.refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamUnreachable)
	r.refused("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, UpstreamUnreachable)
}

func TestUpstreamIsNotAskedForWhatIsRefused(t *testing.T) {
	u := newUpstream(t, say("HTTP/1.1 200 OK\r\n\r\n"))
	r := newVia(t, upAuth+u.addr, Config{})
	for _, to := range []string{"127.0.0.1:80", "[::1]:80", "[64:ff9b::a00:1]:80", "a.internal:80", "b.local:80", "localhost:80", "single:80", "0x7f.1:80"} {
		status := http.StatusForbidden
		code := AddressRefused
		if strings.ContainsAny(to[:1], "abls") {
			code = NameRefused
		}
		r.refused("CONNECT "+to+" HTTP/1.1\r\n\r\n", status, code)
		r.refused("GET http://"+to+"/ HTTP/1.1\r\nHost: example.com\r\n\r\n", status, code)
	}
	if got := u.requests(); len(got) > 0 {
		t.Errorf("the upstream was asked: %+v", got)
	}
}

func TestUpstreamPlain(t *testing.T) {
	u := newUpstream(t, func(req *http.Request, c net.Conn, _ *bufio.Reader) {
		body, _ := io.ReadAll(req.Body)
		_, _ = io.WriteString(c, reply("got "+string(body)))
	})
	r := newVia(t, upAuth+u.addr, Config{})
	c := r.open()
	c.send("POST http://example.com/a?b HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\nContent-Length: 3\r\n\r\nabc")
	if resp, body := c.answer("POST"); body != "got abc" {
		t.Errorf("%s %q", resp.Status, body)
	}
	req := u.requests()[0]
	if req.RequestURI != "http://example.com/a?b" || req.Host != "example.com" {
		t.Errorf("the upstream got %s of %s", req.RequestURI, req.Host)
	}
	if user, pass, ok := proxyAuth(req); !ok || user != "user" || pass != upPass || len(req.Header["Proxy-Authorization"]) != 1 {
		t.Errorf("credentials %q %q", user, pass)
	}
}

func TestUpstreamPlain407(t *testing.T) {
	u := newUpstream(t, say("HTTP/1.1 407 Nope\r\nProxy-Authenticate: Basic realm=hush\r\nContent-Length: 4\r\n\r\nhush"))
	r := newVia(t, upAuth+u.addr, Config{})
	r.refused("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, UpstreamAuth)
}

func TestUpstreamDiesInTheTunnel(t *testing.T) {
	u := newUpstream(t, func(_ *http.Request, c net.Conn, br *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
		_, _ = br.ReadByte()
		_ = c.(*net.TCPConn).SetLinger(0) // a reset
	})
	r := newVia(t, upAuth+u.addr, Config{})
	c := r.connect("example.com:443")
	if _, err := io.ReadFull(c.br, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	c.send("x")
	c.atEnd() // and does not wait for the guest
}

func TestUpstreamHalfClose(t *testing.T) {
	u := newUpstream(t, func(_ *http.Request, c net.Conn, br *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nahead,") // so that the connection is an aheadConn
		n, err := io.Copy(io.Discard, br)
		fmt.Fprintf(c, "got %d, %v", n, err)
	})
	r := newVia(t, upAuth+u.addr, Config{})
	c := r.connect("example.com:443")
	big := bytes.Repeat([]byte("x"), 1<<20)
	if _, err := c.Write(big); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if got, err := io.ReadAll(c.br); err != nil || string(got) != "ahead,got 1048576, <nil>" {
		t.Errorf("%q, %v", got, err)
	}
}

// oneListener is a listener of one connection.
type oneListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *oneListener) Addr() net.Addr { return &net.UnixAddr{} }

// TestTimeouts runs with a fake clock: everything is in memory. In each case
// the guest sends something and the other side something, and the connection
// must end after exactly the given time with the given answer.
func TestTimeouts(t *testing.T) {
	const (
		header  = 3 * time.Second
		connect = 7 * time.Second
		idle    = 60 * time.Second
		ask     = "CONNECT example.com:443 HTTP/1.1\r\n\r\n"
		ok      = "HTTP/1.1 200 Connection established\r\n\r\n"
	)
	failed := func(code Code) string {
		status, sentence := code.answer()
		return fmt.Sprintf("HTTP/1.1 %d %s\r\n%s: %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n",
			status, http.StatusText(status), Header, code, len(sentence)+1, sentence)
	}
	for name, tc := range map[string]struct {
		guest    string         // what the guest sends
		upstream func(net.Conn) // nil: dialling takes for ever
		after    time.Duration
		want     string
	}{
		"no request":      {"", nil, betweenRequests, ""},
		"half a request":  {"CONNECT exa", nil, header, ""},
		"dialling":        {ask, nil, connect, failed(Timeout)},
		"no answer":       {ask, func(net.Conn) {}, connect, failed(Timeout)},
		"half an answer":  {ask, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX:") }, connect, failed(Timeout)},
		"a silent tunnel": {ask, func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") }, idle, ok},
		"a tunnel with one word": {ask, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			time.Sleep(idle / 2) // of the fake clock
			_, _ = io.WriteString(c, "word")
		}, idle + idle/2, ok + "word"},
		"plain, no answer":   {"GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", func(net.Conn) {}, idle, failed(Timeout)},
		"plain, half a body": {"POST http://example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc", func(net.Conn) {}, idle, failed(Timeout)},
		"plain, half of an answer": {"GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", func(c net.Conn) {
			time.Sleep(time.Millisecond) // of the fake clock: the request comes first
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
		}, time.Millisecond + idle, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				timeoutCase(t, Config{HeaderTimeout: header, ConnectTimeout: connect, IdleTimeout: idle}, tc.guest, tc.upstream, tc.after, tc.want)
			})
		})
	}
}
