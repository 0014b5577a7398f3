package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *World {
	t.Helper()
	w, err := NewWorld()
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

func limit(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestCaptureSeesLeaks sends something of every kind that could leak, each by a
// process or socket in the server's namespace, beside what is expected, and
// wants exactly the former to be told of.
func TestCaptureSeesLeaks(t *testing.T) {
	w, ctx := newWorld(t), limit(t)
	proxy := netip.AddrPortFrom(ProxyAddr(0), 8000)
	for _, at := range []string{proxy.String(), netip.AddrPortFrom(ProxyAddr(1), 8000).String()} {
		l, err := w.Proxies.Listen(at)
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
	}
	own, err := w.Server.Listen("127.0.0.1:9000")
	must(t, err)
	t.Cleanup(func() { _ = own.Close() })
	c, err := w.Server.Capture(func(p Packet) bool { return p.Between(ServerAddr, proxy) })
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })

	conn, err := w.Server.Dial(ctx, nil, proxy.String())
	must(t, err)
	must(t, conn.Close())
	strange, expected, err := c.Strange(ctx)
	must(t, err)
	if len(strange) > 0 || expected < 3 {
		t.Fatalf("%d packets were expected, and these not: %v", expected, strange)
	}

	send := func(network, address string) error {
		return w.Server.Do(func() error {
			d := net.Dialer{Timeout: 200 * time.Millisecond}
			conn, err := d.Dial(network, address)
			if err != nil {
				return nil //nolint:nilerr // nobody answers: the packet was sent
			}
			_, err = conn.Write([]byte("leak"))
			return errors.Join(err, conn.Close())
		})
	}
	for _, leak := range []struct{ network, address, want string }{
		{"tcp", "198.51.100.7:443", "tcp sent on out: 10.77.0.1:* to 198.51.100.7:443"},
		{"tcp", "10.77.0.12:8000", "tcp sent on out: 10.77.0.1:* to 10.77.0.12:8000"},
		{"tcp", "10.77.0.11:8001", "tcp sent on out: 10.77.0.1:* to 10.77.0.11:8001"},
		{"tcp", "[2606:4700::1111]:443", "tcp sent on out: [fd77::1]:* to [2606:4700::1111]:443"},
		{"udp", "198.51.100.7:53", "udp sent on out: 10.77.0.1:* to 198.51.100.7:53"},
		{"udp", "10.77.0.11:8000", "udp sent on out: 10.77.0.1:* to 10.77.0.11:8000"},
		{"tcp", "127.0.0.1:9000", "tcp sent on lo: 127.0.0.1:* to 127.0.0.1:9000"},
		{"tcp", "10.77.0.1:9000", "tcp sent on lo: 10.77.0.1:* to 10.77.0.1:9000"},
		{"udp", "10.77.0.77:5", "ether 0x0806 sent on out: invalid AddrPort to invalid AddrPort"},
		{"ip4:icmp", "198.51.100.7", "icmp sent on out: 10.77.0.1:0 to 198.51.100.7:0"},
		{"ip4:47", "198.51.100.7", "ip 47 sent on out: 10.77.0.1:0 to 198.51.100.7:0"},
		{"ip6:58", "2606:4700::1111", "icmpv6 sent on out: [fd77::1]:0 to [2606:4700::1111]:0"},
	} {
		must(t, send(leak.network, leak.address))
		wants(t, ctx, c, leak.want)
	}

	must(t, w.Server.Do(func() error {
		return exec.Command("bash", "-c", "timeout 1 bash -c 'echo > /dev/tcp/198.51.100.9/25' 2>/dev/null; true").Run()
	}))
	wants(t, ctx, c, "tcp sent on out: 10.77.0.1:* to 198.51.100.9:25")
}

// wants checks that a packet was captured; * stands for any port.
func wants(t *testing.T, ctx context.Context, c *Capture, want string) {
	t.Helper()
	strange, _, err := c.Strange(ctx)
	must(t, err)
	for _, p := range strange {
		text := p.String()
		if strings.Contains(want, ":* ") {
			text = strings.Replace(text, fmt.Sprintf(":%d to", p.From.Port()), ":* to", 1)
		}
		if text == want {
			return
		}
	}
	t.Errorf("%q was not captured, but %v", want, strange)
}

// TestWorld checks that the server's packets get to the proxies and no further.
func TestWorld(t *testing.T) {
	w, ctx := newWorld(t), limit(t)
	site, err := w.Sites.Listen(netip.AddrPortFrom(SitesAddr, 80).String())
	must(t, err)
	t.Cleanup(func() { _ = site.Close() })
	from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(ExitAddr(3), 0))
	conn, err := w.Proxies.Dial(ctx, from, site.Addr().String())
	must(t, err)
	defer func() { _ = conn.Close() }()
	seen, err := site.Accept()
	must(t, err)
	defer func() { _ = seen.Close() }()
	if got := seen.RemoteAddr().(*net.TCPAddr).AddrPort().Addr(); got != ExitAddr(3) { //nolint:errcheck // it is one
		t.Errorf("the site sees %s, want %s", got, ExitAddr(3))
	}
	soon, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if conn, err := w.Server.Dial(soon, nil, site.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the server reaches a site by itself")
	}
}

// ask sends something through a door and returns what comes back.
func ask(t *testing.T, door *Door) string {
	t.Helper()
	conn, err := net.Dial("tcp", door.Address())
	must(t, err)
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "hello")
	_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is one
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

// TestDoor checks that what is inside is reached through a door, from the door's
// own address, both ways and with half-closes.
func TestDoor(t *testing.T) {
	w := newWorld(t)
	door, err := w.Server.Door()
	must(t, err)
	l, err := w.Server.Listen(door.Address())
	must(t, err)
	defer func() { _ = l.Close() }()
	from := make(chan string, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			from <- conn.RemoteAddr().(*net.TCPAddr).IP.String() //nolint:errcheck // it is one
			text, _ := io.ReadAll(conn)
			_, _ = conn.Write(append([]byte("heard "), text...))
			_ = conn.Close()
		}
	}()
	if answer := ask(t, door); answer != "heard hello" {
		t.Errorf("the answer is %q", answer)
	}
	if got := <-from; got != doorAddr.String() {
		t.Errorf("inside it comes from %s", got)
	}
	open := door.Shut()
	if answer := ask(t, door); answer != "" {
		t.Errorf("through the shut door came %q", answer)
	}
	open()
	must(t, door.Close())
}
