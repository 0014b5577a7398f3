package httpapi

import (
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/stream/rtc"
)

// rtcRig is a rig whose server shows screens by WebRTC.
func rtcRig(t *testing.T) (*rig, *rtc.Gateway) {
	t.Helper()
	g, err := rtc.New(rtc.Config{Address: "127.0.0.1:0", MaxPerSession: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after the server's own
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return newRig(t, func(c *Config) {
		c.WebRTC = g
		c.IceServers = func() []rtc.IceServer {
			return []rtc.IceServer{{URLs: []string{"turn:turn.example:3478"}, Username: "1:x", Credential: "y"}}
		}
	}), g
}

// page is a viewer's peer connection.
type page struct {
	pc   *webrtc.PeerConnection
	said chan string // text messages
}

func newPage(t *testing.T) (*page, string) {
	t.Helper()
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{}
	s.SetIncludeLoopbackCandidate(true)
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithSettingEngine(s)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	p := &page{pc: pc, said: make(chan string, 64)}
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	input, err := pc.CreateDataChannel("input", nil)
	if err != nil {
		t.Fatal(err)
	}
	input.OnMessage(func(m webrtc.DataChannelMessage) {
		if m.IsString {
			p.said <- string(m.Data)
		}
	})
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	return p, offer.SDP
}

// hears waits for a message.
func (p *page) hears(t *testing.T, want string) {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case got := <-p.said:
			if got == want {
				return
			}
		case <-ctx.Done():
			t.Fatalf("%s was not said", want)
		}
	}
}

func contentType(v string) edit { return header("Content-Type", v) }
func ticketed(v string) edit    { return header("Anteroom-Ticket", v) }

// drain is a machine that takes everything and sends one picture.
func drain(end net.Conn) {
	_ = end.SetDeadline(time.Time{})
	go func() {
		for {
			typ, _, err := guestapi.ReadScreenFrame(end, nil)
			if err != nil {
				return
			}
			if typ == guestapi.ScreenKeyframe {
				_ = guestapi.WriteScreenFrame(end, guestapi.ScreenVideo, guestapi.AppendVideo(nil, guestapi.VideoFrame{Keyframe: true, Width: 8, Height: 8, Data: []byte("x")}))
			}
		}
	}()
}

// see connects a page of alice's, and returns the connection's address.
func (r *rig) see(p *page, offer string, edits ...edit) string {
	r.Helper()
	path := r.viewer(r.alice)
	if len(edits) == 0 {
		edits = []edit{bearer(r.alice.token)}
	}
	a := r.do("POST", path+"/webrtc", offer, append([]edit{contentType("application/sdp"), ticketed(r.ticket(path, r.alice.token))}, edits...)...)
	location := a.header.Get("Location")
	if a.status != http.StatusCreated || !strings.HasPrefix(location, path+"/webrtc/") || a.header.Get("Content-Type") != "application/sdp" {
		r.Fatalf("%d %s at %q", a.status, a.body, location)
	}
	drain(r.guestEnd())
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.body}); err != nil {
		r.Fatal(err)
	}
	p.hears(r.T, `{"role":"control"}`)
	return location
}

