package egress

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestShutEndsConnections: what is under way ends at once, for this user only.
func TestShutEndsConnections(t *testing.T) {
	for name, shut := range map[string]func(p *Proxy){
		"shut":               func(p *Proxy) { p.Shut("u1") },
		"opened another way": func(p *Proxy) { p.Open("u1", Upstream{scheme: schemeHTTP, host: "h", port: 1}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSites(t)
			s.at("example.com", "93.184.216.34", 443, echo)
			r := newDirect(t, s, Config{})
			r.Open("u2", Upstream{direct: true})
			host, guest := linePair(t)
			other := &rig{Proxy: r.Proxy, t: t, guest: guest}
			done := make(chan error, 1)
			go func() { done <- r.Serve(t.Context(), Identity{UserID: "u2", MachineID: "m2"}, host) }()
			mine, theirs := r.connect("example.com:443"), other.connect("example.com:443")
			r.Open("u1", Upstream{direct: true}) // the same again changes nothing
			mine.send("x")
			if _, err := io.ReadFull(mine.br, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			shut(r.Proxy)
			mine.atEnd()
			theirs.send("y")
			if _, err := io.ReadFull(theirs.br, make([]byte, 1)); err != nil {
				t.Errorf("another user's connection: %v", err)
			}
			guest.Close()
			<-done
			r.Close()
			if !strings.Contains(r.logs.String(), "decision=way_shut") {
				t.Errorf("the log does not say why:\n%s", r.logs)
			}
		})
	}
}

// TestExpectedWay: a connection waits for a way that is being opened, is refused
// when it is shut instead, and does not wait for ever.
func TestExpectedWay(t *testing.T) {
	for name, tc := range map[string]struct {
		then func(p *Proxy)
		want Code
	}{
		"opened":        {func(p *Proxy) { p.Open("u1", Upstream{direct: true}) }, Allowed},
		"shut":          {func(p *Proxy) { p.Shut("u1") }, NoUpstream},
		"opened, shut":  {func(p *Proxy) { p.Open("u1", Upstream{direct: true}); p.Shut("u1") }, NoUpstream},
		"shut, opened":  {func(p *Proxy) { p.Shut("u1"); p.Open("u1", Upstream{direct: true}) }, NoUpstream}, // it was refused by then
		"another opens": {func(p *Proxy) { p.Open("u2", Upstream{direct: true}) }, NoUpstream},
		"nobody opens":  {func(*Proxy) {}, NoUpstream},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p, err := newProxy(Config{}, network{})
				if err != nil {
					t.Fatal(err)
				}
				p.Expect("u1")
				got := make(chan Code)
				go func() {
					_, err := p.wayOf(t.Context(), "u1")
					got <- codeOf(err, Allowed)
				}()
				synctest.Wait()
				tc.then(p)
				if code := <-got; code != tc.want {
					t.Errorf("got %s, want %s", code, tc.want)
				}
				p.Close()
			})
		})
	}
	p, err := newProxy(Config{}, network{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Open("u1", Upstream{direct: true})
	p.Expect("u1") // changes nothing
	if w, err := p.wayOf(t.Context(), "u1"); err != nil || !w.up.direct {
		t.Errorf("%v, %v", w, err)
	}
}

func TestRules(t *testing.T) {
	s := newSites(t)
	for i, name := range []string{"example.com", "a.example.com", "notexample.com", "other.net", "b.other.net"} {
		addr := fmt.Sprintf("93.184.216.%d", i+1)
		s.at(name, addr, 443, echo)
		s.serve[addr+":80"] = func(c net.Conn) {
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
	for name, tc := range map[string]struct {
		all, mine Rules
		open      []string
	}{
		"none":              {Rules{}, Rules{}, []string{"example.com", "a.example.com", "notexample.com", "other.net", "b.other.net"}},
		"a name denied":     {Rules{Deny: Names{"example.com"}}, Rules{}, []string{"a.example.com", "notexample.com", "other.net", "b.other.net"}},
		"a domain denied":   {Rules{Deny: Names{".example.com"}}, Rules{}, []string{"notexample.com", "other.net", "b.other.net"}},
		"a domain allowed":  {Rules{Allow: Names{".example.com"}}, Rules{}, []string{"example.com", "a.example.com"}},
		"but one":           {Rules{Allow: Names{".example.com"}, Deny: Names{"a.example.com"}}, Rules{}, []string{"example.com"}},
		"denied to one":     {Rules{}, Rules{Deny: Names{".other.net"}}, []string{"example.com", "a.example.com", "notexample.com"}},
		"both must allow":   {Rules{Allow: Names{".example.com", "other.net"}}, Rules{Allow: Names{"other.net", "b.other.net"}}, []string{"other.net"}},
		"nobody allows two": {Rules{Allow: Names{"other.net"}}, Rules{Allow: Names{"example.com"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newDirect(t, s, Config{Rules: tc.all})
			host, guest := linePair(t)
			other := &rig{Proxy: r.Proxy, t: t, guest: guest}
			done := make(chan error, 1)
			go func() {
				done <- r.Serve(t.Context(), Identity{UserID: "u1", MachineID: "m2", Rules: tc.mine}, host)
			}()
			for _, name := range []string{"example.com", "a.example.com", "notexample.com", "other.net", "b.other.net"} {
				for _, spelling := range []string{name, strings.ToUpper(name)} {
					if slices.Contains(tc.open, name) {
						other.connect(spelling + ":443").Close()
						continue
					}
					other.refused("CONNECT "+spelling+":443 HTTP/1.1\r\n\r\n", 403, NameDenied)
					other.refused("GET http://"+spelling+"/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 403, NameDenied)
				}
			}
			if len(tc.all.Allow) > 0 {
				other.refused("CONNECT 93.184.216.1:443 HTTP/1.1\r\n\r\n", 403, NameDenied)
			}
			guest.Close()
			<-done
		})
	}
}

func TestMaxBytes(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	s.at("plain.example.com", "93.184.216.35", 80, func(c net.Conn) {
		_, _ = http.ReadRequest(bufio.NewReader(c))
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1_000_000))
	})
	r := newDirect(t, s, Config{MaxBytes: 100_000})
	c := r.connect("example.com:443")
	go func() { _, _ = c.Write(make([]byte, 1_000_000)) }()
	if n, _ := io.Copy(io.Discard, c.br); n > 100_000 {
		t.Errorf("%d bytes came back", n)
	}
	c = r.open()
	c.send("GET http://plain.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if n, _ := io.Copy(io.Discard, c.br); n == 0 || n > 150_000 {
		t.Errorf("%d bytes of the page came", n)
	}
	r.Close()
	if n := strings.Count(r.logs.String(), "decision=too_many_bytes"); n != 2 {
		t.Errorf("the log says so %d times:\n%s", n, r.logs)
	}
}

func TestTotalTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chatter := func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			for range 5 {
				time.Sleep(time.Second) // of the fake clock
				if _, err := io.WriteString(c, "."); err != nil {
					return
				}
			}
		}
		timeoutCase(t, Config{IdleTimeout: 2 * time.Second, TotalTimeout: 3500 * time.Millisecond},
			"CONNECT example.com:443 HTTP/1.1\r\n\r\n", chatter, 3500*time.Millisecond, "HTTP/1.1 200 Connection established\r\n\r\n...")
	})
}

