package rtc

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
	tokens "golang.org/x/time/rate"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/stream"
)

var (
	errStopping = stream.ErrStopping
	errGone     = errors.New("rtc: the machine's end broke off")
)

const (
	maxRestarts = 64
	// What a machine may send: several times what an encoder is ever told. Beyond
	// it the machine waits.
	guestFrames, guestFrameBurst = 400, 400
	guestBytes, guestByteBurst   = 4 << 20, 16 << 20
	// releaseTime is how long a machine may take to be told to let go of all keys.
	releaseTime = time.Second
	// rateStep is how much a bitrate must change for an encoder to be told.
	rateStep = 0.05
	// quietTime is how long a machine may take to do what it was given last, before
	// the viewer is told; what it may still send meanwhile is read up to quietBytes.
	quietTime  = 400 * time.Millisecond
	quietBytes = 16 << 20
)

// Conn is one viewer's connection. The gateway runs it; what it ends with is
// logged.
type Conn struct {
	id     string
	window string
	g      *Gateway
	req    Request
	room   *room
	offer  *offer
	life   context.Context
	began  time.Time

	pc      *webrtc.PeerConnection
	sender  *webrtc.RTPSender
	machine io.ReadWriteCloser
	to      *toGuest
	out     *outbox
	queue   *frames
	packets *packets
	rate    *rate

	connected chan struct{} // closed once keys are agreed on
	connect   sync.Once
	pictured  chan struct{} // closed with the first picture that was sent
	ended     chan ending
	over      <-chan struct{} // closed when it ends: everything that runs returns
	running   context.Context // ends with it
	stop      context.CancelFunc
	said      chan struct{} // closed when the page is told nothing more; nil until its channel is open
	done      chan struct{}
	parting   *parting
	quiet     chan struct{} // closed when the machine has ended its side
	ice       atomic.Bool   // checks have succeeded
	word      atomic.Value
	saidStats stats // its reader's alone

	mu        sync.Mutex
	closing   bool
	work      sync.WaitGroup
	channels  map[string]bool
	transport string // "udp" or "tcp", once connected; only run's goroutine writes it

	signalling sync.Mutex
	ufrag      string
	candidates int
	restarts   int
}

// ending is why a connection ends.
type ending struct {
	reason string // for the metric; empty: it is no failure
	word   string // for the page; empty: nothing is said
	err    error
}

// connect makes a connection up to the answer.
func (g *Gateway) connect(ctx, life context.Context, r Request, o *offer) (c *Conn, answer []byte, err error) {
	id := make([]byte, 16)
	rand.Read(id)
	c = &Conn{
		id: base64.RawURLEncoding.EncodeToString(id), g: g, req: r, room: g.room(r.Session), offer: o, life: life, began: time.Now(),
		out: newOutbox(o.maxMessage), queue: newFrames(), rate: newRate(time.Now),
		connected: make(chan struct{}), pictured: make(chan struct{}), ended: make(chan ending, 1),
		done: make(chan struct{}), quiet: make(chan struct{}), channels: make(map[string]bool),
		ufrag: o.ufrag, candidates: o.candidates,
	}
	c.window = cmp.Or(r.Window, c.id)
	c.running, c.stop = context.WithCancel(context.WithoutCancel(life))
	c.over = c.running.Done()
	opened := make(chan error, 1)
	octx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		var err error
		c.machine, err = r.Open(octx, o.codec)
		opened <- err
	}()
	answer, failed := c.negotiate(ctx)
	if failed != nil {
		cancel()
	}
	err = <-opened
	if err == nil && failed == nil {
		c.to = newToGuest(c.machine, g.metrics.keyframes.Inc)
		c.to.bitrate(uint32(c.rate.Target())) //nolint:gosec // bounded
		c.parting = g.partings.expect(c.id, r)
		c.room.add(c)
		c.callbacks()
		g.metrics.offers.Inc()
		return c, answer, nil
	}
	c.stop()
	if c.pc != nil {
		_ = c.pc.GracefulClose()
	}
	if err == nil {
		_ = c.machine.Close()
	}
	if failed != nil {
		g.metrics.failed(failedOffer)
		return nil, nil, failed
	}
	g.metrics.failed(failedOpen)
	return nil, nil, err
}

