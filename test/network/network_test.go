package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
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

// echo answers what it gets, by UDP and by TCP at an address of the server's.
func echo(t *testing.T, l *Link, tcp, udp string) {
	t.Helper()
	listener, err := l.Server.Listen(tcp)
	must(t, err)
	var packets net.PacketConn
	must(t, l.Server.Do(func() (err error) {
		packets, err = net.ListenPacket("udp", udp)
		return err
	}))
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() { _, _ = io.Copy(c, c); _ = c.Close() })
		}
	})
	work.Go(func() {
		for b := make([]byte, 100); ; {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() { _ = listener.Close(); _ = packets.Close(); work.Wait() })
}

// TestLink reaches a server over a link in all kinds of weather.
func TestLink(t *testing.T) {
	l, err := NewLink()
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	must(t, l.Open(8080))
	media := netip.AddrPortFrom(LinkServerAddr, 8081).String()
	echo(t, l, "127.0.0.1:8080", media)

	ctx := limit(t)
	page, err := l.Person.Dial(ctx, nil, "127.0.0.1:8080")
	must(t, err)
	t.Cleanup(func() { _ = page.Close() })
	var udp net.Conn
	must(t, l.Person.Do(func() (err error) {
		udp, err = net.Dial("udp", media)
		return err
	}))
	t.Cleanup(func() { _ = udp.Close() })
	// answers sends a byte and waits for it to come back, behind whatever comes
	// back late.
	answers := func(c net.Conn, mark byte, patience time.Duration) bool {
		_, err := c.Write([]byte{mark})
		must(t, err)
		must(t, c.SetReadDeadline(time.Now().Add(patience)))
		for b := make([]byte, 100); ; {
			n, err := c.Read(b)
			if err != nil {
				return false
			}
			if bytes.IndexByte(b[:n], mark) >= 0 {
				return true
			}
		}
	}
	for mark, test := range []struct {
		name     string
		weather  func() error
		udp, tcp bool
		least    time.Duration
	}{
		{"fair", func() error { return nil }, true, true, 0},
		{"no UDP", func() error { return l.Drop("udp PORT 8081") }, false, true, 0},
		{"all is lost", func() error { return l.Lose(100) }, false, false, 0},
		{"far", func() error { return l.Delay(200 * time.Millisecond) }, true, true, 200 * time.Millisecond},
		{"near again", l.Fair, true, true, 0},
		{"narrow", func() error { return l.Rate(300_000) }, true, true, 0},
	} {
		must(t, l.Fair())
		must(t, test.weather())
		for _, c := range []struct {
			conn net.Conn
			want bool
		}{{udp, test.udp}, {page, test.tcp}} {
			patience := 5 * time.Second
			if !c.want {
				patience = 300 * time.Millisecond
			}
			began := time.Now()
			got := answers(c.conn, byte(mark), patience)
			took := time.Since(began)
			if got != c.want || got && took < test.least {
				t.Errorf("%s: %s answered: %t after %s", test.name, c.conn.RemoteAddr().Network(), got, took)
			}
		}
	}

	// Still narrow: a message that is no longer a matter of one packet takes its
	// time, at least that for all but what may go at once.
	const size, atOnce = 30_000, 8_000
	began := time.Now()
	_, err = page.Write(bytes.Repeat([]byte{255}, size))
	must(t, err)
	must(t, page.SetReadDeadline(began.Add(15*time.Second)))
	_, err = io.ReadFull(page, make([]byte, size))
	must(t, err)
	if took := time.Since(began); took < (size-atOnce)*8*time.Second/300_000 {
		t.Errorf("%d bytes at 300 kbit/s took %s", size, took)
	}
}
