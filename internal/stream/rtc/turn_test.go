package rtc

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/turn/v5"

	"github.com/anteroom/anteroom/internal/guestapi"
)

func TestThroughTheOwnTURN(t *testing.T) {
	for _, over := range []string{"udp", "tcp"} {
		t.Run(over, func(t *testing.T) {
			g := newGateway(t, func(c *Config) { c.TurnListen = "127.0.0.1:0" })
			relays := g.IceServers()
			var urls []string
			for _, u := range relays[0].URLs {
				if strings.HasSuffix(u, "="+over) {
					urls = append(urls, u)
				}
			}
			relays[0].URLs = urls
			v := newViewer(t, nil, relays...)
			gst := v.join(g, viewerOptions{only: transportUDP})
			told := gst.film(3000)
			await(t, "a packet", v.packets)
			await(t, "the input channel", v.open)
			v.json("role")
			v.do(guestapi.Input{Type: guestapi.InputKey, Keysym: 'a'})
			until(t, "the key", told, func(m toldGuest) bool { return m.typ == guestapi.InputKey })
		})
	}
}

// The relay leads nowhere else, whatever a client with good credentials asks.
func TestTheOwnTURNLeadsHomeOnly(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.TurnListen = "127.0.0.1:0" })
	s := g.IceServers()[0]
	other, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	client := turnClient(t, s, s.Credential)
	relay, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := relay.WriteTo([]byte("hello"), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 9}); err == nil {
		t.Error("another address is permitted")
	}
	// The address is permitted, since it is the gateway's; the port is not.
	for range 5 {
		_, _ = relay.WriteTo([]byte("hello"), other.LocalAddr())
	}
	if _, err := relay.WriteTo([]byte("hello"), net.UDPAddrFromAddrPort(g.Public()[0])); err != nil {
		t.Error(err)
	}
	// The server takes a client's messages in turn: when this is answered, those
	// before it have been dealt with.
	if _, err := client.SendBindingRequest(); err != nil {
		t.Fatal(err)
	}
	marker, err := net.Dial("udp", other.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = marker.Close() }()
	if _, err := marker.Write([]byte("the first")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if n, from, err := other.ReadFrom(b); err != nil || string(b[:n]) != "the first" {
		t.Errorf("%q came through from %v, %v", b[:n], from, err)
	}
	if _, err := turnClient(t, s, "wrong").Allocate(); err == nil {
		t.Error("a wrong password is taken")
	}
	old := s
	old.Username, old.Credential = relayCredentials(g.turn.relay.secret, time.Now().Add(-time.Second))
	if _, err := turnClient(t, old, old.Credential).Allocate(); err == nil {
		t.Error("old credentials are taken")
	}
}

func turnClient(t *testing.T, s IceServer, password string) *turn.Client {
	t.Helper()
	at := strings.TrimSuffix(strings.TrimPrefix(s.URLs[0], "turn:"), "?transport=udp")
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: at, TURNServerAddr: at, Conn: conn, Username: s.Username, Password: password, Realm: turnRealm, LoggerFactory: silent(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); _ = conn.Close() })
	if err := c.Listen(); err != nil {
		t.Fatal(err)
	}
	return c
}

// The credentials are those that coturn makes of the same secret and name.
func TestRelayCredentials(t *testing.T) {
	// printf '1700000000:x' | openssl dgst -binary -sha1 -hmac 0123456789abcdef | base64
	const want = "nRdHzTqazHIq6T8wegni/Eq4td0="
	if got := relayPassword([]byte("0123456789abcdef"), "1700000000:x"); got != want {
		t.Errorf("the password is %s", got)
	}
	file := filepath.Join(t.TempDir(), "secret")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		_ = os.Remove(file)
		if err := os.WriteFile(file, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	urls := []string{"turn:turn.example:3478", "turns:turn.example:443?transport=tcp"}
	write("0123456789abcdef\n", 0o600)
	r, err := NewRelay(urls, file)
	if err != nil {
		t.Fatal(err)
	}
	a, b := r.Servers()[0], r.Servers()[0]
	if a.Username == b.Username || a.Credential != relayPassword([]byte("0123456789abcdef"), a.Username) || len(a.URLs) != 2 {
		t.Errorf("%+v, %+v", a, b)
	}
	for name, tt := range map[string]struct {
		urls []string
		text string
		mode os.FileMode
	}{
		"short":        {urls, "secret", 0o600},
		"long":         {urls, strings.Repeat("x", 4000), 0o600},
		"for everyone": {urls, "0123456789abcdef", 0o644},
		"another kind": {[]string{"stun:turn.example"}, "0123456789abcdef", 0o600},
		"a password":   {[]string{"turn:u:p@turn.example"}, "0123456789abcdef", 0o600},
	} {
		write(tt.text, tt.mode)
		if _, err := NewRelay(tt.urls, file); err == nil || strings.Contains(err.Error(), "0123456789abcdef") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
