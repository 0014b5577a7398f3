package rtc

import (
	"testing"
	"time"

	"github.com/pion/rtp"

	"github.com/anteroom/anteroom/internal/guestapi"
)

func TestConnect(t *testing.T) {
	for _, transport := range []string{transportUDP, transportTCP, ""} {
		t.Run("over "+transport, func(t *testing.T) {
			g := newGateway(t, nil)
			v, gst := connect(t, g, viewerOptions{only: transport})
			told := gst.film(3000)
			p := await(t, "a packet", v.packets)
			if got := p.GetExtension(extensionID(p, v)); got != nil && (got[0] != 0 || got[1] != 0 || got[2] != 0) {
				t.Errorf("playout delay is %v", got)
			}
			if string(v.json("role")) != `"control"` {
				t.Error("the first viewer does not control")
			}
			if string(v.json("size")) != `{"height":800,"width":1280}` {
				t.Error("another size")
			}
			v.json("frame")
			v.do(guestapi.Input{Type: guestapi.InputKey, ID: 7, Keysym: 'a', Down: true})
			until(t, "the key", told, func(m toldGuest) bool {
				return m.typ == guestapi.InputKey && string(m.payload) == "\x00\x00\x00\x07\x00\x00\x00a\x01"
			})
			want := transport
			if want == "" {
				want = transportUDP
			}
			if v.conn.transport != want {
				t.Errorf("it is %s", v.conn.transport)
			}
			t.Logf("from the offer: checks %v, the first packet at the viewer at most %v", time.Duration(v.ice.Load()), v.first)
			if err := v.pc.Close(); err != nil {
				t.Fatal(err)
			}
			until(t, "the release", told, func(m toldGuest) bool { return m.typ == guestapi.InputRelease })
			await(t, "the end", v.conn.Done())
			if n := g.Viewers(); n != 0 {
				t.Errorf("%d viewers are left", n)
			}
		})
	}
}

func extensionID(p *rtp.Packet, _ *viewer) uint8 {
	for _, id := range p.GetExtensionIDs() {
		if len(p.GetExtension(id)) == 3 {
			return id
		}
	}
	return 0
}

// The sockets may listen everywhere, and be announced elsewhere.
func TestConnectToAnnounced(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0", "localhost:0"} {
		for _, transport := range []string{transportUDP, transportTCP} {
			t.Run(address+" over "+transport, func(t *testing.T) {
				g := newGateway(t, func(c *Config) { c.Address, c.Public = address, []string{"127.0.0.1"} })
				v, gst := connect(t, g, viewerOptions{only: transport})
				gst.film(100)
				await(t, "a packet", v.packets)
			})
		}
	}
}
