package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

const (
	viewSite   = "view.test" // behind the test upstream, on this machine
	viewWidth  = 1280
	viewHeight = 800
	viewWarmUp = 20 // clicks that do not count
	viewEach   = 10 // clicks for each of the runs
	viewStill  = 10 * time.Second
	viewFirsts = 20 // first pictures of each transport, at most
)

func codePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = io.WriteString(w, person.CodePage)
}

// view measures how long a click takes to be seen, by each way of the screen to
// the page, on one machine.
func (b *bench) view(ctx context.Context, s *subject) error {
	r := &viewReport{}
	b.report.view = r
	n := b.runs * viewEach
	var err error
	if r.floor, err = b.viewFloor(ctx, n); err != nil {
		return err
	}
	page, err := b.signIn(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()
	id, err := page.Connect(ctx, string(idp.Claude))
	if err != nil {
		return err
	}
	if _, err := page.WaitState(ctx, session.Waiting); err != nil {
		return err
	}
	now, err := s.user.Session(ctx, id)
	if err != nil {
		return err
	}
	v := &viewing{bench: b, subject: s, page: page, id: id, machine: now.VMID, n: n}
	var errs []error
	for _, t := range []person.Transport{person.UDP, person.TCP, person.VNC} {
		row, err := v.transport(ctx, t)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", t, err))
			b.report.leaveOut("view by %s: broken off, %v", t, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.rows = append(r.rows, row)
	}
	return errors.Join(append(errs, s.endAll(ctx))...)
}

// viewFloor measures the page itself, in the viewer's browser.
func (b *bench) viewFloor(ctx context.Context, n int) (latency, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	site := httptest.NewServer(http.HandlerFunc(codePage))
	defer site.Close()
	page, err := b.browser.Tab(ctx, site.URL)
	if err != nil {
		return latency{}, err
	}
	defer func() { _ = page.Close() }()
	if _, err := page.Click(ctx, viewWarmUp, true, true); err != nil {
		return latency{}, err
	}
	c, err := page.Click(ctx, n, true, false)
	return latency{clicked: c}, err
}

// viewing is one machine whose screen a page shows.
type viewing struct {
	bench       *bench
	subject     *subject
	page        *person.Page
	id, machine string
	n           int // clicks
}

// transport measures one way: the first pictures, then a still screen, clicked
// on and left alone, then one with something that moves.
func (v *viewing) transport(ctx context.Context, t person.Transport) (viewRow, error) {
	row := viewRow{transport: t}
	if err := v.page.Confine(ctx, t); err != nil {
		return row, err
	}
	if err := v.firsts(ctx, &row); err != nil {
		return row, err
	}
	for _, mode := range []struct {
		path string
		into *latency
	}{{"still", &row.still}, {"moving", &row.moving}} {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			if err := v.show(ctx, t, mode.path); err != nil {
				return err
			}
			used, err := v.using(ctx, func() error {
				var err error
				mode.into.clicked, err = v.page.Click(ctx, v.n, false, false)
				return err
			})
			mode.into.used = used
			if c := mode.into.clicked; err == nil && (c.Width != viewWidth || c.Height != viewHeight) {
				err = fmt.Errorf("the screen is %d by %d", c.Width, c.Height)
			}
			if err != nil || mode.path != "still" {
				return err
			}
			if err := rest(ctx, time.Second); err != nil { // until what was blurred is sharp
				return err
			}
			row.idle, err = v.using(ctx, func() error { return rest(ctx, viewStill) })
			return err
		}()
		if err != nil {
			return row, fmt.Errorf("%s: %w", mode.path, err)
		}
	}
	return row, nil
}

// show has the machine show one of the pages that are clicked on, in a screen of
// the size that is measured.
func (v *viewing) show(ctx context.Context, t person.Transport, path string) error {
	if err := v.open(ctx, t); err != nil {
		return err
	}
	if err := v.page.FitScreen(ctx, viewWidth, viewHeight); err != nil {
		return err
	}
	err := errors.New("not tried")
	for range 2 { // an address may not have been typed as a whole
		if err = v.page.GoTo(ctx, "http://"+viewSite+"/"+path); err != nil {
			return err
		}
		if _, err = v.page.Click(ctx, viewWarmUp, false, true); err == nil {
			return nil
		}
	}
	return err
}

// open loads the session's page anew and waits for its screen.
func (v *viewing) open(ctx context.Context, t person.Transport) error {
	if err := v.page.OpenSession(ctx, v.id); err != nil {
		return err
	}
	if err := v.page.HoldTransport(ctx, t); err != nil {
		return err
	}
	return v.page.WaitViewer(ctx)
}

// firsts measures from the offer to the first picture.
func (v *viewing) firsts(ctx context.Context, row *viewRow) error {
	if row.transport == person.VNC {
		return nil
	}
	const metric = "anteroom_webrtc_first_frame_seconds"
	read := func() (sum, count float64, err error) {
		sum, err = v.subject.user.Metric(ctx, metric+"_sum")
		if err == nil {
			count, err = v.subject.user.Metric(ctx, metric+"_count")
		}
		return sum, count, err
	}
	sum, count, err := read()
	if err != nil {
		return err
	}
	for range min(v.bench.runs, viewFirsts) {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			if err := v.open(ctx, row.transport); err != nil {
				return err
			}
			took, err := v.page.FirstFrameTook(ctx)
			row.firsts = append(row.firsts, took)
			return err
		}()
		if err != nil {
			return fmt.Errorf("first picture: %w", err)
		}
	}
	sumNow, countNow, err := read()
	if err == nil && countNow > count {
		row.serverFirst = time.Duration((sumNow - sum) / (countNow - count) * float64(time.Second))
	}
	return err
}

// rest waits.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// using runs f and says what the parts of the way used of the processors
// meanwhile, in cores.
func (v *viewing) using(ctx context.Context, f func() error) (cores, error) {
	// Inside first and last, so that looking does not count for the rest.
	screen, err := v.screenTime(ctx)
	if err != nil {
		return cores{}, err
	}
	before, err := v.times()
	if err != nil {
		return cores{}, err
	}
	began := time.Now()
	if err := f(); err != nil {
		return cores{}, err
	}
	took := time.Since(began)
	after, err := v.times()
	if err != nil {
		return cores{}, err
	}
	screenAfter, err := v.screenTime(ctx)
	share := func(d time.Duration) float64 { return d.Seconds() / took.Seconds() }
	return cores{
		machine: share(after.machine - before.machine), server: share(after.server - before.server),
		viewer: share(after.viewer - before.viewer), screen: share(screenAfter - screen),
	}, err
}

// times are what was used so far.
type times struct{ machine, server, viewer time.Duration }

func (v *viewing) times() (t times, err error) {
	if t.machine, err = machineTime(v.machine); err != nil {
		return t, err
	}
	if t.server, err = processTime(v.subject.rig.PID()); err != nil {
		return t, err
	}
	procs, err := processes()
	if err != nil {
		return t, err
	}
	root := v.bench.browser.PID()
	for pid := range procs {
		for p := pid; p > 1; p = procs[p].parent {
			if p == root {
				used, err := processTime(pid)
				if err == nil { // it may have just ended
					t.viewer += used
				}
				break
			}
		}
	}
	return t, nil
}
