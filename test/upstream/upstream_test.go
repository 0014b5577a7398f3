package upstream_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/upstream"
)

const (
	user     = "cust-1"
	password = "p@ss:w/rd?%41 ü"
	site     = "https://exit.example.com/"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is one upstream of a scheme with a site behind it, and the server's egress
// proxy in front, all on loopback, where every address of 127.0.0.0/8 is one to
// leave from.
type rig struct {
	*upstream.Server
	proxy *egress.Proxy
	up    egress.Upstream
}

func loopback(n byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 1, 0, n}) }

func newRig(t *testing.T, scheme, password string) rig {
	t.Helper()
	from := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, host)
	})
	sites, err := idp.Start(t.Context(), idp.Config{Sites: map[string]http.Handler{"exit.example.com": from}})
	must(t, err)
	t.Cleanup(func() { must(t, sites.Close()) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	start := upstream.Config{
		Scheme: scheme, Address: l.Addr().String(), User: user, Password: password,
		Listen: func(a string) (net.Listener, error) { return net.Listen("tcp", a) },
		Exit:   loopback(1), Certificate: sites.Certificate,
		Dial: func(ctx context.Context, exit netip.Addr) (net.Conn, error) {
			d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(exit, 0))}
			return d.DialContext(ctx, "tcp", sites.Addr())
		},
	}
	r := rig{}
	r.Server, err = upstream.Start(start)
	must(t, err)
	t.Cleanup(func() { must(t, r.Server.Close()) })
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(sites.CAPEM())
	r.proxy, err = egress.New(egress.Config{Roots: roots})
	must(t, err)
	t.Cleanup(func() { must(t, r.proxy.Close()) })
	ups, err := egress.ParseUpstream(egress.UpstreamURL(r.URL()))
	must(t, err)
	r.up = ups[0]
	return r
}

func (r rig) exit(t *testing.T) (string, egress.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	body, err := r.proxy.Fetch(ctx, r.up, site)
	return string(body), egress.CodeOf(err)
}

// TestUpstream checks that each kind leaves from its address, and does what goes
// wrong when it is told to.
func TestUpstream(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		t.Run(scheme, func(t *testing.T) {
			r := newRig(t, scheme, password)
			want := func(what, address string, code egress.Code) {
				t.Helper()
				if got, is := r.exit(t); got != address || is != code {
					t.Errorf("%s: it leaves from %q (%s), want %q (%s)", what, got, is, address, code)
				}
			}
			want("at first", "127.1.0.1", egress.Allowed)
			r.SetExit(loopback(2))
			want("moved", "127.1.0.2", egress.Allowed)
			r.SetFault(upstream.Fault{Status: http.StatusProxyAuthRequired, Times: 1})
			if scheme != "socks5" {
				want("407", "", egress.UpstreamAuth)
				r.SetFault(upstream.Fault{Status: http.StatusForbidden, Host: "exit.example.com"})
				want("403", "", egress.UpstreamRefused)
				r.SetFault(upstream.Fault{Status: http.StatusForbidden, Host: "other.example.com"})
				want("403 for another", "127.1.0.2", egress.Allowed)
			}
			r.SetFault(upstream.Fault{Half: true, Times: 1})
			want("closed half", "", egress.ConnectFailed)
			want("once only", "127.1.0.2", egress.Allowed)
			r.Die()
			want("dead", "", egress.UpstreamUnreachable)
			must(t, r.Revive())
			want("back", "127.1.0.2", egress.Allowed)
			if err := r.proxy.Reaches(t.Context(), r.up, "unknown.example.com"); egress.CodeOf(err) != egress.UpstreamRefused {
				t.Errorf("a name that the site does not have: %v", err)
			}
			for _, a := range r.Asked() {
				if a.User != user {
					t.Errorf("asked was %+v", a)
				}
			}
		})
	}
}

// TestWrongPassword checks that the upstream wants its credentials.
func TestWrongPassword(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		r := newRig(t, scheme, password)
		ups, err := egress.ParseUpstream(egress.UpstreamURL(scheme + "://" + user + ":wrong@" + r.Address().String()))
		must(t, err)
		r.up = ups[0]
		if got, code := r.exit(t); code != egress.UpstreamAuth {
			t.Errorf("%s with a wrong password: %q, %s", scheme, got, code)
		}
	}
}

// TestPlain checks that a request that is no CONNECT is passed on, without the
// credentials.
func TestPlain(t *testing.T) {
	r := newRig(t, "http", "x")
	u, err := url.Parse(r.URL())
	must(t, err)
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(u), DisableKeepAlives: true}}
	resp, err := client.Get("http://exit.example.com/")
	must(t, err)
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if string(body) != "127.1.0.1" {
		t.Errorf("the site answers %q", body)
	}
}

// TestOwnDestinations checks the two that an upstream answers for by itself.
func TestOwnDestinations(t *testing.T) {
	r := newRig(t, "http", "x")
	ask := func(host, say string) string {
		t.Helper()
		conn, err := net.Dial("tcp", r.Address().String())
		must(t, err)
		defer func() { _ = conn.Close() }()
		_, err = fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nProxy-Authorization: Basic Y3VzdC0xOng=\r\n\r\n%s", host, say)
		must(t, err)
		must(t, conn.(*net.TCPConn).CloseWrite()) //nolint:errcheck // it is one
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none
		must(t, err)
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		rest, err := io.ReadAll(br)
		must(t, err)
		return string(rest)
	}
	if got := ask(upstream.Greeter, ""); got != upstream.Greeting {
		t.Errorf("the greeter says %q", got)
	}
	if got := ask(upstream.Echoer, "say this"); got != "say this" {
		t.Errorf("the echoer says %q", got)
	}
}
