package rtc

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// limit is how long a test waits for what must come.
const limit = 20 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// await waits for a value, or for a channel to be closed.
func await[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-testContext(t).Done():
		t.Fatalf("%s did not come", what)
	}
	panic("not reached")
}

// until waits for a value that fits, and leaves out others.
func until[T any](t testing.TB, what string, c <-chan T, fits func(T) bool) T {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case v, ok := <-c:
			if !ok {
				t.Fatalf("%s did not come: it has ended", what)
			}
			if fits(v) {
				return v
			}
		case <-ctx.Done():
			t.Fatalf("%s did not come", what)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newGateway(t testing.TB, change func(*Config)) *Gateway {
	t.Helper()
	cfg := Config{Address: "127.0.0.1:0", Logger: slog.New(slog.NewTextHandler(&syncBuffer{}, nil))}
	if change != nil {
		change(&cfg)
	}
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return g
}

// toldGuest is a frame that a machine got.
type toldGuest struct {
	typ     guestapi.ScreenFrameType
	payload []byte
}

// guest is a machine's end of a screen stream.
type guest struct {
	conn net.Conn
	got  chan toldGuest // closed when the gateway has closed the stream
}

func newGuest(t testing.TB) (*guest, io.ReadWriteCloser) {
	host, end := net.Pipe()
	g := &guest{conn: end, got: make(chan toldGuest, 4096)}
	t.Cleanup(func() { _ = end.Close() })
	go func() {
		defer close(g.got)
		for {
			typ, payload, err := guestapi.ReadScreenFrame(end, nil)
			if err != nil {
				return
			}
			g.got <- toldGuest{typ, payload}
		}
	}()
	return g, host
}

func (g *guest) video(f guestapi.VideoFrame) error {
	return guestapi.WriteScreenFrame(g.conn, guestapi.ScreenVideo, guestapi.AppendVideo(nil, f))
}

// film sends a keyframe whenever one is asked for, and pictures in between, until
// the stream ends. What else the gateway says is in the channel that it returns.
func (g *guest) film(size int) <-chan toldGuest {
	rest := make(chan toldGuest, 4096)
	go func() {
		defer close(rest)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		began := time.Now()
		key := false
		for n := 0; ; n++ {
			select {
			case told, ok := <-g.got:
				if !ok {
					return
				}
				if told.typ == guestapi.ScreenKeyframe {
					key = true
				}
				rest <- told
				continue
			case <-tick.C:
			}
			f := guestapi.VideoFrame{
				Keyframe: key, Input: uint32(n / 10), Time: uint64(time.Since(began).Microseconds()), //nolint:gosec // small
				Width: 1280, Height: 800, Data: bytes.Repeat([]byte{byte(n)}, size),
			}
			if g.video(f) != nil {
				for told := range g.got { // nothing is lost of what was said
					rest <- told
				}
				return
			}
			key = false
		}
	}()
	return rest
}

// message is what the page gets on its channel.
type message struct {
	text bool
	data []byte
}

// viewer is a page: a real peer connection.
type viewer struct {
	t       testing.TB
	pc      *webrtc.PeerConnection
	input   *webrtc.DataChannel
	moves   *webrtc.DataChannel
	got     chan message
	packets chan *rtp.Packet
	open    chan struct{}
	closed  chan struct{}
	closing sync.Once
	conn    *Conn
	began   time.Time
	ice     atomic.Int64  // from the offer until the viewer's checks had succeeded
	first   time.Duration // from the offer to the first packet; read after one of packets
}

type viewerOptions struct {
	window  string // empty: its own
	only    string // transport; "" is both
	session string
	user    string
	life    context.Context
	ended   func(context.Context) bool
	drop    func(*rtp.Packet) bool // what is lost on the way
	open    func(context.Context, string) (io.ReadWriteCloser, error)
}

// loss is an interceptor before all others of a viewer: what it drops has never
// arrived.
type loss struct {
	interceptor.NoOp
	drop func(*rtp.Packet) bool
}

func (l *loss) NewInterceptor(string) (interceptor.Interceptor, error) { return l, nil }

func (l *loss) BindRemoteStream(_ *interceptor.StreamInfo, next interceptor.RTPReader) interceptor.RTPReader {
	return interceptor.RTPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		for {
			n, attr, err := next.Read(b, a)
			if err != nil {
				return n, attr, err
			}
			var p rtp.Packet
			if p.Unmarshal(b[:n]) == nil && l.drop(&p) {
				continue
			}
			return n, attr, nil
		}
	})
}

