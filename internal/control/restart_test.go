package control_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// readyTime is how long the service says that it waits to be ready.
const readyTime = 30 * time.Second

// TestRestart: in whatever state the server stops, the next one goes on with
// the same session, and from waiting on with the same machine.
func TestRestart(t *testing.T) {
	for _, state := range working {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				g := w.hold(state)
				s := w.serve()
				id := w.start(s, "claude")
				before := w.reach(id, state)
				s.stop()
				if now := w.session(id); now.State != state || now.LeaseOwner != "" {
					t.Fatalf("stopping has left it %s, held by %q", now.State, now.LeaseOwner)
				}
				if n := len(w.host.Machines(machine.Browser)); state != session.Starting && n != 1 {
					t.Fatalf("stopping has left %d browser machines", n)
				}
				w.serve()
				if state != session.Starting {
					w.reach(id, state)
				}
				close(g.open)
				done := w.reach(id, session.Completed)
				if state != session.Starting && (done.VMID != before.VMID || done.Attempt != before.Attempt) {
					t.Errorf("it had machine %s in attempt %d, then %s in attempt %d", before.VMID, before.Attempt, done.VMID, done.Attempt)
				}
				w.quiet()
				if c := w.active("claude"); c.Version != 1 || c.DeliveredTo != w.cli().ID() {
					t.Errorf("version %d, delivered to %q", c.Version, c.DeliveredTo)
				}
				opened := 0
				for _, e := range w.events() {
					if e.Kind == session.EventProgress && e.Message != "" && e.State == session.Waiting {
						opened++
					}
				}
				if opened > 1 {
					t.Errorf("the page was said to be open %d times", opened)
				}
			})
		})
	}
}

// TestRestartedInEveryAttempt: the attempts are counted over restarts.
func TestRestartedInEveryAttempt(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Starting)
		s := w.serve()
		id := w.start(s, "claude")
		for attempt := 1; attempt <= 3; attempt++ {
			w.reach(id, session.Starting)
			if now := w.session(id); now.Attempt != attempt {
				t.Fatalf("attempt %d, want %d", now.Attempt, attempt)
			}
			s.stop()
			s = w.serve()
		}
		now := w.reach(id, session.Failed)
		if now.Reason != session.ReasonMachineStart {
			t.Errorf("reason %q", now.Reason)
		}
		again(t, w, s)
	})
}

// TestMachineGoneOverRestart: what died while no server ran is noticed.
func TestMachineGoneOverRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		id := w.start(s, "claude")
		w.reach(id, session.Waiting)
		s.stop()
		w.host.Machines(machine.Browser)[0].Kill()
		s = w.serve()
		now := w.reach(id, session.Failed)
		if now.Reason != session.ReasonMachineLost {
			t.Errorf("reason %q", now.Reason)
		}
		again(t, w, s)
	})
}

func TestLeftoversAreReclaimed(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		driver := fake.NewDriver(w.host)
		rowed := func(id string, vm store.VM) {
			t.Helper()
			created, err := driver.Create(t.Context(), machine.Spec{ID: id, Kind: machine.Kind(vm.Kind)})
			if err != nil {
				t.Fatal(err)
			}
			vm.ID, vm.UserID, vm.Driver, vm.Ref = id, w.user, "fake", created.Ref
			if err := w.db.InsertVM(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := driver.Create(t.Context(), machine.Spec{ID: "norowatall", Kind: machine.Browser}); err != nil {
			t.Fatal(err)
		}
		rowed("halfmade1", store.VM{Kind: "browser", State: store.VMCreating})
		rowed("nosession", store.VM{Kind: "browser", State: store.VMRunning})
		rowed("halfgone1", store.VM{Kind: "browser", State: store.VMDestroying})
		rowed("halfcli01", store.VM{Kind: "cli", State: store.VMCreating})
		if err := w.db.InsertVM(t.Context(), store.VM{ID: "nomachine", UserID: w.user, Kind: "browser", Driver: "fake", State: store.VMRunning}); err != nil {
			t.Fatal(err)
		}
		w.serve()
		w.quiet()
		if left, err := driver.List(t.Context()); err != nil || len(left) > 0 {
			t.Errorf("left on the host: %q, %v", left, err)
		}
		if live, err := w.db.LiveVMs(t.Context()); err != nil || len(live) > 0 {
			t.Errorf("left in the rows: %+v, %v", live, err)
		}
	})
}

// TestCLIMachineOverRestart: a cli machine runs on, or is made again at need.
func TestCLIMachineOverRestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		s := w.serve()
		w.reach(w.start(s, "claude"), session.Completed)
		w.quiet()
		first := w.cli().ID()
		s.stop()
		s = w.serve()
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil || vm.ID != first || w.cli().Deliveries() != 1 {
			t.Errorf("after a restart: machine %s, want %s; %d deliveries; %v", vm.ID, first, w.cli().Deliveries(), err)
		}
		s.stop()
		w.cli().Kill()
		s = w.serve()
		w.eventually("the dead machine is cleared away", func() bool { return len(w.host.Machines(machine.CLI)) == 0 })
		vm, err = s.EnsureMachine(t.Context(), w.user)
		if err != nil || vm.ID == first {
			t.Fatalf("after it died: machine %s, %v", vm.ID, err)
		}
		if d, ok := w.cli().Delivered("claude"); !ok || d.Version != 1 {
			t.Errorf("the new machine has %+v", d)
		}
		if old, err := w.db.VM(t.Context(), first); err != nil || old.State != store.VMFailed {
			t.Errorf("the row of the old one: %+v, %v", old, err)
		}
	})
}