func TestWebRTC(t *testing.T) {
	r, g := rtcRig(t)
	if a := r.do("GET", r.viewer(r.alice)+"/webrtc", "", bearer(r.alice.token)); a.body != `{"enabled":true,"ice_servers":[{"credential":"y","urls":["turn:turn.example:3478"],"username":"1:x"}]}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
	p, offer := newPage(t)
	location := r.see(p, offer)
	fragment := contentType("application/trickle-ice-sdpfrag")
	candidate := "a=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
	if a := r.do("PATCH", location, candidate, bearer(r.alice.token), fragment); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := r.do("PATCH", location, "a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghabcdefghabcdefgh\r\n", bearer(r.alice.token), fragment); a.status != http.StatusOK || !strings.Contains(a.body, "a=ice-ufrag:") {
		t.Errorf("%d %s", a.status, a.body)
	}
	// A foreign connection is none, whoever's session it is asked for at.
	for _, at := range []string{location, strings.Replace(location, string(r.alice.session), string(r.bob.session), 1)} {
		r.problem(r.do("PATCH", at, candidate, bearer(r.bob.token), fragment), ProblemCodeNotFound)
		r.problem(r.do("DELETE", at, "", bearer(r.bob.token)), ProblemCodeNotFound)
	}
	other := strings.Replace(location, string(r.alice.session), string(r.bob.session), 1)
	r.problem(r.do("DELETE", other, "", bearer(r.alice.token)), ProblemCodeNotFound)
	for name, tt := range map[string]struct {
		body string
		edit edit
		want ProblemCode
	}{
		"another type":        {candidate, contentType("application/json"), ProblemCodeUnsupportedMediaType},
		"too long":            {strings.Repeat("a=x\r\n", 4<<10), fragment, ProblemCodeBodyTooLarge},
		"too many candidates": {strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 65), fragment, ProblemCodeOfferInvalid},
		"nonsense":            {"hello", fragment, ProblemCodeOfferInvalid},
		"another site":        {candidate, func(q *http.Request) { fragment(q); q.Header.Set("Sec-Fetch-Site", "cross-site") }, ProblemCodeCrossOrigin},
	} {
		t.Run(name, func(t *testing.T) {
			rr := *r
			rr.T = t
			rr.problem(rr.do("PATCH", location, tt.body, bearer(r.alice.token), tt.edit), tt.want)
		})
	}
	// Asked again, as when an answer was lost, it is the same.
	for range 2 {
		if a := r.do("DELETE", location, "", bearer(r.alice.token)); a.status != http.StatusOK || a.body != `{"input":0}`+"\n" {
			t.Errorf("%d %s", a.status, a.body)
		}
		r.problem(r.do("DELETE", location, "", bearer(r.bob.token)), ProblemCodeNotFound)
	}
	gone(t, g)
	r.problem(r.do("PATCH", location, candidate, bearer(r.alice.token), fragment), ProblemCodeNotFound)
}

// gone waits until no viewer is left.
func gone(t *testing.T, g *rtc.Gateway) {
	t.Helper()
	ctx := testContext(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for g.Viewers() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("viewers are left")
		}
	}
}

func TestWebRTCRefuses(t *testing.T) {
	r, g := rtcRig(t)
	_, offer := newPage(t)
	mine, foreign := r.viewer(r.alice), r.viewer(r.bob)
	used := r.ticket(mine, r.alice.token)
	_, offer1 := newPage(t)
	a := r.do("POST", mine+"/webrtc", offer1, bearer(r.alice.token), contentType("application/sdp"), ticketed(used))
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	drain(r.guestEnd())
	sdp := contentType("application/sdp")
	many := strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 1000)
	for name, tt := range map[string]struct {
		offer string
		edits []edit
		want  ProblemCode
	}{
		"no ticket":         {offer, []edit{sdp}, ProblemCodeTicketInvalid},
		"no such ticket":    {offer, []edit{sdp, ticketed(strings.Repeat("A", 43))}, ProblemCodeTicketInvalid},
		"not a ticket":      {offer, []edit{sdp, ticketed("x")}, ProblemCodeTicketInvalid},
		"used ticket":       {offer, []edit{sdp, ticketed(used)}, ProblemCodeTicketInvalid},
		"foreign ticket":    {offer, []edit{sdp, ticketed(r.ticket(foreign, r.bob.token))}, ProblemCodeTicketInvalid},
		"terminal's ticket": {offer, []edit{sdp, ticketed(r.ticket(r.terminal(r.alice), r.alice.token))}, ProblemCodeTicketInvalid},
		"no type":           {offer, []edit{contentType("")}, ProblemCodeUnsupportedMediaType},
		"JSON":              {offer, nil, ProblemCodeUnsupportedMediaType},
		"64 KiB":            {offer + strings.Repeat("a=x\r\n", 14<<10), []edit{sdp}, ProblemCodeBodyTooLarge},
		"1 MiB":             {offer + strings.Repeat("a=x\r\n", 220<<10), []edit{sdp}, ProblemCodeBodyTooLarge},
		"1000 candidates":   {offer + many, []edit{sdp, ticketed(used)}, ProblemCodeOfferInvalid},
		"nonsense":          {"hello", []edit{sdp, ticketed(used)}, ProblemCodeOfferInvalid},
		"another site":      {offer, []edit{sdp, header("Origin", "https://elsewhere.example")}, ProblemCodeCrossOrigin},
		"another method":    {"", []edit{func(q *http.Request) { q.Method = "PUT" }}, ProblemCodeMethodNotAllowed},
	} {
		t.Run(name, func(t *testing.T) {
			rr := *r
			rr.T = t
			rr.problem(rr.do("POST", mine+"/webrtc", tt.offer, append([]edit{bearer(r.alice.token)}, tt.edits...)...), tt.want)
		})
	}
	// Nothing of that was at the cost of who was there before.
	if g.Viewers() == 0 {
		t.Error("nobody is there")
	}
	t.Run("no video", func(t *testing.T) {
		rr := *r
		rr.T = t
		r.uc.mu.Lock()
		r.uc.codec = "other"
		r.uc.mu.Unlock()
		rr.problem(rr.do("POST", mine+"/webrtc", offer, bearer(r.alice.token), sdp, ticketed(r.ticket(mine, r.alice.token))), ProblemCodeNoVideo)
		_ = rr.guestEnd().Close()
		r.uc.mu.Lock()
		r.uc.codec = ""
		r.uc.mu.Unlock()
	})
	t.Run("an ended session", func(t *testing.T) {
		rr := *r
		rr.T = t
		ticket := r.ticket(mine, r.alice.token)
		r.uc.set(r.alice.session, func(s *session.Session) { s.State = session.Failed })
		rr.problem(rr.do("POST", mine+"/webrtc", offer, bearer(r.alice.token), sdp, ticketed(ticket)), ProblemCodeConflict)
		r.uc.set(r.alice.session, func(s *session.Session) { s.State = session.Waiting })
	})
	t.Run("too many viewers", func(t *testing.T) {
		rr := *r
		rr.T = t
		ask := func() answer {
			return rr.do("POST", mine+"/webrtc", offer, bearer(r.alice.token), sdp, ticketed(r.ticket(mine, r.alice.token)))
		}
		if a := ask(); a.status != http.StatusCreated {
			t.Fatalf("%d %s", a.status, a.body)
		}
		drain(rr.guestEnd())
		rr.problem(ask(), ProblemCodeTooManyViewers)
		if a := rr.do("DELETE", a.header.Get("Location"), "", bearer(r.alice.token)); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	})
	if log := r.log.String(); strings.Contains(log, used) {
		t.Error("a ticket is in the log")
	}
}

// A connection ends with what it depends on, and the page is told why.
func TestWebRTCEnds(t *testing.T) {
	t.Run("signed out", func(t *testing.T) {
		r, g := rtcRig(t)
		b := r.browser(r.alice)
		p, offer := newPage(t)
		path := r.viewer(r.alice)
		a := r.send(b, "POST", path+"/webrtc", offer, contentType("application/sdp"), ticketed(r.ticket(path, r.alice.token)))
		if a.status != http.StatusCreated {
			t.Fatalf("%d %s", a.status, a.body)
		}
		drain(r.guestEnd())
		if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.body}); err != nil {
			t.Fatal(err)
		}
		p.hears(t, `{"role":"control"}`)
		if a := r.send(b, "POST", "/api/v1/logout", ""); a.status != http.StatusNoContent {
			t.Fatalf("%d %s", a.status, a.body)
		}
		p.hears(t, `{"closing":"signed_out"}`)
		gone(t, g)
	})
	t.Run("stopping", func(t *testing.T) {
		r, g := rtcRig(t)
		p, offer := newPage(t)
		r.see(p, offer)
		if err := r.server.Shutdown(testContext(t)); err != nil {
			t.Fatal(err)
		}
		p.hears(t, `{"closing":"stopping"}`)
		gone(t, g)
	})
	t.Run("ended", func(t *testing.T) {
		r, g := rtcRig(t)
		p, offer := newPage(t)
		path := r.viewer(r.alice)
		a := r.do("POST", path+"/webrtc", offer, bearer(r.alice.token), contentType("application/sdp"), ticketed(r.ticket(path, r.alice.token)))
		if a.status != http.StatusCreated {
			t.Fatalf("%d %s", a.status, a.body)
		}
		end := r.guestEnd()
		drain(end)
		if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: a.body}); err != nil {
			t.Fatal(err)
		}
		p.hears(t, `{"role":"control"}`)
		r.uc.set(r.alice.session, func(s *session.Session) { s.State = session.Completed })
		_ = end.Close()
		p.hears(t, `{"closing":"ended"}`)
		gone(t, g)
	})
}
