package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

// storedSessions is how many the database holds when a start is measured.
const storedSessions = 1000

// askEvery is the pause between two tries to be answered.
const askEvery = 2 * time.Millisecond

// serverStart measures from the start of the program until the first request
// is answered: a page of the stored sessions. After each start they must be there
// as they were stored.
func (b *bench) serverStart(ctx context.Context, s *subject) error {
	if err := s.rig.Stop(ctx); err != nil { // or it would work on them while they are written
		return err
	}
	stored, err := s.fill(ctx)
	if err = errors.Join(err, s.rig.Restart(ctx)); err != nil {
		return err
	}
	m := b.report.measure(fmt.Sprintf("server: start with %d stored sessions, to the first answer", storedSessions), targetStart)
	return b.repeat(ctx, s, "starts of the server", b.runs, func(ctx context.Context, _ int) error {
		if err := s.rig.Stop(ctx); err != nil {
			return err
		}
		began := time.Now()
		answered, stop := s.answered(ctx)
		defer stop()
		if err := s.rig.Restart(ctx); err != nil {
			return err
		}
		at, ok := <-answered
		if !ok {
			return ctx.Err()
		}
		if err := s.untouched(ctx, stored); err != nil {
			return err
		}
		m.add(at.Sub(began))
		return nil
	}, m)
}

// answered tells when the server first answers; the channel is closed after
// that. stop ends the asking and returns when it has ended.
func (s *subject) answered(ctx context.Context) (at <-chan time.Time, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	first := make(chan time.Time, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(first)
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			if _, err := s.user.Sessions(ctx); err == nil {
				first <- time.Now()
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return first, func() { cancel(); <-done }
}

// fill stores sessions that have ended without success in all the ways there
// are, each with its events, and returns the states that they are in. The server
// must not be running.
func (s *subject) fill(ctx context.Context) (map[session.ID]session.State, error) {
	db := s.rig.DB()
	user, err := db.UserByName(ctx, s.user.Name)
	if err != nil {
		return nil, err
	}
	stored := map[session.ID]session.State{}
	ends := []session.State{session.Cancelled, session.Failed, session.Expired}
	for i := range storedSessions {
		one := session.Session{UserID: user.ID, Provider: string(providers[i%len(providers)]), State: session.Requested, ID: session.NewID(), Deadline: time.Now().Add(time.Hour)}
		one.ViewerURL = "/sessions/" + string(one.ID)
		made, _, err := db.CreateSession(ctx, one, "")
		if err != nil {
			return nil, err
		}
		to, reason := ends[i%len(ends)], session.ReasonCancelled
		_, err = db.Move(ctx, made.ID, session.Requested, to, "", store.Change{Reason: &reason}, reason.Sentence())
		if err != nil {
			return nil, err
		}
		stored[made.ID] = to
	}
	return stored, nil
}

// untouched fails unless exactly these sessions are as they were stored.
func (s *subject) untouched(ctx context.Context, stored map[session.ID]session.State) error {
	if len(stored) != storedSessions {
		return fmt.Errorf("%d sessions were stored, not %d", len(stored), storedSessions)
	}
	for id, want := range stored {
		now, err := s.rig.DB().Session(ctx, id)
		if err != nil {
			return err
		}
		if now.State != want || now.VMID != "" || now.Attempt != 0 {
			return fmt.Errorf("session %s was stored as %s, and is %s (attempt %d)", id, want, now.State, now.Attempt)
		}
	}
	return nil
}

// kill measures from kill -9 of the server until a person who is waiting sees
// their screen again.
func (b *bench) kill(ctx context.Context, s *subject) error {
	page, err := b.signIn(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = page.Close() }()
	answer := b.report.measure("kill -9 and restart, to the first answer", 0)
	frame := b.report.measure("page: kill -9 and restart, to the screen again", targetKill)
	return b.repeat(ctx, s, "kills of the server", max(1, b.runs/2), func(ctx context.Context, _ int) error {
		id, machine, err := s.waitAtPage(ctx, page)
		if err != nil {
			return err
		}
		first, again, err := s.killOnce(ctx, page)
		if err != nil {
			return err
		}
		now, err := s.user.Session(ctx, id)
		if err == nil && (now.State != session.Waiting || now.VMID != machine) {
			err = fmt.Errorf("the session is %s on machine %s, and was on %s", now.State, now.VMID, machine)
		}
		if err != nil {
			return err
		}
		answer.add(first)
		frame.add(again)
		return s.end(ctx, id)
	}, answer, frame)
}

// waitAtPage brings a person to the tool's sign-in page.
func (s *subject) waitAtPage(ctx context.Context, page *person.Page) (id, machine string, err error) {
	if err := page.Home(ctx); err != nil {
		return "", "", err
	}
	if id, err = page.Connect(ctx, string(idp.Claude)); err != nil {
		return "", "", err
	}
	if err := page.WaitSignInPage(ctx, idp.Claude); err != nil {
		return "", "", err
	}
	now, err := s.user.Session(ctx, id)
	return id, now.VMID, err
}

// killOnce kills and restarts the server while a person watches.
func (s *subject) killOnce(ctx context.Context, page *person.Page) (first, again time.Duration, err error) {
	type sight struct {
		at  time.Time
		err error
	}
	seen := make(chan sight, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		err := page.WaitViewerLost(ctx)
		if err == nil {
			err = page.WaitSignInPage(ctx, idp.Claude)
		}
		seen <- sight{time.Now(), err}
	}()
	began := time.Now()
	answered, stop := (<-chan time.Time)(nil), func() {}
	err = s.rig.Kill()
	if err == nil {
		answered, stop = s.answered(ctx)
		err = s.rig.Restart(ctx)
	}
	if err != nil {
		cancel()
	}
	got := <-seen
	stop()
	if err = errors.Join(err, got.err); err != nil {
		return 0, 0, err
	}
	return (<-answered).Sub(began), got.at.Sub(began), nil
}
