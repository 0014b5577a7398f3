package control_test

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// room has a service run so many machines, and as many sign-ins wait.
func room(machines, waiting int) func(*control.Config) {
	return func(c *control.Config) { c.MaxMachines, c.MaxWaiting = machines, waiting }
}

// positions checks where sessions stand in the queue, by what their person is
// told: 0 for one that does not wait.
func (w *world) positions(s *service, ids []session.ID, want ...int) {
	w.t.Helper()
	var got []int
	for _, id := range ids {
		now, err := s.Session(w.t.Context(), w.user, id)
		if err != nil {
			w.t.Fatal(err)
		}
		got = append(got, now.Position)
	}
	for i := range want {
		if got[i] != want[i] {
			w.t.Fatalf("positions are %v, want %v", got, want)
		}
	}
}

// told are the sentences about its place in the queue that a session's person
// was told.
func (w *world) told(id session.ID) string {
	w.t.Helper()
	var out []string
	for _, e := range w.events() {
		if e.SessionID != id || e.Kind != session.EventProgress {
			continue
		}
		if said, _, ok := strings.Cut(e.Message, " before you"); ok {
			out = append(out, said)
		} else if strings.HasPrefix(e.Message, "You are next") {
			out = append(out, "next")
		}
	}
	return strings.Join(out, ", ")
}

// TestQueue: who comes first starts first, and is told meanwhile how many are
// before them; who leaves is in nobody's way; a restart changes nothing of it.
func TestQueue(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve(room(1, 10))
		var ids []session.ID
		for range 5 {
			ids = append(ids, w.start(s, "claude"))
		}
		w.reach(ids[0], session.Waiting)
		<-time.After(10 * time.Second)
		w.positions(s, ids, 0, 1, 2, 3, 4)
		if n := w.host.Started(); n != 1 {
			t.Errorf("%d machines were started", n)
		}
		all, err := s.Sessions(t.Context(), w.user, 10, "")
		if err != nil || len(all) != 5 || all[0].Position != 4 || all[4].Position != 0 {
			t.Errorf("the list: %+v, %v", all, err)
		}

		cancel := func(i int) {
			t.Helper()
			if _, err := s.Cancel(t.Context(), w.user, ids[i]); err != nil {
				t.Fatal(err)
			}
		}
		cancel(2)
		w.eventually("it is told to who was behind", func() bool { return w.told(ids[4]) == "3 people are, 2 people are" })
		w.positions(s, ids, 0, 1, 0, 2, 3)

		s.stop()
		s = w.serve(room(1, 10))
		<-time.After(10 * time.Second)
		w.positions(s, ids, 0, 1, 0, 2, 3)
		if now := w.session(ids[0]); now.State != session.Waiting {
			t.Errorf("the first is %s", now.State)
		}
		for _, turn := range []struct{ ends, starts int }{{0, 1}, {1, 3}, {3, 4}} {
			cancel(turn.ends)
			began := time.Now()
			w.reach(ids[turn.starts], session.Waiting)
			if took := time.Since(began); took > time.Second {
				t.Errorf("session %d began %s after its place was free", turn.starts, took)
			}
		}
		w.positions(s, ids, 0, 0, 0, 0, 0)
		if got := w.told(ids[4]); got != "3 people are, 2 people are, 2 people are, 1 person is, next" {
			t.Errorf("the last was told %q", got)
		}
		if got := w.told(ids[0]); got != "" {
			t.Errorf("the first, who never waited, was told %q", got)
		}
		cancel(4)
		w.quiet()
	})
}

// TestQueueIsFull: one more than may wait is refused; one that was made before
// is not.
func TestQueueIsFull(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve(room(1, 2))
		ask := func(key string) (session.Session, error) {
			out, _, err := s.StartSession(t.Context(), w.user, "claude", key, guestapi.View{})
			return out, err
		}
		first, err := ask("first")
		if err != nil {
			t.Fatal(err)
		}
		w.reach(first.ID, session.Waiting)
		for _, key := range []string{"second", "third"} {
			if _, err := ask(key); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ask("fourth"); !errors.Is(err, store.ErrQueueFull) {
			t.Errorf("one too many: %v", err)
		}
		if again, err := ask("third"); err != nil || again.Position != 2 {
			t.Errorf("asked again: %+v, %v", again, err)
		}
		if _, err := s.Cancel(t.Context(), w.user, first.ID); err != nil {
			t.Fatal(err)
		}
		w.eventually("there is room again", func() bool {
			_, err := ask("fourth")
			return err == nil
		})
	})
}

