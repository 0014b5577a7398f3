package control_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/ways"
)

// scriptedWays is a way out that opens as a test says.
type scriptedWays struct {
	mu       sync.Mutex
	machines map[string]int
	open     func() error // nil: it opens
	asked    []string     // providers
}

func (w *scriptedWays) Use(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machines[userID]++
}

func (w *scriptedWays) Done(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.machines[userID]--
}

func (w *scriptedWays) Open(_ context.Context, _ string, need *provider.File) (ways.Way, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, need.Name)
	if w.open != nil {
		if err := w.open(); err != nil {
			return ways.Way{}, err
		}
	}
	return ways.Way{ExitAddress: exitAddress}, nil
}

func (w *scriptedWays) set(open func() error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open = open
}

func (w *world) serveWith(out *scriptedWays) *service {
	out.machines = map[string]int{}
	return w.serve(func(c *control.Config) { c.Ways = out })
}

// said are the sentences of a session's progress.
func (w *world) said(id session.ID) []string {
	var out []string
	for _, e := range w.events() {
		if e.SessionID == id && e.Kind == session.EventProgress {
			out = append(out, e.Message)
		}
	}
	return out
}

func TestSessionLeavesFromItsAddress(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		out := &scriptedWays{}
		s := w.serveWith(out)
		now := w.reach(w.start(s, "claude"), session.Completed)
		if now.ExitAddress != exitAddress || !slices.Contains(out.asked, "claude") {
			t.Errorf("address %q, asked for %q", now.ExitAddress, out.asked)
		}
		w.quiet()
		s.stop()
		out.mu.Lock()
		defer out.mu.Unlock()
		for user, n := range out.machines {
			if n != 0 {
				t.Errorf("%s uses the way %d times when all has ended", user, n)
			}
		}
	})
}

// TestNoWayOut: a session whose way is shut for good fails with why, and its
// machine is gone.
func TestNoWayOut(t *testing.T) {
	for code, want := range map[ways.Code]session.Reason{
		ways.NoPort: session.ReasonNoPort, ways.Blocked: session.ReasonBlocked, ways.Changed: session.ReasonExitChanged,
		ways.Quarantined: session.ReasonPortShut, ways.Unconfigured: session.ReasonPortShut,
	} {
		t.Run(string(code), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
				out := &scriptedWays{open: func() error { return &ways.Error{Code: code, Name: "claude.com", Err: errors.New("why")} }}
				s := w.serveWith(out)
				now := w.reach(w.start(s, "claude"), session.Failed)
				if now.Reason != want || code == ways.Blocked && now.Detail != "Refused was claude.com." {
					t.Errorf("reason %q, detail %q", now.Reason, now.Detail)
				}
				w.quiet()
				out.set(nil)
				again(t, w, s)
			})
		})
	}
}

// TestWayComesBack: a way that may still be mended is waited for, and that is
// said once.
func TestWayComesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		out := &scriptedWays{open: func() error { return &ways.Error{Code: ways.Failed} }}
		s := w.serveWith(out)
		id := w.start(s, "claude")
		<-time.After(30 * time.Second)
		if now := w.session(id); now.State != session.Starting || len(w.said(id)) != 2 { // and the attempt
			t.Errorf("it is %s, was told %q", now.State, w.said(id))
		}
		out.set(nil)
		w.reach(id, session.Completed)
		out.set(func() error { return &ways.Error{Code: ways.Unverified} })
		if now := w.reach(w.start(s, "claude"), session.Failed); now.Reason != session.ReasonUpstream {
			t.Errorf("in the end: %q", now.Reason)
		}
		w.quiet()
	})
}

// TestWayLost: a way that is shut while a person signs in.
func TestWayLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		out := &scriptedWays{}
		s := w.serveWith(out)
		id := w.start(s, "claude")
		w.reach(id, session.Waiting)
		s.WayLost("somebody else", &ways.Error{Code: ways.Changed})
		s.WayLost(w.user, &ways.Error{Code: ways.Unverified})
		s.WayNews(w.user, "It works again.")
		w.eventually("both are told", func() bool { return len(w.said(id)) == 3 })
		if now := w.session(id); now.State != session.Waiting {
			t.Fatalf("it is %s", now.State)
		}
		s.WayLost(w.user, &ways.Error{Code: ways.Changed, Err: errors.New("Its exit address was 203.0.113.1 and is 203.0.113.2.")})
		now := w.reach(id, session.Failed)
		if now.Reason != session.ReasonExitChanged || now.Detail == "" {
			t.Errorf("reason %q, detail %q", now.Reason, now.Detail)
		}
		w.quiet()
	})
}

// TestWayAfterRestart: the session of an earlier server has its way opened
// again, and fails if there is none any more.
func TestWayAfterRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		first := w.serveWith(&scriptedWays{})
		id := w.start(first, "claude")
		w.reach(id, session.Waiting)
		first.stop()
		out := &scriptedWays{}
		second := w.serveWith(out)
		w.eventually("the way is opened", func() bool {
			out.mu.Lock()
			defer out.mu.Unlock()
			return len(out.asked) > 0 && out.machines[w.user] > 0
		})
		second.stop()
		w.serveWith(&scriptedWays{open: func() error { return &ways.Error{Code: ways.Quarantined} }})
		if now := w.reach(id, session.Failed); now.Reason != session.ReasonPortShut {
			t.Errorf("reason %q", now.Reason)
		}
		w.quiet()
	})
}

// TestCLIMachineUsesTheWay: for as long as it runs.
func TestCLIMachineUsesTheWay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{}, fake.Script{})
		out := &scriptedWays{}
		s := w.serveWith(out)
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil {
			t.Fatal(err)
		}
		uses := func(n int) func() bool {
			return func() bool {
				out.mu.Lock()
				defer out.mu.Unlock()
				return out.machines[w.user] == n
			}
		}
		w.eventually("it is used", uses(1))
		if err := s.DestroyMachine(t.Context(), w.user, vm.ID); err != nil {
			t.Fatal(err)
		}
		w.eventually("it is not used any more", uses(0))
		if n := len(w.host.Machines(machine.CLI)); n != 0 {
			t.Errorf("%d machines are left", n)
		}
	})
}
