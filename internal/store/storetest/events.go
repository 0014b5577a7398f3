package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func testEvents(f *fixture) {
	u, other := f.user("u"), f.user("other")
	f.equal("latest of nothing", must(f.LatestSeq(f.ctx, u.ID))(f), 0)
	s := f.session(u, session.Requested)
	theirs := f.session(other, session.Requested)
	e := must(f.AddEvent(f.ctx, session.Event{SessionID: s.ID, UserID: u.ID, Kind: session.EventLog, Message: "a line"}))(f)
	f.equal("at", e.At, f.now())
	m := must(f.AddEvent(f.ctx, session.Event{UserID: u.ID, Kind: session.EventMachineCreated, Message: "a machine"}))(f)
	if m.Seq <= e.Seq {
		f.Fatalf("numbers do not grow: %d, %d", e.Seq, m.Seq)
	}
	f.equal("latest", must(f.LatestSeq(f.ctx, u.ID))(f), m.Seq)
	all := must(f.EventsAfter(f.ctx, u.ID, "", 0, 0))(f)
	f.equal("all", len(all), 3)
	f.equal("the last two", all[1:], []session.Event{e, m})
	f.equal("one by one", must(f.EventsAfter(f.ctx, u.ID, "", all[0].Seq, 1))(f), []session.Event{e})
	f.equal("of the session", must(f.EventsAfter(f.ctx, u.ID, s.ID, all[0].Seq, 0))(f), []session.Event{e})
	f.equal("after the last", len(must(f.EventsAfter(f.ctx, u.ID, "", m.Seq, 0))(f)), 0)
	f.equal("another's session", len(must(f.EventsAfter(f.ctx, u.ID, theirs.ID, 0, 0))(f)), 0)
	for _, bad := range []session.Event{
		{UserID: u.ID, Kind: "other", Message: "x"},
		{UserID: u.ID, Kind: session.EventState, Message: "x"},
		{UserID: u.ID, SessionID: s.ID, Kind: session.EventState, State: "other", Message: "x"},
		{UserID: u.ID, Kind: session.EventLog, Reason: "Not A Code"},
	} {
		_, err := f.AddEvent(f.ctx, bad)
		f.is(err, store.ErrInvalid)
	}
	_, err := f.AddEvent(f.ctx, session.Event{UserID: "nobody", Kind: session.EventLog})
	f.is(err, store.ErrNotFound)
}

// testEventRace: a reader that asks for what is after the last number it has
// seen, while others write, misses nothing.
func testEventRace(f *fixture) {
	u := f.user("u")
	const writers, each = 4, 10
	done := make(chan struct{})
	seen := map[string]bool{}
	var reader sync.WaitGroup
	reader.Go(func() {
		var last int64
		for ended := false; ; {
			events, err := f.EventsAfter(f.ctx, u.ID, "", last, 3)
			if err != nil {
				f.Errorf("read events: %v", err)
				return
			}
			for _, e := range events {
				seen[e.Message], last = true, e.Seq
			}
			if len(events) > 0 {
				continue
			}
			if ended {
				return
			}
			select {
			case <-done:
				ended = true
			default:
			}
		}
	})
	errs := f.race(writers, func(i int, s Store) error {
		for j := range each {
			if _, err := s.AddEvent(f.ctx, session.Event{UserID: u.ID, Kind: session.EventProgress, Message: fmt.Sprint(i, ".", j)}); err != nil {
				return err
			}
		}
		return nil
	})
	close(done)
	reader.Wait()
	for _, err := range errs {
		f.ok(err)
	}
	f.equal("seen", len(seen), writers*each)
}

func testText(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Requested)
	e := must(f.AddEvent(f.ctx, session.Event{UserID: u.ID, Kind: session.EventLog, Message: "a\x00b\xffc" + strings.Repeat("é", 1<<20)}))(f)
	if len(e.Message) > store.MaxMessage || !utf8.ValidString(e.Message) || !strings.HasPrefix(e.Message, "ab\uFFFDcé") {
		f.Fatalf("message of %d bytes: %.40q", len(e.Message), e.Message)
	}
	f.equal("stored", must(f.EventsAfter(f.ctx, u.ID, "", e.Seq-1, 0))(f), []session.Event{e})
	moved := must(f.Move(f.ctx, s.ID, session.Requested, session.Failed, "", store.Change{Detail: ptr(strings.Repeat("x", 5000))}, ""))(f)
	f.equal("detail", len(moved.Detail), store.MaxDetail)
}

func testTimes(f *fixture) {
	u := f.user("u")
	local := time.FixedZone("far", 11*3600)
	deadline := time.Date(2026, 3, 2, 1, 2, 3, 999999999, local)
	s, _, err := f.CreateSession(f.ctx, session.Session{UserID: u.ID, Provider: "claude", Deadline: deadline}, "")
	f.ok(err)
	f.equal("deadline", s.Deadline, deadline.UTC().Truncate(time.Millisecond))
	t := must(f.CreateToken(f.ctx, store.Token{UserID: u.ID, Kind: store.TokenAPI, ExpiresAt: deadline}, hash("t")))(f)
	f.equal("token", must(f.Tokens(f.ctx, u.ID))(f), []store.Token{t})
}

func testCancelledContext(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Waiting)
	ctx, cancel := context.WithCancel(f.ctx)
	cancel()
	_, err := f.Move(ctx, s.ID, session.Waiting, session.Capturing, "", store.Change{}, "")
	f.is(err, context.Canceled)
	_, err = f.Session(ctx, s.ID)
	f.is(err, context.Canceled)
	f.equal("unchanged", must(f.Session(f.ctx, s.ID))(f), s)
}

func testReopen(f *fixture) {
	u := f.user("u")
	s := f.session(u, session.Delivering)
	f.ok(f.Close())
	again := f.second()
	got, err := again.Session(f.ctx, s.ID)
	f.ok(err)
	f.equal("session", got, s)
	c, err := again.ActiveCredential(f.ctx, u.ID, "claude")
	f.ok(err)
	f.equal("credential", c.ID, s.CredentialID)
	_, err = again.VerifyAudit(f.ctx)
	f.ok(err)
}
