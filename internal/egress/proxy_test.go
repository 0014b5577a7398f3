package egress

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"a negative limit":   {MaxConns: -1},
		"a negative timeout": {IdleTimeout: -1},
		"negative bytes":     {MaxBytes: -1},
		"an address":         {Rules: Rules{Deny: Names{"https://example.com"}}},
		"upper case":         {Rules: Rules{Allow: Names{"Example.com"}}},
		"nothing":            {Rules: Rules{Allow: Names{""}}},
	} {
		if _, err := New(cfg); !errors.Is(err, ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	reg := prometheus.NewRegistry()
	for i, want := range []error{nil, ErrConfig} {
		p, err := New(Config{Registerer: reg})
		if !errors.Is(err, want) {
			t.Errorf("registration %d: %v", i, err)
		}
		if p != nil {
			p.Close()
		}
	}
}

func TestTunnel(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	reg := prometheus.NewRegistry()
	r := newDirect(t, s, Config{Registerer: reg})
	c := r.connect("Example.com:443")
	c.send("hello")
	got := make([]byte, 5)
	if _, err := io.ReadFull(c.br, got); err != nil || string(got) != "hello" {
		t.Fatalf("%q, %v", got, err)
	}
	c.Close() // the sending direction: the echo ends, and with it the tunnel
	c.atEnd()
	if !slices.Equal(s.dials, []string{"93.184.216.34:443"}) || !slices.Equal(s.asked, []string{"example.com."}) {
		t.Errorf("dialled %v, asked for %v", s.dials, s.asked)
	}
	r.Proxy.Close()
	for _, want := range []string{"user=u1", "session=s1", "machine=m1", "name=example.com", "port=443", "bytes_up=5", "bytes_down=5", "duration=", "decision=allowed"} {
		if !strings.Contains(r.logs.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, r.logs)
		}
	}
	want := map[string]float64{
		"anteroom_egress_requests_total allowed": 1, "anteroom_egress_active_connections ": 0,
		"anteroom_egress_bytes_total up": 5, "anteroom_egress_bytes_total down": 5,
	}
	if got := gather(t, reg); !maps.Equal(got, want) {
		t.Errorf("metrics: %v", got)
	}
}