// TestUpstreamRests: after failures in a row an upstream is not asked for a
// while, one connection tries it then, and it is said when it works again.
func TestUpstreamRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		up, dials := false, 0
		dial := func(context.Context, string, string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if dials++; !up {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
			}
			near, far := net.Pipe()
			go func() {
				_, _ = http.ReadRequest(bufio.NewReader(far))
				_, _ = io.WriteString(far, "HTTP/1.1 403 No\r\n\r\n") // the name is refused: it works
				_ = far.Close()
			}()
			return near, nil
		}
		var told []bool
		reg := prometheus.NewRegistry()
		p, err := newProxy(Config{Registerer: reg, Health: func(_ Upstream, works bool) { told = append(told, works) }}, network{dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		via := Upstream{scheme: schemeHTTP, host: "h", port: 9}
		try := func() Code {
			return codeOf(p.Reaches(t.Context(), via, "example.com"), Allowed)
		}
		for range restAfter {
			if c := try(); c != UpstreamUnreachable {
				t.Fatalf("got %s", c)
			}
		}
		for wait := restFirst; wait <= restLast; wait *= 2 {
			if c := try(); c != UpstreamResting || !p.Failing(via) {
				t.Fatalf("within %v: %s", wait, c)
			}
			time.Sleep(wait) // of the fake clock
			if c := try(); c != UpstreamUnreachable {
				t.Fatalf("after %v: %s", wait, c)
			}
		}
		up = true
		time.Sleep(restLast) // of the fake clock
		for range 10 {
			if c := try(); c != UpstreamRefused || p.Failing(via) {
				t.Fatalf("it works again: %s", c)
			}
		}
		if !slices.Equal(told, []bool{false, true}) {
			t.Errorf("it was told %v", told)
		}
		if n := testutil.ToFloat64(p.metrics.connects.WithLabelValues("h:9", string(UpstreamRefused))); n != 10 {
			t.Errorf("the metric counts %v", n)
		}
	})
}

