package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

// atOnce is how many sessions are asked for at the same time.
const atOnce = 10

var providers = []idp.Provider{idp.Claude, idp.Codex, idp.Gemini}

// starts returns the work that measures the start of one session at a time,
// through the page and by the API.
func starts(how string, target time.Duration) func(*bench, context.Context, *subject) error {
	return func(b *bench, ctx context.Context, s *subject) error {
		return errors.Join(b.throughPage(ctx, s, how, target), b.throughAPI(ctx, s, how, target))
	}
}

// throughPage measures with a person at the page.
func (b *bench) throughPage(ctx context.Context, s *subject, how string, target time.Duration) error {
	page, err := b.signIn(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()
	frame := b.report.measure("page: first frame, "+how, target)
	shown := b.report.measure("page: sign-in page of Claude Code, "+how, 0)
	return b.repeat(ctx, s, "starts from the page, "+how, b.runs, func(ctx context.Context, _ int) error {
		if err := page.Home(ctx); err != nil { // also forgets the last run's timings
			return err
		}
		if err := s.ready(ctx); err != nil {
			return err
		}
		id, err := page.Connect(ctx, string(idp.Claude))
		if err != nil {
			return err
		}
		first, err := page.ViewerTook(ctx)
		if err != nil {
			return err
		}
		all, err := page.SignInPageTook(ctx, idp.Claude)
		if err != nil {
			return err
		}
		if err := s.isAsMeant(ctx, id); err != nil {
			return err
		}
		frame.add(first)
		shown.add(all)
		return s.end(ctx, id)
	}, frame, shown)
}

// throughAPI measures with a program, and each of the tools in turn.
func (b *bench) throughAPI(ctx context.Context, s *subject, how string, target time.Duration) error {
	frame := b.report.measure("API: first frame, "+how, target)
	shown := map[idp.Provider]*measure{}
	for _, p := range providers {
		shown[p] = b.report.measure(fmt.Sprintf("API: sign-in page of %s, %s", p, how), 0)
	}
	return b.repeat(ctx, s, "starts by the API, "+how, b.runs, func(ctx context.Context, i int) error {
		provider := providers[i%len(providers)]
		if err := s.ready(ctx); err != nil {
			return err
		}
		w, err := s.start(ctx, provider)
		if err != nil {
			return err
		}
		defer w.close()
		frame.add(w.frame)
		shown[provider].add(w.page)
		w.close()
		return s.end(ctx, w.id)
	}, frame)
}

// ten measures sessions that are asked for at once.
func (b *bench) ten(ctx context.Context, s *subject) error {
	frame := b.report.measure(fmt.Sprintf("API: first frame, restored, %d at once", atOnce), targetTen)
	shown := b.report.measure(fmt.Sprintf("API: sign-in page, restored, %d at once", atOnce), 0)
	return b.repeat(ctx, s, fmt.Sprintf("%d starts at once", atOnce), max(1, b.runs/5), func(ctx context.Context, _ int) error {
		all, err := s.startMany(ctx, atOnce, providers...)
		for _, w := range all {
			w.close()
			frame.add(w.frame)
			shown.add(w.page)
		}
		if err != nil {
			return err
		}
		return s.endAll(ctx)
	}, frame, shown)
}

// waiting is a session that waits for its person, and the viewer of its screen.
type waiting struct {
	id          string
	frame, page time.Duration // from the POST
	conn        net.Conn
	screen      *screen
}

func (w *waiting) close() { _ = w.conn.Close() }

// start starts a session by the API and waits until its screen shows the tool's
// sign-in page. The caller closes the viewer; a session that did not get there
// is cancelled.
func (s *subject) start(ctx context.Context, provider idp.Provider) (*waiting, error) {
	began := time.Now()
	made, err := s.user.StartSession(ctx, string(provider))
	if err != nil {
		return nil, err
	}
	w := &waiting{id: string(made.ID)}
	if err := w.see(ctx, s, provider, began); err != nil {
		if w.conn != nil {
			w.close()
		}
		_ = s.end(ctx, w.id)
		return nil, fmt.Errorf("session %s of %s: %w", w.id, provider, err)
	}
	return w, nil
}

func (w *waiting) see(ctx context.Context, s *subject, provider idp.Provider, began time.Time) error {
	var now session.State
	err := s.user.Follow(ctx, w.id, func(e harness.Event) bool {
		if e.State != "" {
			now = e.State
		}
		return now == session.Waiting || now.Final()
	})
	if err != nil {
		return err
	}
	if now != session.Waiting {
		return fmt.Errorf("it is %s", now)
	}
	if w.conn, err = s.user.Viewer(ctx, w.id); err != nil {
		return err
	}
	if w.screen, err = watch(w.conn); err != nil {
		return err
	}
	if err := w.screen.until(w.screen.whole(), w.screen.painted); err != nil {
		return err
	}
	w.frame = time.Since(began)
	if err := w.screen.until(w.screen.middle(), func() bool { return w.screen.shows(provider) }); err != nil {
		return err
	}
	w.page = time.Since(began)
	return s.isAsMeant(ctx, w.id)
}

// isAsMeant fails unless the session's machine was restored, or started cold, as
// the subject has it: the server starts one cold, and goes on, when the snapshot
// cannot be used.
func (s *subject) isAsMeant(ctx context.Context, id string) error {
	now, err := s.user.Session(ctx, id)
	if err != nil {
		return err
	}
	all, err := s.user.Machines(ctx)
	if err != nil {
		return err
	}
	return errors.Join(asMeant(all, now.VMID, !s.cold), s.wasWarm(ctx))
}

func asMeant(all []harness.Machine, id string, restored bool) error {
	i := slices.IndexFunc(all, func(m harness.Machine) bool { return m.ID == id })
	switch {
	case i < 0:
		return fmt.Errorf("machine %q is not among those that run: whether it was restored cannot be said", id)
	case all[i].Restored && !restored:
		return fmt.Errorf("machine %s was restored, and was to be started cold", id)
	case !all[i].Restored && restored:
		return fmt.Errorf("machine %s was started cold, and was to be restored", id)
	}
	return nil
}

// startMany starts n sessions at once, of these tools in turn. With an error, it
// returns those that got there.
func (s *subject) startMany(ctx context.Context, n int, of ...idp.Provider) ([]*waiting, error) {
	var mu sync.Mutex
	var all []*waiting
	var failed error
	var starts sync.WaitGroup
	for i := range n {
		starts.Go(func() {
			w, err := s.start(ctx, of[i%len(of)])
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			all = append(all, w)
		})
	}
	starts.Wait()
	return all, failed
}

// end cancels a session and waits until nothing of its machine is left, so
// that the next run is alone.
func (s *subject) end(ctx context.Context, id string) error {
	if err := s.user.Call(ctx, http.MethodDelete, "/sessions/"+id, nil, nil); err != nil {
		return err
	}
	return s.rig.WaitNoBrowserMachines(ctx)
}

// endAll does so with all that are open.
func (s *subject) endAll(ctx context.Context) error {
	all, err := s.user.Sessions(ctx)
	if err != nil {
		return err
	}
	for _, one := range all {
		if one.State.Final() {
			continue
		}
		if err := s.user.Call(ctx, http.MethodDelete, "/sessions/"+string(one.ID), nil, nil); err != nil {
			return err
		}
	}
	return s.rig.WaitNoBrowserMachines(ctx)
}

// signIn opens the page as the subject's user.
func (b *bench) signIn(ctx context.Context, s *subject) (*person.Page, error) {
	link, err := s.user.Link(ctx)
	if err != nil {
		return nil, err
	}
	return b.browser.SignIn(ctx, link)
}
