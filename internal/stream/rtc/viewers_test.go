package rtc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/stream"
)

// The viewer's candidates come after the offer and are counted, no more.
func TestTrickle(t *testing.T) {
	g := newGateway(t, nil)
	v := newViewer(t, nil)
	var mu sync.Mutex
	var found []string
	v.pc.OnICECandidate(func(c *webrtc.ICECandidate) {
		if c != nil {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, "a="+c.ToJSON().Candidate)
		}
	})
	gathered := webrtc.GatheringCompletePromise(v.pc)
	v.join(g, viewerOptions{})
	await(t, "the candidates", gathered)
	mu.Lock()
	fragment := "a=mid:0\r\n" + strings.Join(found, "\r\n") + "\r\na=end-of-candidates\r\n"
	mu.Unlock()
	if answer, err := v.conn.Patch(t.Context(), []byte(fragment)); answer != nil || err != nil {
		t.Fatalf("%s, %v", answer, err)
	}
	await(t, "the input channel", v.open)
	for range maxCandidates {
		if _, err := v.conn.Patch(t.Context(), []byte("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n")); err != nil {
			if !errors.Is(err, ErrOffer) {
				t.Fatal(err)
			}
			return
		}
	}
	t.Error("any number of candidates is taken")
}

// After an ICE restart the same connection carries on, also over the other
// transport.
func TestICERestart(t *testing.T) {
	for _, tt := range [][2]string{{transportUDP, transportUDP}, {transportUDP, transportTCP}, {transportTCP, transportUDP}} {
		t.Run(tt[0]+" to "+tt[1], func(t *testing.T) {
			g := newGateway(t, nil)
			v, gst := connect(t, g, viewerOptions{only: tt[0]})
			told := gst.film(100)
			await(t, "a packet", v.packets)
			offer, err := v.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := v.pc.SetLocalDescription(offer); err != nil {
				t.Fatal(err)
			}
			parsed, err := parseOffer([]byte(offer.SDP))
			if err != nil {
				t.Fatal(err)
			}
			pwd, _ := parsed.desc.MediaDescriptions[0].Attribute("ice-pwd")
			answer, err := v.conn.Patch(testContext(t), []byte("a=ice-ufrag:"+parsed.ufrag+"\r\na=ice-pwd:"+pwd+"\r\n"))
			if err != nil || answer == nil {
				t.Fatalf("%s, %v", answer, err)
			}
			f, err := parseFragment([]byte(only(tt[1], string(answer))))
			if err != nil || f.candidates != 1 {
				t.Fatalf("%+v, %v: %s", f, err, answer)
			}
			// The page puts the fragment into the answer that it has.
			again, err := restarted(v.pc.CurrentRemoteDescription().SDP, f)
			if err != nil {
				t.Fatal(err)
			}
			again = udpLine.ReplaceAllString(tcpLine.ReplaceAllString(again, ""), "")
			line := udpLine.FindString(string(answer))
			if tt[1] == transportTCP {
				line = tcpLine.FindString(string(answer))
			}
			again = strings.Replace(again, "a=end-of-candidates\r\n", line+"a=end-of-candidates\r\n", 1)
			if err := v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: again}); err != nil {
				t.Fatal(err)
			}
			want := ice.NetworkTypeUDP4
			if tt[1] == transportTCP {
				want = ice.NetworkTypeTCP4
			}
			ctx := testContext(t)
			for { // each picture is a chance to look
				pair, err := v.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair()
				if err != nil {
					t.Fatal(err)
				}
				if pair != nil && strings.HasPrefix(want.String(), pair.Remote.Protocol.String()) && g.Viewers() == 1 && v.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected {
					break
				}
				select {
				case <-v.packets:
				case <-told:
				case <-ctx.Done():
					t.Fatalf("it is still %v", pair)
				}
			}
			for len(v.packets) > 0 {
				<-v.packets
			}
			await(t, "a packet after the restart", v.packets)
			v.do(guestapi.Input{Type: guestapi.InputKey, ID: 1, Keysym: 'x', Down: true})
			until(t, "the key", told, func(m toldGuest) bool { return m.typ == guestapi.InputKey })
		})
	}
}

