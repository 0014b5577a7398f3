//go:build linux

package catch

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// one returns the one address of a name.
func one(t *testing.T, p *programs, name string, kind dnsmessage.Type) netip.Addr {
	t.Helper()
	code, all := p.lookUp(t, name, kind)
	if code != dnsmessage.RCodeSuccess || len(all) != 1 {
		t.Fatalf("%s: %v, %v", name, code, all)
	}
	return all[0]
}

func at(a netip.Addr, port uint16) string { return netip.AddrPortFrom(a, port).String() }

func TestConnections(t *testing.T) {
	o := &out{serve: echo}
	p, _ := newRig(t, o, goodbye)
	v4, v6 := one(t, p, "www.example.com", dnsmessage.TypeA), one(t, p, "WWW.Example.com", dnsmessage.TypeAAAA)
	if n4, _ := numberOf(v4); !v4.Is4() || n4 < firstNumber {
		t.Errorf("the name's address is %s", v4)
	}
	if n6, _ := numberOf(v6); !v6.Is6() || n6 < firstNumber {
		t.Errorf("the name's address is %s", v6)
	}
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	for to, want := range map[string]string{
		at(v4, 443):          "www.example.com:443",
		at(v6, 80):           "www.example.com:80",
		"192.0.2.7:25":       "192.0.2.7:25",
		"[2001:db8::7]:443":  "[2001:db8::7]:443",
		"169.254.169.254:80": "169.254.169.254:80",
		"10.0.0.1:65535":     "10.0.0.1:65535",
		"[fe80::1]:443":      "[fe80::1]:443",
		"[fd00::1]:1":        "[fd00::1]:1",
	} {
		t.Run(want, func(t *testing.T) {
			conn, err := p.tcp(t, to)
			if err != nil {
				t.Fatal(err)
			}
			if asked := o.asked(); asked[len(asked)-1] != want {
				t.Errorf("the way out was asked for %q", asked)
			}
			sent := make(chan error, 1)
			go func() {
				_, err := conn.Write(data)
				sent <- errors.Join(err, conn.CloseWrite())
			}()
			got, err := io.ReadAll(conn)
			if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d of %d bytes came back: %v", len(got), len(data), err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	o := &out{}
	p, _ := newRig(t, o, goodbye)
	v4 := one(t, p, "refused.example.com", dnsmessage.TypeA)
	refused := func(to string) {
		t.Helper()
		began := time.Now()
		if _, err := p.tcp(t, to); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", to, err)
		}
		if took := time.Since(began); took > patience/4 {
			t.Errorf("%s is refused after %s", to, took)
		}
	}
	refused(at(v4, 443))
	refused("192.0.2.1:22")
	refused("[2001:db8::1]:443")
	if asked := o.asked(); !slices.Equal(asked, []string{"refused.example.com:443", "192.0.2.1:22", "[2001:db8::1]:443"}) {
		t.Errorf("the way out was asked for %q", asked)
	}
	// No name has these.
	refused(at(address4(numbers-1), 443))
	refused(at(address6(numbers-1), 443))
	refused(at(address6(1<<31), 443))
	refused(at(address4(serverNumber), 80))
	if asked := o.asked(); len(asked) != 3 {
		t.Errorf("the way out was asked for %q", asked)
	}
}

func TestDatagrams(t *testing.T) {
	p, _ := newRig(t, &out{}, goodbye)
	for _, to := range []string{"192.0.2.1:443", "[2001:db8::1]:443", "192.0.2.1:3478", "198.18.0.2:54"} {
		if err := p.datagram(t, to); err == nil || !strings.Contains(err.String(), "refused") {
			t.Errorf("%s: %v", to, err)
		}
	}
}

// A machine has so many connections and no more, and all of them again when
// they have ended.
func TestLimit(t *testing.T) {
	p, _ := newRig(t, &out{serve: echo}, goodbye)
	for round := range 2 {
		var all []*gonet.TCPConn
		for i := range maxConns {
			conn, err := p.tcp(t, "192.0.2.1:443")
			if err != nil {
				t.Fatalf("round %d, connection %d: %v", round, i, err)
			}
			all = append(all, conn)
		}
		for range 3 {
			if _, err := p.tcp(t, "192.0.2.1:443"); err == nil {
				t.Fatal("there is one more than there may be")
			}
		}
		for _, conn := range all {
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			_ = conn.Close()
		}
		waitOpen(t, p)
	}
}

// waitOpen waits until there is room for a connection again.
func waitOpen(t *testing.T, p *programs) {
	t.Helper()
	limit := time.Now().Add(patience)
	for {
		conn, err := p.tcp(t, "192.0.2.1:443")
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

// A program that has ended its side and does not read to the other's end does
// not keep its place.
func TestGoodbye(t *testing.T) {
	const room = 16 << 10
	o := &out{serve: func(conn net.Conn) {
		_, _ = conn.Write(make([]byte, 4*room))
		_ = conn.Close()
	}}
	p, c := newRig(t, o, 50*time.Millisecond)
	small := tcpip.TCPReceiveBufferSizeRangeOption{Min: room, Default: room, Max: room}
	if err := p.stack.SetTransportProtocolOption(tcp.ProtocolNumber, &small); err != nil {
		t.Fatal(err)
	}
	conn, err := p.tcp(t, "192.0.2.1:443")
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.conns.Wait() // for this one: there is no other
	if n, err := io.Copy(io.Discard, conn); err == nil || n >= 4*room {
		t.Errorf("%d bytes, and the end of all (%v)", n, err)
	}
}

func TestClose(t *testing.T) {
	dialling := make(chan struct{})
	o := &out{serve: func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn); _ = conn.Close() }}
	p := newPrograms(t)
	c, err := New(p, Config{Join: join, Logger: slog.New(slog.DiscardHandler), Dial: func(ctx context.Context, target string) (net.Conn, error) {
		if target != "192.0.2.1:1" {
			return o.dial(ctx, target)
		}
		close(dialling)
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	if err != nil {
		t.Fatal(err)
	}
	open, err := p.tcp(t, "192.0.2.1:443")
	if err != nil {
		t.Fatal(err)
	}
	names, err := p.tcp(t, "192.0.2.1:53")
	if err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() {
		_, err := p.tcp(t, "192.0.2.1:1")
		made <- err
	}()
	<-dialling
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-made; err == nil {
		t.Error("a connection that was being made was made")
	}
	for _, conn := range []net.Conn{open, names} {
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%d bytes from a connection that was ended", n)
		}
	}
	o.serving.Wait()
}

// Names are asked over TCP too, and of whatever server a program likes.
func TestQuestionsOverTCP(t *testing.T) {
	p, _ := newRig(t, &out{}, goodbye)
	want := one(t, p, "a.example.com", dnsmessage.TypeA)
	for _, server := range []string{"8.8.8.8:53", "[2001:4860:4860::8888]:53", ask4} {
		conn, err := p.tcp(t, server)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			send(t, conn, question(t, "a.example.com", dnsmessage.TypeA))
			if code, got := parse(t, receive(t, conn)); code != dnsmessage.RCodeSuccess || len(got) != 1 || got[0] != want {
				t.Errorf("%s: %v, %v", server, code, got)
			}
		}
		send(t, conn, make([]byte, maxQuery+1))
		if _, err := io.ReadAll(conn); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("after a question that is too long: %v", err)
		}
	}
}

func send(t *testing.T, conn net.Conn, m []byte) {
	t.Helper()
	if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, conn net.Conn) []byte {
	t.Helper()
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		t.Fatal(err)
	}
	m := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Two questions from one port, one right behind the other, as glibc asks them.
func TestQuestionsTogether(t *testing.T) {
	p, _ := newRig(t, &out{}, goodbye)
	conn := p.udp(t, "192.0.2.1:53")
	const both = 50
	for range both {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
			if _, err := conn.Write(question(t, "example.com", kind)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 * both {
		b := make([]byte, maxAnswer)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if code, got := parse(t, b[:n]); code != dnsmessage.RCodeSuccess || len(got) != 1 {
			t.Errorf("%v, %v", code, got)
		}
	}
}

func TestTaken(t *testing.T) {
	v4 := func(change func(header.IPv4)) []byte {
		h := header.IPv4(make([]byte, 40))
		h.Encode(&header.IPv4Fields{TotalLength: 40, TTL: 64, Protocol: uint8(header.TCPProtocolNumber)})
		if change != nil {
			change(h)
		}
		return h
	}
	v6 := func(transport uint8) []byte {
		h := header.IPv6(make([]byte, 60))
		h.Encode(&header.IPv6Fields{PayloadLength: 20, HopLimit: 64})
		h.SetNextHeader(transport)
		return h
	}
	for name, test := range map[string]struct {
		packet []byte
		want   bool
	}{
		"tcp":                {v4(nil), true},
		"udp":                {v4(func(h header.IPv4) { h[9] = 17 }), true},
		"icmp":               {v4(func(h header.IPv4) { h[9] = 1 }), false},
		"gre":                {v4(func(h header.IPv4) { h[9] = 47 }), false},
		"a first fragment":   {v4(func(h header.IPv4) { h.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0) }), false},
		"a last fragment":    {v4(func(h header.IPv4) { h.SetFlagsFragmentOffset(0, 8) }), false},
		"half a header":      {v4(nil)[:19], false},
		"tcp6":               {v6(6), true},
		"udp6":               {v6(17), true},
		"icmp6":              {v6(58), false},
		"a fragment of 6":    {v6(44), false},
		"hop by hop":         {v6(0), false},
		"half a header of 6": {v6(6)[:39], false},
		"version 5":          {[]byte{0x50, 0, 0}, false},
		"nothing":            {nil, false},
	} {
		if _, ok := taken(test.packet); ok != test.want {
			t.Errorf("%s: not %v", name, test.want)
		}
	}
}