// TestOneTriesAnUpstreamThatRested: not all of those who wait at once.
func TestOneTriesAnUpstreamThatRested(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &health{}
		for range restAfter {
			if err := h.ask(time.Now()); err != nil {
				t.Fatal(err)
			}
			h.tell(time.Now(), fails)
		}
		time.Sleep(restFirst) // of the fake clock
		if err := h.ask(time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := h.ask(time.Now()); codeOf(err, Allowed) != UpstreamResting {
			t.Errorf("the second: %v", err)
		}
		h.tell(time.Now(), unknown) // it was given up
		if err := h.ask(time.Now()); err != nil {
			t.Errorf("nobody tries it any more: %v", err)
		}
	})
}

// socksServer answers one request after another as RFC 1928 says, with user
// "user" and password upPass, and the given reply.
func socksServer(t testing.TB, reply byte) (addr string, asked func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var names []string
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				name, ok := socksHandshake(c, reply)
				if !ok {
					return
				}
				mu.Lock()
				names = append(names, name)
				mu.Unlock()
				if reply == 0 {
					echo(c)
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); work.Wait() })
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(names)
	}
}

func socksHandshake(c net.Conn, reply byte) (name string, ok bool) {
	take := func(n int) []byte {
		b := make([]byte, n)
		_, _ = io.ReadFull(c, b)
		return b
	}
	if !slices.Contains(take(int(take(2)[1])), 2) {
		_, _ = c.Write([]byte{5, 0xff})
		return "", false
	}
	_, _ = c.Write([]byte{5, 2})
	user := take(int(take(2)[1]))
	pass := take(int(take(1)[0]))
	if string(user) != "user" || string(pass) != upPass {
		_, _ = c.Write([]byte{1, 1})
		return "", false
	}
	_, _ = c.Write([]byte{1, 0})
	if head := take(4); head[3] == 3 {
		name = string(take(int(take(1)[0])))
	} else {
		name = net.IP(take(4)).String()
	}
	port := binary.BigEndian.Uint16(take(2))
	// In one segment with the first bytes of the site.
	answer := []byte{5, reply, 0, 1, 0, 0, 0, 0, 0, 0}
	if reply == 0 {
		answer = append(answer, "early,"...)
	}
	_, _ = c.Write(answer)
	return fmt.Sprintf("%s:%d", name, port), true
}

func TestSOCKS(t *testing.T) {
	const scheme = "socks5://"
	credentials := strings.TrimPrefix(upAuth, "http://")
	t.Run("connects", func(t *testing.T) {
		addr, asked := socksServer(t, 0)
		r := newVia(t, scheme+credentials+addr, Config{})
		c := r.connect("name.example.com:443")
		c.send("hello")
		c.Close()
		if got, err := io.ReadAll(c.br); err != nil || string(got) != "early,hello" {
			t.Errorf("%q, %v", got, err)
		}
		r.connect("93.184.216.34:80").Close()
		if got, want := asked(), []string{"name.example.com:443", "93.184.216.34:80"}; !slices.Equal(got, want) {
			t.Errorf("it was asked for %q", got)
		}
		r.refused("CONNECT 10.0.0.1:443 HTTP/1.1\r\n\r\n", 403, AddressRefused)
		r.refused("CONNECT localhost:443 HTTP/1.1\r\n\r\n", 403, NameRefused)
	})
	for name, user := range map[string]string{"a wrong password": "user:hush@", "none": ""} {
		t.Run(name, func(t *testing.T) {
			addr, _ := socksServer(t, 0)
			newVia(t, scheme+user+addr, Config{}).refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamAuth)
		})
	}
	for reply := byte(1); reply < 10; reply++ {
		t.Run(fmt.Sprint("reply ", reply), func(t *testing.T) {
			addr, _ := socksServer(t, reply)
			r := newVia(t, scheme+credentials+addr, Config{})
			r.refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamRefused)
			r.Close()
			if strings.Contains(r.logs.String(), "p@ss") {
				t.Errorf("the log holds the password:\n%s", r.logs)
			}
		})
	}
	t.Run("no SOCKS", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		defer func() { l.Close(); work.Wait() }()
		work.Go(func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "SSH-2.0-hush\r\n")
			_, _ = io.Copy(io.Discard, c)
		})
		newVia(t, scheme+l.Addr().String(), Config{}).refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamProtocol)
	})
	t.Run("plain http", func(t *testing.T) {
		addr, asked := socksServer(t, 0)
		r := newVia(t, scheme+credentials+addr, Config{})
		r.refused("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, UpstreamUnreachable) // what echoes is no answer
		if got := asked(); !slices.Equal(got, []string{"example.com:80"}) {
			t.Errorf("it was asked for %q", got)
		}
	})
}