func newViewer(t testing.TB, drop func(*rtp.Packet) bool, relays ...IceServer) *viewer {
	t.Helper()
	v := &viewer{
		t: t, got: make(chan message, 4096), packets: make(chan *rtp.Packet, 1<<16),
		open: make(chan struct{}), closed: make(chan struct{}),
	}
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: playoutURI}, webrtc.RTPCodecTypeVideo); err != nil {
		t.Fatal(err)
	}
	var chain interceptor.Registry
	if drop != nil {
		chain.Add(&loss{drop: drop})
	}
	if err := webrtc.RegisterDefaultInterceptors(media, &chain); err != nil {
		t.Fatal(err)
	}
	s := webrtc.SettingEngine{LoggerFactory: silent()}
	s.SetIncludeLoopbackCandidate(true)
	s.SetSCTPMaxMessageSize(guestapi.MaxScreenMessage) // as Chromium's
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeTCP4})
	s.SetICEMulticastDNSMode(1)
	pc, err := webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(&chain), webrtc.WithSettingEngine(s)).NewPeerConnection(relayOnly(relays))
	if err != nil {
		t.Fatal(err)
	}
	v.pc = pc
	t.Cleanup(func() { _ = pc.GracefulClose() })
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	ordered, none := false, uint16(0)
	if v.input, err = pc.CreateDataChannel(channelInput, nil); err != nil {
		t.Fatal(err)
	}
	if v.moves, err = pc.CreateDataChannel(channelMoves, &webrtc.DataChannelInit{Ordered: &ordered, MaxRetransmits: &none}); err != nil {
		t.Fatal(err)
	}
	v.input.OnOpen(func() { close(v.open) })
	v.input.OnMessage(func(m webrtc.DataChannelMessage) { v.got <- message{m.IsString, m.Data} })
	pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		if s == webrtc.PeerConnectionStateClosed || s == webrtc.PeerConnectionStateFailed {
			v.closing.Do(func() { close(v.closed) })
		}
	})
	pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateConnected {
			v.ice.CompareAndSwap(0, int64(time.Since(v.began)))
		}
	})
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			if v.first == 0 {
				v.first = time.Since(v.began)
			}
			select {
			case v.packets <- p:
			default:
			}
		}
	})
	return v
}

// relayOnly is a browser that may speak to TURN servers only; any other without
// them.
func relayOnly(relays []IceServer) webrtc.Configuration {
	var c webrtc.Configuration
	for _, r := range relays {
		c.ICETransportPolicy = webrtc.ICETransportPolicyRelay
		c.ICEServers = append(c.ICEServers, webrtc.ICEServer{URLs: r.URLs, Username: r.Username, Credential: r.Credential})
	}
	return c
}

// offer is the page's, without candidates: those come by trickling.
func (v *viewer) offer() string {
	v.t.Helper()
	o, err := v.pc.CreateOffer(nil)
	if err != nil {
		v.t.Fatal(err)
	}
	if err := v.pc.SetLocalDescription(o); err != nil {
		v.t.Fatal(err)
	}
	return o.SDP
}

var (
	udpLine = regexp.MustCompile(`(?m)^a=candidate:\S+ \d udp .*\r\n`)
	tcpLine = regexp.MustCompile(`(?m)^a=candidate:\S+ \d tcp .*\r\n`)
)

func only(transport, sdp string) string {
	switch transport {
	case transportTCP:
		return udpLine.ReplaceAllString(sdp, "")
	case transportUDP:
		return tcpLine.ReplaceAllString(sdp, "")
	}
	return sdp
}

// connect makes a connection of a new viewer, with a machine of its own.
func connect(t testing.TB, g *Gateway, opts viewerOptions) (*viewer, *guest) {
	t.Helper()
	v := newViewer(t, opts.drop)
	gst := v.join(g, opts)
	await(t, "the input channel", v.open)
	return v, gst
}

func (v *viewer) join(g *Gateway, opts viewerOptions) *guest {
	t := v.t
	t.Helper()
	var gst *guest
	open := opts.open
	if open == nil {
		open = func(context.Context, string) (io.ReadWriteCloser, error) {
			var host io.ReadWriteCloser
			gst, host = newGuest(t)
			return host, nil
		}
	}
	if opts.session == "" {
		opts.session = "s"
	}
	if opts.user == "" {
		opts.user = "u"
	}
	if opts.life == nil {
		opts.life = context.Background()
	}
	v.began = time.Now()
	conn, answer, err := g.Connect(testContext(t), opts.life, Request{Session: opts.session, User: opts.user, Window: opts.window, Offer: []byte(v.offer()), Open: open, Ended: opts.ended})
	if err != nil {
		t.Fatal(err)
	}
	v.conn = conn
	if err := v.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: only(opts.only, string(answer))}); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	return gst
}

// json waits for a text message with a key, and returns its value.
func (v *viewer) json(key string) json.RawMessage {
	v.t.Helper()
	m := until(v.t, "a message with "+key, v.got, func(m message) bool {
		return m.text && strings.HasPrefix(string(m.data), `{"`+key+`":`)
	})
	var out map[string]json.RawMessage
	if err := json.Unmarshal(m.data, &out); err != nil {
		v.t.Fatal(err)
	}
	return out[key]
}

func (v *viewer) say(text string) {
	v.t.Helper()
	if err := v.input.SendText(text); err != nil {
		v.t.Fatal(err)
	}
}

func (v *viewer) do(in guestapi.Input) {
	v.t.Helper()
	if err := v.input.Send(guestapi.AppendInput(nil, in)); err != nil {
		v.t.Fatal(err)
	}
}