// gather returns the values of all metrics by name and label.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var label string
			for _, l := range m.GetLabel() {
				label += l.GetValue()
			}
			out[f.GetName()+" "+label] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestTunnelKeepsBytesSentAhead(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	r := newDirect(t, s, Config{})
	c := r.open()
	c.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\nahead")
	c.answer(http.MethodConnect)
	c.Close()
	if got, err := io.ReadAll(c.br); err != nil || string(got) != "ahead" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestTunnelHalfClose(t *testing.T) {
	s := newSites(t)
	big := bytes.Repeat([]byte("x"), 3<<20)
	s.at("early.example.com", "93.184.216.34", 443, func(c net.Conn) { // ends sending first, then takes all
		_, _ = c.Write([]byte("bye"))
		_ = c.(*net.TCPConn).CloseWrite()
		if n, err := io.Copy(io.Discard, c); err != nil || n != int64(len(big)) {
			t.Errorf("the site got %d bytes, %v", n, err)
		}
	})
	s.at("late.example.com", "93.184.216.35", 443, func(c net.Conn) { // takes all first, then answers
		n, err := io.Copy(io.Discard, c)
		if err != nil || n != int64(len(big)) {
			t.Errorf("the site got %d bytes, %v", n, err)
		}
		_, _ = c.Write(big)
	})
	r := newDirect(t, s, Config{})

	c := r.connect("early.example.com:443")
	if got, err := io.ReadAll(c.br); err != nil || string(got) != "bye" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.Write(big); err != nil {
		t.Error(err)
	}
	c.Close()

	c = r.connect("late.example.com:443")
	if _, err := c.Write(big); err != nil {
		t.Error(err)
	}
	c.Close()
	if got, err := io.ReadAll(c.br); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDirectRefuses(t *testing.T) {
	s := newSites(t)
	never := func(net.Conn) { t.Error("it was reached") }
	s.at("private.example.com", "10.0.0.1", 443, never)
	s.at("meta.example.com", "169.254.169.254", 80, never)
	s.at("mapped.example.com", "::ffff:127.0.0.1", 443, never)
	s.at("mixed.example.com", "93.184.216.34", 443, never)
	s.at("mixed.example.com", "192.168.1.1", 443, never)
	s.at("self.example.com", "93.184.216.99", 443, never)
	s.own = []netip.Addr{netip.MustParseAddr("93.184.216.99")}
	s.at("elsewhere.example.com", "93.184.216.40", 443, func(c net.Conn) {
		if n, _ := io.Copy(io.Discard, c); n > 0 {
			t.Errorf("%d bytes went elsewhere", n)
		}
	})
	s.leads["93.184.216.40:443"] = "127.0.0.1:443"
	s.names["down.example.com"] = []string{"93.184.216.41"}
	for i := range maxAddresses + 1 {
		s.names["many.example.com"] = append(s.names["many.example.com"], fmt.Sprintf("93.184.217.%d", i))
	}
	r := newDirect(t, s, Config{})
	for _, tc := range []struct {
		to     string
		status int
		code   Code
	}{
		{"private.example.com:443", 403, AddressRefused},
		{"meta.example.com:80", 403, AddressRefused},
		{"mapped.example.com:443", 403, AddressRefused},
		{"mixed.example.com:443", 403, AddressRefused},
		{"self.example.com:443", 403, AddressRefused},
		{"93.184.216.99:443", 403, AddressRefused},
		{"elsewhere.example.com:443", 403, AddressRefused},
		{"none.example.com:443", 502, ResolveFailed},
		{"many.example.com:443", 502, ResolveFailed},
		{"down.example.com:443", 502, ConnectFailed},
		{"127.0.0.1:80", 403, AddressRefused},
		{"2130706433:80", 403, AddressRefused},
		{"localhost:80", 403, NameRefused},
		{"example.com:22", 403, PortRefused},
		{"[example.com]:443", 400, BadRequest}, // net/http is first,
		{"u:p@example.com:443", 400, BadTarget},
	} {
		r.refused("CONNECT "+tc.to+" HTTP/1.1\r\nHost: x\r\n\r\n", tc.status, tc.code)
		if !strings.HasSuffix(tc.to, ":443") {
			r.refused("GET http://"+tc.to+"/ HTTP/1.1\r\nHost: example.com\r\n\r\n", tc.status, tc.code)
		}
	}
	for _, d := range s.dials {
		if a := netip.MustParseAddrPort(d); !publicAddr(a.Addr()) || slices.Contains(s.own, a.Addr()) {
			t.Errorf("%s was dialled", d)
		}
	}
}

func TestDirectTriesEveryAddress(t *testing.T) {
	s := newSites(t)
	s.names["two.example.com"] = []string{"2606:4700::1", "93.184.216.1"}
	s.serve["[2606:4700::1]:443"] = echo
	r := newDirect(t, s, Config{})
	r.connect("two.example.com:443")
	if want := []string{"93.184.216.1:443", "[2606:4700::1]:443"}; !slices.Equal(s.dials, want) {
		t.Errorf("dialled %v, want %v", s.dials, want)
	}
}

func TestUnknownOwnAddressesRefuse(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	n := s.network()
	n.own = func() ([]netip.Addr, error) { return nil, errors.New("no") }
	p, err := newProxy(Config{}, n)
	if err != nil {
		t.Fatal(err)
	}
	p.Open(testIdentity.UserID, Upstream{direct: true})
	newRig(t, p, &logs{}).refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 403, AddressRefused)
}

func TestNoUpstreamFailsClosed(t *testing.T) {
	for name, before := range map[string]func(p *Proxy){
		"never opened":         func(*Proxy) {},
		"opened for another":   func(p *Proxy) { p.Open("u2", Upstream{direct: true}) },
		"shut again":           func(p *Proxy) { p.Open("u1", Upstream{direct: true}); p.Shut("u1"); p.Shut("u1") },
		"opened with no way":   func(p *Proxy) { p.Open("u1", Upstream{}) },
		"the same but in name": func(p *Proxy) { p.Open("U1", Upstream{direct: true}); p.Open("", Upstream{direct: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSites(t)
			s.at("example.com", "93.184.216.34", 443, func(net.Conn) { t.Error("it was reached") })
			p, err := newProxy(Config{}, s.network())
			if err != nil {
				t.Fatal(err)
			}
			before(p)
			r := newRig(t, p, &logs{})
			r.refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 502, NoUpstream)
			r.refused("GET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, NoUpstream)
			if len(s.dials) > 0 {
				t.Errorf("dialled %v", s.dials)
			}
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	r := newDirect(t, newSites(t), Config{})
	r.refused("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadRequest)
	r.refused("GET https://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadRequest)
	r.refused("GET ftp://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadRequest)
	r.refused("OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadRequest)
	r.refused("TRACE http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadRequest)
	r.refused("GET http://u:p@example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadTarget)
	r.refused("GET http:///etc/passwd HTTP/1.1\r\nHost: example.com\r\n\r\n", 400, BadTarget)
	r.refused("POST http://example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, BadRequest)
	r.refused("GET http://example.com/ HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 400, BadRequest)
	r.refused("CONNECT example.com:443 HTTP/1.1\r\nX: "+strings.Repeat("a", MaxHeaderBytes)+"\r\n\r\n", 431, HeaderTooLarge)
	if strings.Contains(r.logs.String(), "aaaa") || strings.Contains(r.logs.String(), "passwd") {
		t.Error("what the guest sent is in the log")
	}
}

func TestTooManyConnections(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	r := newDirect(t, s, Config{MaxConns: 2})
	a, b := r.connect("example.com:443"), r.connect("example.com:443")
	r.refused("CONNECT example.com:443 HTTP/1.1\r\n\r\n", 503, TooMany)
	// Another machine is not concerned.
	host, guest := linePair(t)
	other := &rig{Proxy: r.Proxy, t: t, guest: guest, done: make(chan error, 1)}
	go func() {
		other.done <- r.Serve(t.Context(), Identity{UserID: testIdentity.UserID, MachineID: "m2"}, host)
	}()
	other.connect("example.com:443")
	// One that ended makes room; that it has ended is seen by the end of ours.
	for _, c := range []*client{a, b} {
		c.Close()
		c.atEnd()
	}
	guest.Close()
	if err := <-other.done; err == nil {
		t.Log("the other line ended without an error")
	}
}

func TestFloodEndsTheLine(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	r := newDirect(t, s, Config{MaxConns: 2})
	for range 5 { // never a whole request, never closed
		conn, err := r.guest.Dial(t.Context())
		if err == nil {
			_, err = io.WriteString(conn, "x")
		}
		if err != nil {
			t.Log("the line has ended:", err)
		}
	}
	if err := <-r.done; !errors.Is(err, ErrFlood) {
		t.Errorf("Serve returned %v", err)
	}
	r.done <- nil
	<-r.guest.Done()
}

func TestServeEnds(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	r := newDirect(t, s, Config{})

	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		host, guest := linePair(t)
		one := &rig{Proxy: r.Proxy, t: t, guest: guest, done: make(chan error, 1)}
		go func() { one.done <- r.Serve(ctx, testIdentity, host) }()
		c := one.connect("example.com:443")
		one.open() // without a request
		cancel()
		if err := <-one.done; err != nil {
			t.Error(err)
		}
		if _, err := c.br.ReadByte(); err == nil {
			t.Error("the tunnel is open")
		}
	})
	t.Run("with its line", func(t *testing.T) {
		host, guest := linePair(t)
		one := &rig{Proxy: r.Proxy, t: t, guest: guest, done: make(chan error, 1)}
		go func() { one.done <- r.Serve(t.Context(), testIdentity, host) }()
		one.connect("example.com:443")
		guest.Close()
		<-one.done
	})
	t.Run("with the proxy", func(t *testing.T) {
		c := r.connect("example.com:443")
		r.Proxy.Close()
		if _, err := c.br.ReadByte(); err == nil {
			t.Error("the tunnel is open")
		}
		host, _ := linePair(t)
		if err := r.Serve(t.Context(), testIdentity, host); !errors.Is(err, ErrClosed) {
			t.Errorf("Serve of a closed proxy: %v", err)
		}
		<-host.Done()
	})
}

func BenchmarkTunnel(b *testing.B) {
	const total = 64 << 20
	s := newSites(b)
	s.at("example.com", "93.184.216.34", 443, func(c net.Conn) {
		chunk := make([]byte, 64<<10)
		br := bufio.NewReader(c)
		for {
			if _, err := br.ReadByte(); err != nil {
				return
			}
			for range total / len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		}
	})
	r := newDirect(b, s, Config{})
	c := r.connect("example.com:443")
	b.SetBytes(total)
	for b.Loop() {
		c.send("x")
		if _, err := io.CopyN(io.Discard, c.br, total); err != nil {
			b.Fatal(err)
		}
	}
	c.Close()
}