// TestLease: a session that another server works on is left alone until that
// one has not been heard of for the lease's time.
func TestLease(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		idle, err := control.New(w.config())
		if err != nil {
			t.Fatal(err)
		}
		id := w.start(&service{Service: idle}, "claude")
		if _, err := w.db.Claim(t.Context(), id, "another", time.Minute); err != nil {
			t.Fatal(err)
		}
		w.serve()
		for range 4 {
			<-time.After(15 * time.Second)
			if err := w.db.Heartbeat(t.Context(), id, "another"); err != nil {
				t.Fatal(err)
			}
			if now := w.session(id); now.State != session.Requested || now.LeaseOwner != "another" {
				t.Fatalf("it is %s, held by %q", now.State, now.LeaseOwner)
			}
		}
		began := time.Now()
		w.reach(id, session.Completed)
		if took := time.Since(began); took < 20*time.Second || took > 40*time.Second {
			t.Errorf("it was taken over and completed after %s", took)
		}
	})
}

// TestLeaseLost: a server whose session was taken by another lets go of it.
func TestLeaseLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Waiting)
		s := w.serve()
		id := w.start(s, "claude")
		now := w.reach(id, session.Waiting)
		if err := w.db.Release(t.Context(), id, "local"); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Claim(t.Context(), id, "another", time.Minute); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second) // its next heartbeat tells it
		close(g.open)
		synctest.Wait()
		after := w.session(id)
		if after.State != session.Waiting || after.LeaseOwner != "another" {
			t.Errorf("it is %s, held by %q", after.State, after.LeaseOwner)
		}
		select {
		case <-w.host.Machine(now.VMID).Dead():
			t.Error("the machine was destroyed under the other server")
		default:
		}
	})
}

// held is a database that gives the list of machines as it was before it was
// held up.
type held struct {
	*sqlite.DB
	open chan struct{}
}

func (h *held) LiveVMs(ctx context.Context) ([]store.VM, error) {
	out, err := h.DB.LiveVMs(ctx)
	select {
	case <-h.open:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return out, err
}

// TestNothingStartsBeforeTakingOver: what is asked for while the service still
// takes over waits for that, and is not cleared away by it.
func TestNothingStartsBeforeTakingOver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		db := &held{w.db, make(chan struct{})}
		s := w.serve(func(c *control.Config) { c.Database = db })
		asked := make(chan store.VM)
		go func() {
			vm, err := s.EnsureMachine(t.Context(), w.user)
			if err != nil {
				t.Error(err)
			}
			asked <- vm
		}()
		id := w.start(s, "claude")
		<-time.After(readyTime / 2)
		if now := w.session(id); now.State != session.Requested || w.host.Started() != 0 {
			t.Errorf("the session is %s, %d machines were started", now.State, w.host.Started())
		}
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.EnsureMachine(impatient, w.user); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a machine for somebody who does not wait: %v", err)
		}
		close(db.open)
		vm := <-asked
		w.reach(id, session.Completed)
		w.quiet()
		if w.cli().ID() != vm.ID || w.host.Started() != 2 {
			t.Errorf("machine %s runs, %s was given; %d were started", w.cli().ID(), vm.ID, w.host.Started())
		}
	})
}

// TestStoppedWhileTakingOver: that is an end like any other.
func TestStoppedWhileTakingOver(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		s := w.serve(func(c *control.Config) { c.Database = &held{w.db, make(chan struct{})} })
		id := w.start(s, "claude")
		s.stop() // fails the test if Run returns an error
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		w.serve()
		w.reach(id, session.Completed)
	})
}

// TestNeverReady: nobody waits for ever for a service that does not come to
// take over.
func TestNeverReady(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		idle, err := control.New(w.config())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := idle.EnsureMachine(t.Context(), w.user); !errors.Is(err, session.ErrNotReady) {
			t.Errorf("a machine of a service that does not run: %v", err)
		}
		if took := time.Since(began); took != readyTime {
			t.Errorf("it was told after %s", took)
		}
	})
}

// TestNotRunning: before Run and after it no machine is attached to, since
// nobody would let go of it.
func TestNotRunning(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve()
		first, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil {
			t.Fatal(err)
		}
		s.stop()
		if _, err := s.EnsureMachine(t.Context(), w.user); !errors.Is(err, session.ErrNotReady) {
			t.Errorf("a machine of a service that has stopped: %v", err)
		}
		if w.cli().ID() != first.ID {
			t.Error("it has replaced the machine")
		}
		if _, err := s.OpenTerminal(t.Context(), w.user, first.ID, "no ticket", 80, 24); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a terminal without a ticket: %v", err)
		}
		next := w.serve()
		if vm, err := next.EnsureMachine(t.Context(), w.user); err != nil || vm.ID != first.ID {
			t.Errorf("the next service: %s, %v", vm.ID, err)
		}
	})
}