// TestNobodyMayWait: without a queue, who cannot start now is refused, and who
// can is not.
func TestNobodyMayWait(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve(room(2, 0))
		w.reach(w.start(s, "claude"), session.Waiting)
		w.reach(w.start(s, "claude"), session.Waiting)
		if _, _, err := s.StartSession(t.Context(), w.user, "claude", "", guestapi.View{}); !errors.Is(err, store.ErrQueueFull) {
			t.Errorf("the third: %v", err)
		}
	})
}

// TestExpiresInTheQueue: a session's time runs while it waits, and begins anew
// when it starts.
func TestExpiresInTheQueue(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Starting)
		s := w.serve(room(1, 5), func(c *control.Config) { c.SessionTime = 10 * time.Minute })
		first := w.start(s, "claude")
		<-time.After(6 * time.Minute)
		second := w.start(s, "claude")
		<-time.After(3 * time.Minute)
		third := w.start(s, "claude")
		if now := w.reach(first, session.Expired); now.Detail != "" {
			t.Errorf("the first, which had started: %q", now.Detail)
		}
		w.reach(second, session.Starting) // four minutes after it was asked for
		if left := time.Until(w.session(second).Deadline); left < 9*time.Minute {
			t.Errorf("the second has %s left", left)
		}
		now := w.reach(third, session.Expired)
		if now.Reason != session.ReasonExpired || !strings.Contains(now.Detail, "place") {
			t.Errorf("the third: %s, %q", now.Reason, now.Detail)
		}
		w.reach(second, session.Expired)
		w.quiet()
	})
}

// TestQueueForMemory: sign-ins wait for memory that others have, and start once
// it is free; where nobody has any, the driver decides.
func TestQueueForMemory(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		var left atomic.Int64
		s := w.serve(room(0, 10), func(c *control.Config) { c.Memory = func() int { return int(left.Load()) } })
		first := w.start(s, "claude")
		w.reach(first, session.Waiting) // nobody to wait for
		second, third := w.start(s, "claude"), w.start(s, "claude")
		<-time.After(time.Minute)
		w.positions(s, []session.ID{first, second, third}, 0, 1, 2)
		if now, err := s.Capacity(t.Context()); err != nil || now.Free != 0 || now.Waiting != 2 {
			t.Errorf("%+v, %v", now, err)
		}
		left.Store(1)
		w.reach(second, session.Waiting)
		left.Store(0)
		<-time.After(time.Minute)
		w.positions(s, []session.ID{third}, 1)
		left.Store(5)
		w.reach(third, session.Waiting)
		if now, err := s.Capacity(t.Context()); err != nil || now.Free != 5 || now.Waiting != 0 {
			t.Errorf("%+v, %v", now, err)
		}
	})
}

// TestPoolCountsAsFree: machines that are ready take nobody's place, and never
// more than the people leave.
func TestPoolCountsAsFree(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve(room(3, 0), warm(2))
		w.ready(s, 2)
		free := func(want int) {
			t.Helper()
			if now, err := s.Capacity(t.Context()); err != nil || now.Free != want {
				t.Errorf("%+v, %v; want %d free", now, err, want)
			}
		}
		free(3)
		var ids []session.ID
		for i := range 3 {
			ids = append(ids, w.start(s, "claude"))
			w.reach(ids[i], session.Waiting)
			<-time.After(time.Minute)
			free(2 - i)
			if n := len(w.nobodys()); n != min(2, 2-i) {
				t.Errorf("%d sign-ins and %d machines that are nobody's", i+1, n)
			}
		}
		if _, err := s.Cancel(t.Context(), w.user, ids[0]); err != nil {
			t.Fatal(err)
		}
		w.ready(s, 1)
		free(1)
	})
}
