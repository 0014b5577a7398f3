package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/test/idp"
)

const (
	streamsTime = 10 * time.Second // that pictures are counted for
	streamsCalm = 3 * time.Second  // before that, once all show something that moves
	movingRate  = 4                // pictures a second that a sign-in page does not have

	keysymControl, keysymReturn = 0xffe3, 0xff0d
)

// streamsRow is what each of some screens got that showed something moving.
type streamsRow struct {
	pictures []float64 // a second, of each
	bits     []float64 // a second, of each
	machines float64   // cores, all of them together
	server   float64   // cores
}

// watcher is a viewer that counts pictures and decodes none.
type watcher struct {
	pc       *webrtc.PeerConnection
	input    *webrtc.DataChannel
	open     chan struct{}
	id       uint32
	pictures atomic.Int64
	bytes    atomic.Int64
}

func (w *watcher) close() { _ = w.pc.GracefulClose() }

// watch connects to a session's screen over UDP on loopback.
func (s *subject) watch(ctx context.Context, id string) (*watcher, error) {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetSCTPMaxMessageSize(guestapi.MaxScreenMessage)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	w := &watcher{pc: pc, open: make(chan struct{})}
	pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			w.bytes.Add(int64(len(p.Payload)))
			if p.Marker {
				w.pictures.Add(1)
			}
		}
	})
	if err := w.connect(ctx, s, id); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *watcher) connect(ctx context.Context, s *subject, id string) error {
	if _, err := w.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		return err
	}
	var err error
	if w.input, err = w.pc.CreateDataChannel("input", nil); err != nil {
		return err
	}
	w.input.OnOpen(func() { close(w.open) })
	ordered, none := false, uint16(0)
	if _, err := w.pc.CreateDataChannel("moves", &webrtc.DataChannelInit{Ordered: &ordered, MaxRetransmits: &none}); err != nil {
		return err
	}
	offer, err := w.pc.CreateOffer(nil)
	if err != nil {
		return err
	}
	if err := w.pc.SetLocalDescription(offer); err != nil {
		return err
	}
	answer, err := s.user.Watch(ctx, id, offer.SDP)
	if err != nil {
		return err
	}
	if err := w.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		return err
	}
	select {
	case <-w.open:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the screen's channel: %w", ctx.Err())
	}
}

func (w *watcher) do(in guestapi.Input) error {
	w.id++
	in.ID = w.id
	return w.input.Send(guestapi.AppendInput(nil, in))
}

func (w *watcher) tap(keysym uint32) error {
	return errors.Join(w.do(guestapi.Input{Type: guestapi.InputKey, Keysym: keysym, Down: true}), w.do(guestapi.Input{Type: guestapi.InputKey, Keysym: keysym}))
}

// goTo types an address into the remote Chromium's address bar, until something
// moves on the screen: what was typed too early is not in it as a whole.
func (w *watcher) goTo(ctx context.Context, address string) error {
	for {
		err := errors.Join(
			w.do(guestapi.Input{Type: guestapi.InputKey, Keysym: keysymControl, Down: true}), w.tap('l'),
			w.do(guestapi.Input{Type: guestapi.InputKey, Keysym: keysymControl}),
		)
		if err == nil {
			err = rest(ctx, time.Second)
		}
		if err == nil {
			err = errors.Join(w.do(guestapi.Input{Type: guestapi.InputText, Text: address}), w.tap(keysymReturn))
		}
		for range 10 {
			if err != nil {
				return err
			}
			before := w.pictures.Load()
			if err = rest(ctx, time.Second); err == nil && w.pictures.Load()-before >= movingRate {
				return nil
			}
		}
	}
}

// streams measures what each of several machines gets whose screens all move and
// are all watched.
func (b *bench) streams(ctx context.Context, s *subject) error {
	var errs []error
	for _, n := range []int{1, 5, atOnce} {
		ctx, cancel := context.WithTimeout(ctx, 2*runTime)
		row, err := s.streaming(ctx, n)
		cancel()
		if err != nil {
			errs = append(errs, fmt.Errorf("%d: %w", n, err))
		} else {
			b.report.streams = append(b.report.streams, row)
		}
		if err := s.endAll(context.WithoutCancel(ctx)); err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(errs...)
}

func (s *subject) streaming(ctx context.Context, n int) (row streamsRow, err error) {
	all, err := s.startMany(ctx, n, idp.Claude)
	for _, one := range all {
		one.close()
	}
	if err != nil {
		return row, err
	}
	var machines []string
	var watchers []*watcher
	for _, one := range all {
		now, err := s.user.Session(ctx, one.id)
		if err != nil {
			return row, err
		}
		machines = append(machines, now.VMID)
		w, err := s.watch(ctx, one.id)
		if err != nil {
			return row, err
		}
		defer w.close()
		watchers = append(watchers, w)
	}
	for _, w := range watchers {
		if err := w.goTo(ctx, "http://"+viewSite+"/moving"); err != nil {
			return row, fmt.Errorf("something that moves: %w", err)
		}
	}
	if err := rest(ctx, streamsCalm); err != nil {
		return row, err
	}
	used := func() (machine, server time.Duration, err error) {
		for _, id := range machines {
			t, err := machineTime(id)
			if err != nil {
				return 0, 0, err
			}
			machine += t
		}
		server, err = processTime(s.rig.PID())
		return machine, server, err
	}
	type count struct{ pictures, bytes int64 }
	counts := func() (out []count) {
		for _, w := range watchers {
			out = append(out, count{w.pictures.Load(), w.bytes.Load()})
		}
		return out
	}
	machine, server, err := used()
	if err != nil {
		return row, err
	}
	before, began := counts(), time.Now()
	if err := rest(ctx, streamsTime); err != nil {
		return row, err
	}
	took, after := time.Since(began).Seconds(), counts()
	machineAfter, serverAfter, err := used()
	for i := range after {
		row.pictures = append(row.pictures, float64(after[i].pictures-before[i].pictures)/took)
		row.bits = append(row.bits, 8*float64(after[i].bytes-before[i].bytes)/took)
	}
	row.machines, row.server = (machineAfter-machine).Seconds()/took, (serverAfter-server).Seconds()/took
	return row, err
}

const streamsIntro = `
## Several screens at once

Each of the machines shows the full-window animation of above, and each screen is
watched over WebRTC and UDP by a program that counts what comes and decodes
nothing, for 10 s. A screen that moves by itself is shown at 30 pictures a second
at most.

| screens | pictures a second, p50 | least | Mbit/s each, p50 | all machines, cores | server, cores |
|---|---|---|---|---|---|
`

func streamsMarkdown(rows []streamsRow) string {
	var b strings.Builder
	b.WriteString(streamsIntro)
	for _, r := range rows {
		fmt.Fprintf(&b, "| %d | %.1f | %.1f | %.2f | %.2f | %.3f |\n", len(r.pictures), percentile(r.pictures, 50), slices.Min(r.pictures),
			percentile(r.bits, 50)/1e6, r.machines, r.server)
	}
	return b.String()
}
