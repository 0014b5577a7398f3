package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/network"
	"github.com/anteroom/anteroom/test/person"
)

const (
	farEach      = 3 // clicks for each of the runs
	farMediaPort = 8081
	targetFar    = 60 // ms beyond the round trip, at the median
)

// distance is how far the person is from the server.
type distance struct {
	roundTrip time.Duration
	lost      int // of a hundred packets, each way
}

func (d distance) String() string {
	if d == (distance{}) {
		return "next to each other"
	}
	return fmt.Sprintf("%d ms there and back, %d%% lost", d.roundTrip.Milliseconds(), d.lost)
}

var distances = []distance{{}, {50 * time.Millisecond, 1}, {150 * time.Millisecond, 1}}

// farRow is what clicks took by one way over one distance.
type farRow struct {
	transport person.Transport
	distance  distance
	clicked   person.Clicked
}

// far measures how long a click takes to be seen by somebody who is far away,
// over a network that loses packets: server and person are in network namespaces
// of their own.
func (b *bench) far(ctx context.Context, _ *subject) (err error) {
	link, err := network.NewLink()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, link.Close()) }()
	door, err := link.Server.Door()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, door.Close()) }()
	at, err := netip.ParseAddrPort(door.Address())
	if err != nil {
		return err
	}
	if err := link.Open(at.Port()); err != nil {
		return err
	}
	provider, err := link.Server.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	browser, err := person.Open(ctx, person.Config{Within: link.Person.Within()})
	if err != nil {
		return errors.Join(err, provider.Close())
	}
	defer func() { err = errors.Join(err, browser.Close()) }()
	rig, err := harness.Start(ctx, harness.Config{
		Address: door.Address(), Listener: provider, Sites: sites(),
		Start: func(cmd *exec.Cmd) error { return link.Server.Do(cmd.Start) },
		Flags: []string{"--media-address", netip.AddrPortFrom(network.LinkServerAddr, farMediaPort).String()},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rig.Close()) }()
	s := &subject{rig: rig}
	if s.user, err = rig.User(ctx, "far"); err != nil {
		return err
	}
	there := &bench{runs: b.runs, browser: browser}
	page, err := there.signIn(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()
	v := &viewing{bench: there, subject: s, page: page, n: b.runs * farEach}
	if v.id, err = page.Connect(ctx, string(idp.Claude)); err != nil {
		return err
	}
	if _, err := page.WaitState(ctx, session.Waiting); err != nil {
		return err
	}
	var errs []error
	for _, t := range []person.Transport{person.UDP, person.VNC} {
		if err := b.farBy(ctx, v, link, t); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t, err))
		}
	}
	return errors.Join(errs...)
}

func (b *bench) farBy(ctx context.Context, v *viewing, link *network.Link, t person.Transport) error {
	ctx, cancel := context.WithTimeout(ctx, 2*runTime)
	defer cancel()
	if err := link.Fair(); err != nil {
		return err
	}
	if err := v.page.Confine(ctx, t); err != nil {
		return err
	}
	if err := v.show(ctx, t, "still"); err != nil {
		return err
	}
	for _, d := range distances {
		if err := errors.Join(link.Lose(d.lost), link.Delay(d.roundTrip)); err != nil {
			return err
		}
		if _, err := v.page.Click(ctx, viewWarmUp, false, false); err != nil { // until it has got used to it
			return err
		}
		clicked, err := v.page.Click(ctx, v.n, false, false)
		if err != nil {
			return err
		}
		b.report.far = append(b.report.far, farRow{t, d, clicked})
	}
	return nil
}

const farIntro = `
## Input to pixel from far away

As above, with server and browser in network namespaces of their own, on a still
screen. This kernel may have no netem: packets are held back on their way through
a TUN device, in their order, and dropped by nftables. What is beyond the round
trip is the median less the round trip that was added.

| way | network | clicks | lost | p50 | p95 | beyond the round trip, p50 | target | met |
|---|---|---|---|---|---|---|---|---|
`

func farMarkdown(rows []farRow) string {
	var b strings.Builder
	b.WriteString(farIntro)
	for _, r := range rows {
		p50 := percentile(r.clicked.Took, 50)
		beyond := p50 - milliseconds(r.distance.roundTrip)
		want, verdict := "–", "–"
		if r.transport != person.VNC && r.distance != (distance{}) {
			want, verdict = fmt.Sprintf("≤ %d ms", targetFar), met(beyond <= targetFar && len(r.clicked.Took) > 0)
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %.0f ms | %.0f ms | %.0f ms | %s | %s |\n", viewNames[r.transport], r.distance,
			len(r.clicked.Took), r.clicked.Lost, p50, percentile(r.clicked.Took, 95), beyond, want, verdict)
	}
	return b.String()
}