// A viewer's PLI and FIR reach the machine, again and again.
func TestKeyframesAreAskedFor(t *testing.T) {
	g := newGateway(t, nil)
	v, gst := connect(t, g, viewerOptions{})
	told := gst.film(100)
	await(t, "a packet", v.packets)
	track := v.pc.GetReceivers()[0].Track()
	stop := make(chan struct{})
	var asking sync.WaitGroup
	asking.Go(func() {
		for {
			for _, p := range []rtcp.Packet{
				&rtcp.PictureLossIndication{MediaSSRC: uint32(track.SSRC())},
				&rtcp.FullIntraRequest{MediaSSRC: uint32(track.SSRC()), FIR: []rtcp.FIREntry{{SSRC: uint32(track.SSRC())}}},
			} {
				_ = v.pc.WriteRTCP([]rtcp.Packet{p})
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	for range 3 {
		until(t, "a keyframe request", told, func(m toldGuest) bool { return m.typ == guestapi.ScreenKeyframe })
	}
	close(stop)
	asking.Wait()
}

// What is lost on the way comes again: no packet is missing in the end.
func TestLossIsRepaired(t *testing.T) {
	var mu sync.Mutex
	n, lost := 0, map[uint16]bool{}
	g := newGateway(t, nil)
	v, gst := connect(t, g, viewerOptions{drop: func(p *rtp.Packet) bool {
		mu.Lock()
		defer mu.Unlock()
		if p.PayloadType != 96 { // what is sent again
			return false
		}
		if n++; n > 20 && n%10 == 0 && len(lost) < 30 && !lost[p.SequenceNumber] {
			lost[p.SequenceNumber] = true
			return true
		}
		return false
	}})
	gst.film(4000)
	ctx := testContext(t)
	got := map[uint16]bool{}
	for {
		select {
		case p := <-v.packets:
			got[p.SequenceNumber] = true
		case <-ctx.Done():
			t.Fatal("lost packets did not come again")
		}
		mu.Lock()
		missing := 0
		for seq := range lost {
			if !got[seq] {
				missing++
			}
		}
		all := len(lost) == 30 && missing == 0
		mu.Unlock()
		if all {
			return
		}
	}
}

func TestCursorAndClipboard(t *testing.T) {
	g := newGateway(t, nil)
	v, gst := connect(t, g, viewerOptions{})
	told := gst.film(100)
	cursor := guestapi.AppendCursor(nil, guestapi.Cursor{Width: 1, Height: 1, RGBA: []byte("rgba")})
	if err := guestapi.WriteScreenFrame(gst.conn, guestapi.ScreenCursor, cursor); err != nil {
		t.Fatal(err)
	}
	until(t, "the cursor", v.got, func(m message) bool { return !m.text && string(m.data) == "c"+string(cursor) })
	if err := guestapi.WriteScreenFrame(gst.conn, guestapi.ScreenClipboard, []byte("copied ü")); err != nil {
		t.Fatal(err)
	}
	until(t, "the clipboard", v.got, func(m message) bool { return !m.text && string(m.data) == "pcopied ü" })
	// The longest of everything arrives, in a message that a browser takes.
	long := strings.Repeat("ä", guestapi.MaxClipboard/2) + "x"
	v.do(guestapi.Input{Type: guestapi.ScreenClipboard, Text: long})
	until(t, "the paste", told, func(m toldGuest) bool { return m.typ == guestapi.ScreenClipboard && string(m.payload) == long })
	if err := guestapi.WriteScreenFrame(gst.conn, guestapi.ScreenClipboard, []byte(long)); err != nil {
		t.Fatal(err)
	}
	until(t, "the long clipboard", v.got, func(m message) bool { return !m.text && string(m.data) == "p"+long })
	side := uint16(guestapi.MaxCursorSide)
	large := guestapi.AppendCursor(nil, guestapi.Cursor{Width: side, Height: side, RGBA: make([]byte, 4*int(side)*int(side))})
	if err := guestapi.WriteScreenFrame(gst.conn, guestapi.ScreenCursor, large); err != nil {
		t.Fatal(err)
	}
	until(t, "the large cursor", v.got, func(m message) bool { return !m.text && string(m.data) == "c"+string(large) })
}

// Who takes only short messages gets the clipboard's beginning.
func TestClipboardIsCut(t *testing.T) {
	for limit, want := range map[int]string{1 << 10: "päöü", 7: "päöü", 6: "päö", 5: "päö", 4: "pä"} {
		o := newOutbox(limit)
		o.setClipboard([]byte("äöü"))
		if got := string(o.next()[0].data); got != want {
			t.Errorf("%d: %q, want %q", limit, got, want)
		}
	}
}

func TestLimitsOfViewers(t *testing.T) {
	g := newGateway(t, func(c *Config) { c.MaxPerSession, c.MaxPerUser, c.MaxViewers = 2, 3, 4 })
	join := func(session, user string) (*Conn, error) {
		c, _, err := g.Connect(testContext(t), context.Background(), Request{
			Session: session, User: user, Offer: []byte(newViewer(t, nil).offer()),
			Open: func(context.Context, string) (io.ReadWriteCloser, error) { _, host := newGuest(t); return host, nil },
		})
		return c, err
	}
	for i, tt := range []struct {
		session, user string
		ok            bool
	}{{"a", "u", true}, {"a", "u", true}, {"a", "v", false}, {"b", "u", true}, {"c", "u", false}, {"c", "v", true}, {"d", "w", false}} {
		if _, err := join(tt.session, tt.user); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrTooManyViewers) {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := join("e", "x"); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

// The page is told why a connection ends.
func TestEnds(t *testing.T) {
	for want, cause := range map[string]error{`"signed_out"`: stream.ErrSignedOut, `"stopping"`: stream.ErrStopping} {
		t.Run(want, func(t *testing.T) {
			g := newGateway(t, nil)
			life, cancel := context.WithCancelCause(context.Background())
			v, gst := connect(t, g, viewerOptions{life: life})
			gst.film(100)
			v.json("role")
			cancel(cause)
			if got := string(v.json("closing")); got != want {
				t.Errorf("it is told %s", got)
			}
			await(t, "the end", v.conn.Done())
			await(t, "the viewer's end", v.closed)
		})
	}
	t.Run("ended", func(t *testing.T) {
		g := newGateway(t, nil)
		v, gst := connect(t, g, viewerOptions{ended: func(context.Context) bool { return true }})
		v.json("role")
		_ = gst.conn.Close()
		if got := string(v.json("closing")); got != `"ended"` {
			t.Errorf("it is told %s", got)
		}
		await(t, "the end", v.conn.Done())
	})
	t.Run("a viewer that never comes", func(t *testing.T) {
		g := newGateway(t, func(c *Config) { c.Connect = 20 * time.Millisecond })
		v := newViewer(t, nil)
		c, _, err := g.Connect(testContext(t), context.Background(), Request{Session: "s", User: "u", Offer: []byte(v.offer()),
			Open: func(context.Context, string) (io.ReadWriteCloser, error) { _, host := newGuest(t); return host, nil }})
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the end", c.Done())
	})
	t.Run("a machine that cannot be opened", func(t *testing.T) {
		g := newGateway(t, nil)
		want := errors.New("no such codec")
		_, _, err := g.Connect(testContext(t), context.Background(), Request{Session: "s", User: "u", Offer: []byte(newViewer(t, nil).offer()),
			Open: func(context.Context, string) (io.ReadWriteCloser, error) { return nil, want }})
		if !errors.Is(err, want) || g.Viewers() != 0 {
			t.Errorf("%v, %d viewers", err, g.Viewers())
		}
	})
}

// Nothing stays of viewers that have come and gone.
func TestNothingStays(t *testing.T) {
	const rounds, atOnce = 25, 8
	g := newGateway(t, func(c *Config) { c.MaxPerUser = 64 })
	before := count(t)
	for round := range rounds {
		var all sync.WaitGroup
		for i := range atOnce {
			all.Go(func() {
				v := newViewer(t, nil)
				transport := transportUDP
				if i%2 == 1 {
					transport = transportTCP
				}
				gst := v.join(g, viewerOptions{only: transport, session: string(rune('a' + i/4))})
				gst.film(2000)
				select {
				case <-v.packets:
				case <-testContext(t).Done():
					t.Errorf("round %d: no packet", round)
				}
				switch i % 3 {
				case 0:
					_ = v.pc.GracefulClose()
				case 1:
					v.conn.end(ending{})
				default:
					_ = gst.conn.Close()
				}
				select {
				case <-v.conn.Done():
				case <-testContext(t).Done():
					t.Errorf("round %d: it did not end", round)
				}
				_ = v.pc.GracefulClose()
				_ = gst.conn.Close()
			})
		}
		all.Wait()
	}
	if n := g.Viewers(); n != 0 {
		t.Errorf("%d viewers stay", n)
	}
	ctx := testContext(t)
	for {
		now := count(t)
		if now.goroutines <= before.goroutines && now.files <= before.files {
			t.Logf("%d viewers: %+v before, %+v after", rounds*atOnce, before, now)
			return
		}
		select {
		case <-ctx.Done():
			var b bytes.Buffer
			stack := make([]byte, 1<<20)
			b.Write(stack[:runtime.Stack(stack, true)])
			t.Fatalf("%+v before, %+v after\n%s", before, now, &b)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

type held struct{ goroutines, files int }

func count(t *testing.T) held {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(files)}
}