func (c *Conn) negotiate(ctx context.Context) ([]byte, error) {
	var err error
	if c.pc, err = c.g.newPeer(c.offer.codec, c.rate, c.check()); err != nil {
		return nil, fmt.Errorf("rtc: %w", err)
	}
	track, err := webrtc.NewTrackLocalStaticRTP(capability(c.offer.codec), "screen", "machine")
	if err != nil {
		return nil, fmt.Errorf("rtc: %w", err)
	}
	video, err := c.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, fmt.Errorf("rtc: %w", err)
	}
	c.sender = video.Sender()
	var base [4]byte
	rand.Read(base[:])
	c.packets = newPackets(track, c.offer.codec, binary.BigEndian.Uint32(base[:]))
	text, err := c.offer.desc.Marshal()
	if err != nil {
		return nil, refuse("The offer cannot be answered.")
	}
	local, err := negotiate(ctx, c.pc, string(text))
	if err != nil {
		return nil, err
	}
	for _, e := range c.sender.GetParameters().HeaderExtensions {
		if e.URI == playoutURI {
			c.packets.playout = uint8(e.ID) //nolint:gosec // 1 to 255
		}
	}
	return answerFor(local, candidates(c.g.sockets.public))
}

// ID is the connection's name in its address.
func (c *Conn) ID() string { return c.id }

// Done is closed when nothing of the connection is left.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Patch takes a fragment of the viewer's: candidates, which are counted and left
// out, or an ICE restart, which is answered.
func (c *Conn) Patch(ctx context.Context, text []byte) (answer []byte, err error) {
	f, err := parseFragment(text)
	if err != nil {
		return nil, err
	}
	c.signalling.Lock()
	defer c.signalling.Unlock()
	if f.ufrag == "" || f.ufrag == c.ufrag {
		if c.candidates += f.candidates; c.candidates > maxCandidates {
			return nil, refuse("There are more than %d candidates.", maxCandidates)
		}
		return nil, nil
	}
	if c.restarts++; c.restarts > maxRestarts {
		return nil, refuse("This connection was restarted too often. Make a new one.")
	}
	again, err := restarted(c.pc.RemoteDescription().SDP, f)
	if err != nil {
		return nil, fmt.Errorf("rtc: restart: %w", err)
	}
	local, err := negotiate(ctx, c.pc, again)
	if err != nil {
		return nil, err
	}
	c.ufrag, c.candidates = f.ufrag, f.candidates
	return fragmentFor(local, candidates(c.g.sockets.public))
}

// end ends the connection; the first reason counts.
func (c *Conn) end(e ending) {
	select {
	case c.ended <- e:
	default:
	}
}

// spawn runs f, which returns soon after over is closed and the peer connection
// and the machine's stream are. false: it is too late.
func (c *Conn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return false
	}
	c.work.Go(f)
	return true
}

func (c *Conn) now() time.Time { return time.Now() }

func (c *Conn) setRole(control bool) {
	c.to.control(control)
	c.out.setRole(control)
}

func (c *Conn) lastWord() string {
	w, _ := c.word.Load().(string)
	return w
}

// check counts the transports over which the viewer is heard to try.
func (c *Conn) check() func(transport string) {
	var udp, tcp sync.Once
	return func(transport string) {
		once := &udp
		if transport == transportTCP {
			once = &tcp
		}
		once.Do(func() { c.g.metrics.checks.WithLabelValues(transport).Inc() })
	}
}

func (c *Conn) callbacks() {
	c.pc.OnDataChannel(c.channel)
	c.pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		if s == webrtc.ICEConnectionStateConnected || s == webrtc.ICEConnectionStateCompleted {
			c.ice.Store(true)
		}
	})
	c.pc.OnConnectionStateChange(c.state)
	c.state(c.pc.ConnectionState()) // it may have changed before
}