// tlsUpstream is an HTTP proxy that is reached by TLS, and its authority.
func tlsUpstream(t *testing.T) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, pass, ok := proxyAuth(r); !ok || user != "user" || pass != upPass {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			fmt.Fprintf(w, "%s for %s", r.Method, r.RequestURI)
			return
		}
		c, br, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nearly,")
		_, _ = io.Copy(c, br)
	}))
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return s, roots
}

func TestHTTPSUpstream(t *testing.T) {
	s, roots := tlsUpstream(t)
	url := "https://" + strings.TrimPrefix(upAuth, "http://") + s.Listener.Addr().String()
	t.Run("connects", func(t *testing.T) {
		r := newVia(t, url, Config{Roots: roots})
		c := r.connect("example.com:443")
		c.send("hello")
		c.Close()
		if got, err := io.ReadAll(c.br); err != nil || string(got) != "early,hello" {
			t.Errorf("%q, %v", got, err)
		}
		c = r.open()
		c.send("GET http://example.com/x HTTP/1.1\r\nHost: y\r\n\r\n")
		if _, body := c.answer("GET"); body != "GET for http://example.com/x" {
			t.Errorf("plain: %q", body)
		}
	})
	t.Run("nobody vouches for it", func(t *testing.T) { // and it gets no credentials
		newVia(t, url, Config{}).refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamUnreachable)
	})
	t.Run("no TLS", func(t *testing.T) { // and none in clear
		u := newUpstream(t, say("HTTP/1.1 200 OK\r\n\r\n"))
		newVia(t, "https://user:hush@"+u.addr, Config{Roots: roots}).refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, UpstreamUnreachable)
		if len(u.requests()) > 0 {
			t.Error("it was asked in clear")
		}
	})
}

func TestFetch(t *testing.T) {
	site := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ip":
			_, _ = io.WriteString(w, `{"ip":"203.0.113.7"}`)
		case "/big":
			_, _ = w.Write(make([]byte, maxFetch+1))
		case "/away":
			http.Redirect(w, r, "https://elsewhere.example/", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	defer site.Close()
	u := newUpstream(t, func(req *http.Request, c net.Conn, br *bufio.Reader) {
		if req.Host != "example.com:443" {
			_, _ = io.WriteString(c, "HTTP/1.1 403 No\r\n\r\n")
			return
		}
		out, err := net.Dial("tcp", site.Listener.Addr().String())
		if err != nil {
			return
		}
		defer out.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(out, br) }()
		_, _ = io.Copy(c, out)
	})
	roots := x509.NewCertPool()
	roots.AddCert(site.Certificate())
	p, err := New(Config{Roots: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	via := mustUpstream(t, "http://"+u.addr)
	if got, err := p.Fetch(t.Context(), via, "https://example.com/ip"); err != nil || string(got) != `{"ip":"203.0.113.7"}` {
		t.Errorf("%q, %v", got, err)
	}
	for url, want := range map[string]Code{
		"https://example.com/big": ConnectFailed, "https://example.com/away": ConnectFailed, "https://example.com/none": ConnectFailed,
		"https://example.net/ip": UpstreamRefused,
	} {
		if got, err := p.Fetch(t.Context(), via, url); codeOf(err, Allowed) != want || got != nil {
			t.Errorf("%s: %q, %v", url, got, err)
		}
	}
	for _, url := range []string{"", "ftp://example.com/", "https://user:pass@example.com/", "https://10.0.0.1/", "https://localhost/", "https://example.com:22/", "//example.com"} {
		if _, err := p.Fetch(t.Context(), via, url); !errors.Is(err, ErrConfig) {
			t.Errorf("%q: %v", url, err)
		}
	}
	if err := p.Reaches(t.Context(), via, "example.com"); err != nil {
		t.Error(err)
	}
	if err := p.Reaches(t.Context(), via, "api.example.com"); codeOf(err, Allowed) != UpstreamRefused {
		t.Error(err)
	}
}