func (c *Conn) state(s webrtc.PeerConnectionState) {
	switch s {
	case webrtc.PeerConnectionStateConnected:
		c.connect.Do(func() { close(c.connected) })
	case webrtc.PeerConnectionStateFailed:
		c.end(ending{reason: c.unreached()})
	case webrtc.PeerConnectionStateClosed:
		c.end(ending{}) // the viewer said goodbye
	}
}

// unreached says how far a connection came that is none.
func (c *Conn) unreached() string {
	select {
	case <-c.connected:
		return failedLost
	default:
	}
	if c.ice.Load() {
		return failedDTLS
	}
	return failedICE
}

// run serves the connection until it ends, and undoes all of it.
func (c *Conn) run() {
	defer close(c.done)
	var writing sync.WaitGroup
	writing.Go(func() { c.writeMachine() })
	c.spawn(c.readMachine)
	c.spawn(c.readReports)
	e, left := c.wait()
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.word.Store(e.word)
	c.room.leave(c)
	c.to.finish()
	c.stop()
	// A machine that takes nothing must not hold up the end.
	timer := time.AfterFunc(releaseTime, func() { _ = c.machine.Close() })
	writing.Wait()
	timer.Stop()
	_ = c.machine.Close()
	c.settle()
	c.g.partings.over(c.parting, c.to.lastHanded())
	if e.word != "" {
		c.farewell()
	}
	_ = c.pc.GracefulClose()
	c.work.Wait()
	left()
	if e.reason != "" {
		c.g.metrics.failed(e.reason)
	}
	level := slog.LevelDebug
	if e.err != nil {
		level = slog.LevelWarn
	}
	c.g.log.Log(context.WithoutCancel(c.life), level, "viewer left", slog.String("session", c.req.Session), slog.String("transport", c.transport),
		slog.String("reason", e.reason), slog.String("told", e.word), slog.Duration("after", time.Since(c.began)), slog.Any("error", e.err))
}

// settle waits until the machine has done what it was given, which it says by
// ending its side: what is typed elsewhere from then on comes after it.
func (c *Conn) settle() {
	timer := time.NewTimer(quietTime)
	defer timer.Stop()
	select {
	case <-c.quiet:
	case <-timer.C:
	}
}

// farewell waits until the page has the last message, or for a moment.
func (c *Conn) farewell() {
	c.mu.Lock()
	said := c.said
	c.mu.Unlock()
	if said != nil {
		<-said
	}
}

// wait is what happens between the answer and the end.
func (c *Conn) wait() (e ending, left func()) {
	left = func() {}
	timer := time.NewTimer(c.g.cfg.Connect)
	defer timer.Stop()
	connected, pictured := c.connected, chan struct{}(nil)
	for {
		select {
		case e := <-c.ended:
			return c.why(e), left
		case <-c.life.Done():
			return cancelled(c.life), left
		case <-c.g.lastWork.Done():
			return cancelled(c.g.lastWork), left
		case <-connected:
			connected, pictured = nil, c.pictured
			timer.Reset(c.g.cfg.FirstFrame)
			left = c.enter()
		case <-pictured:
			pictured = nil
			timer.Stop()
		case <-timer.C:
			if connected != nil {
				return ending{reason: c.unreached()}, left
			}
			return ending{reason: failedFrame, err: errors.New("rtc: the machine sent no picture")}, left
		}
	}
}

// why tells a machine that broke off from a session that has ended.
func (c *Conn) why(e ending) ending {
	if e.reason == failedGuest && errors.Is(e.err, errGone) && c.req.Ended != nil && c.req.Ended(c.life) {
		return ending{word: "ended"}
	}
	return e
}

func cancelled(ctx context.Context) ending {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, stream.ErrSignedOut):
		return ending{word: "signed_out"}
	case errors.Is(cause, stream.ErrStopping):
		return ending{word: "stopping"}
	}
	return ending{}
}

// enter begins what a viewer is there for, once it has connected.
func (c *Conn) enter() (left func()) {
	transport := transportUDP
	if pair, err := c.pc.SCTP().Transport().ICETransport().GetSelectedCandidatePair(); err == nil && pair != nil && pair.Local.Protocol == webrtc.ICEProtocolTCP {
		transport = transportTCP
	}
	c.mu.Lock()
	c.transport = transport
	c.mu.Unlock()
	c.room.enter(c)
	c.queue.start()
	c.to.keyframe()
	c.spawn(c.writeVideo)
	return c.g.metrics.viewer(c.transport)
}

// writeMachine tells the machine.
func (c *Conn) writeMachine() {
	if err := c.to.run(); err != nil {
		c.end(ending{reason: failedGuest, err: fmt.Errorf("%w: %w", errGone, err)})
	}
}

// readMachine takes what the machine sends, as fast as a machine may.
func (c *Conn) readMachine() {
	defer close(c.quiet)
	count, size := tokens.NewLimiter(guestFrames, guestFrameBurst), tokens.NewLimiter(guestBytes, guestByteBurst)
	for {
		typ, payload, err := guestapi.ReadScreenFrame(c.machine, nil)
		if err == nil {
			err = c.frame(typ, payload)
		} else if !errors.Is(err, guestapi.ErrScreenFrame) {
			err = fmt.Errorf("%w: %w", errGone, err)
		}
		if err != nil {
			c.end(ending{reason: failedGuest, err: err})
			return
		}
		if count.Wait(c.running) != nil || size.WaitN(c.running, len(payload)) != nil {
			_, _ = io.CopyN(io.Discard, c.machine, quietBytes)
			return
		}
	}
}

func (c *Conn) frame(typ guestapi.ScreenFrameType, payload []byte) error {
	switch typ {
	case guestapi.ScreenVideo:
		f, err := guestapi.ParseVideo(payload)
		if err != nil {
			return err
		}
		dropped, askKey := c.queue.push(f)
		if dropped > 0 {
			c.g.metrics.frames.WithLabelValues("dropped").Add(float64(dropped))
		}
		if askKey {
			c.to.keyframe()
		}
		return nil
	case guestapi.ScreenCursor:
		if _, err := guestapi.ParseCursor(payload); err != nil {
			return err
		}
		c.out.setCursor(payload)
		return nil
	case guestapi.ScreenClipboard:
		if _, err := guestapi.ParseInput(append([]byte{byte(typ)}, payload...)); err != nil {
			return err
		}
		c.out.setClipboard(payload)
		return nil
	}
	return fmt.Errorf("%w: type %q from a machine", guestapi.ErrScreenFrame, typ)
}

// writeVideo sends the pictures.
func (c *Conn) writeVideo() {
	sent := c.g.metrics.frames.WithLabelValues("sent")
	input, first := uint32(0), true
	for {
		f, ok := c.queue.pop()
		if !ok {
			select {
			case <-c.queue.wake:
				continue
			case <-c.over:
				return
			}
		}
		ts := c.packets.timestamp(f)
		c.out.setSize(f.Width, f.Height)
		if f.Input != input {
			input = f.Input
			c.out.frame(ts, input)
		}
		n, err := c.packets.send(f, ts)
		c.g.metrics.bytes.Add(float64(n))
		if err != nil {
			return
		}
		sent.Inc()
		if first {
			first = false
			c.g.metrics.first(c.transport, time.Since(c.began))
			close(c.pictured)
		}
	}
}

// readReports takes what the viewer says of the video.
func (c *Conn) readReports() {
	told := float64(c.rate.Target())
	for {
		all, _, err := c.sender.ReadRTCP()
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
				return
			}
			select {
			case <-c.over:
				return
			default:
				continue // one that cannot be read
			}
		}
		for _, p := range all {
			switch p := p.(type) {
			case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
				c.to.keyframe()
			case *rtcp.TransportLayerCC:
				c.rate.Report(p)
			}
		}
		now := float64(c.rate.Target())
		if change := now/told - 1; change > rateStep || change < -rateStep || now != told && (now == minRate || now == maxRate) {
			told = now
			c.to.bitrate(uint32(now))
			c.g.metrics.target.Observe(now)
		}
	}
}
