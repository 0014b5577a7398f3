package control_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// takes counts what became of asking the pool.
type takes struct {
	control.Observer

	mu sync.Mutex
	n  map[string]int
}

func (*takes) SessionEnded(string, session.State, session.Reason, time.Duration) {}
func (*takes) MachineStarted(machine.Kind, bool, time.Duration, error)           {}
func (*takes) StepTook(session.State, time.Duration)                             {}

func (o *takes) SpareTaken(result string, _ time.Duration) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n == nil {
		o.n = map[string]int{}
	}
	o.n[result]++
}

func (o *takes) are(t *testing.T, hit, miss, failed int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n[control.TakeHit] != hit || o.n[control.TakeMiss] != miss || o.n[control.TakeFailed] != failed {
		t.Errorf("takes: %v, want %d, %d, %d", o.n, hit, miss, failed)
	}
}

// warm has a service keep n machines ready.
func warm(n int) func(*control.Config) { return func(c *control.Config) { c.WarmMachines = n } }

// ready waits until the pool has n machines and makes no more, and returns
// their rows.
func (w *world) ready(s *service, n int) []store.VM {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d machines are ready", n), func() bool {
		now, err := s.Capacity(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		return now.Ready == n && now.Making == 0
	})
	return w.nobodys()
}

// nobodys are the rows of machines that exist and have no owner.
func (w *world) nobodys() []store.VM {
	w.t.Helper()
	live, err := w.db.LiveVMs(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	var out []store.VM
	for _, vm := range live {
		if vm.UserID == "" {
			out = append(out, vm)
		}
	}
	return out
}

// TestPool: sessions get machines that were ready, each another one, with
// everything that makes it their person's; the pool is filled again.
func TestPool(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Waiting)
		seen := new(takes)
		s := w.serve(warm(2), func(c *control.Config) { c.Observe = seen })
		rows := w.ready(s, 2)
		spares := map[string]bool{}
		for _, vm := range rows {
			spares[vm.ID] = true
			if vm.State != store.VMRunning || vm.SessionID != "" || vm.ImageID != "image" || vm.Driver != "fake" || !vm.Restored || vm.ReadyAt.IsZero() {
				t.Errorf("%+v", vm)
			}
			if w.host.Machine(vm.ID).Configured() != nil {
				t.Errorf("machine %s has been told whose it is", vm.ID)
			}
		}
		if events := w.events(); len(events) > 0 {
			t.Errorf("somebody has been told of machines that are nobody's: %+v", events)
		}
		began := time.Now()
		a, _, err := s.StartSession(t.Context(), w.user, "claude", "", guestapi.View{TimeZone: "Asia/Tokyo", Width: 400, Height: 700})
		if err != nil {
			t.Fatal(err)
		}
		b := w.start(s, "claude")
		first, second := w.reach(a.ID, session.Waiting), w.reach(b, session.Waiting)
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
		if !spares[first.VMID] || !spares[second.VMID] || first.VMID == second.VMID {
			t.Errorf("machines %s and %s, want two of %v", first.VMID, second.VMID, spares)
		}
		in := w.host.Machine(first.VMID).Configured()
		if in.TimeZone != "Asia/Tokyo" || in.Width != 400 || in.Height != 700 || in.MachineID != first.VMID || len(in.Entropy) != 64 {
			t.Errorf("configured with %+v", in)
		}
		vm, err := w.db.VM(t.Context(), first.VMID)
		if err != nil || vm.UserID != w.user || vm.SessionID != a.ID {
			t.Errorf("%+v, %v", vm, err)
		}
		seen.are(t, 2, 0, 0)
		close(g.open)
		w.reach(a.ID, session.Completed)
		w.reach(b, session.Completed)
		for _, vm := range w.ready(s, 2) {
			if spares[vm.ID] {
				t.Errorf("machine %s is ready again", vm.ID)
			}
		}
		s.stop()
		w.quiet() // nobody's machines go with their server
	})
}

// TestPoolIsTakenOnce: of more sessions at once than there are machines ready
// each has one of its own.
func TestPoolIsTakenOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		seen := new(takes)
		s := w.serve(warm(3), func(c *control.Config) { c.Observe = seen })
		w.ready(s, 3)
		const people = 8
		var all sync.WaitGroup
		ids := make([]session.ID, people)
		for i := range people {
			all.Go(func() {
				out, _, err := s.StartSession(t.Context(), w.user, "claude", "", guestapi.View{})
				if err != nil {
					t.Error(err)
				}
				ids[i] = out.ID
			})
		}
		all.Wait()
		machines := map[string]session.ID{}
		for _, id := range ids {
			now := w.reach(id, session.Waiting)
			if other := machines[now.VMID]; other != "" {
				t.Errorf("sessions %s and %s have machine %s", other, id, now.VMID)
			}
			machines[now.VMID] = id
		}
		seen.are(t, 3, people-3, 0)
	})
}

// TestPoolWaitsForPeople: nothing is made for the pool while a session's machine
// or tool is being started.
func TestPoolWaitsForPeople(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Starting)
		s := w.serve()
		id := w.start(s, "claude")
		w.reach(id, session.Starting)
		s.stop()
		// The next server has a pool, and this session to start first.
		s = w.serve(warm(2))
		w.reach(id, session.Starting)
		<-time.After(20 * time.Second)
		if rows := w.nobodys(); len(rows) > 0 {
			t.Errorf("%d machines are being made for nobody", len(rows))
		}
		close(g.open)
		w.reach(id, session.Completed)
		w.ready(s, 2)
	})
}

// TestPoolOfAnEarlierServer: what an earlier server had ready, of whatever image,
// is never given to anybody.
func TestPoolOfAnEarlierServer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		driver := fake.NewDriver(w.host)
		for _, vm := range []store.VM{
			{ID: "oldimage1", ImageID: "another image", State: store.VMRunning},
			{ID: "sameimage", ImageID: "image", State: store.VMRunning},
			{ID: "halfmade1", ImageID: "image", State: store.VMCreating},
		} {
			created, err := driver.Create(t.Context(), machine.Spec{ID: vm.ID, Kind: machine.Browser})
			if err != nil {
				t.Fatal(err)
			}
			vm.Kind, vm.Driver, vm.Ref = "browser", "fake", created.Ref
			if err := w.db.InsertVM(t.Context(), vm); err != nil {
				t.Fatal(err)
			}
		}
		g := w.hold(session.Waiting)
		s := w.serve(warm(2))
		id := w.start(s, "claude")
		now := w.reach(id, session.Waiting)
		for _, vm := range w.ready(s, 2) {
			if vm.ID == "oldimage1" || vm.ID == "sameimage" || vm.ID == "halfmade1" || vm.ImageID != "image" {
				t.Errorf("%+v is ready", vm)
			}
		}
		for _, old := range []string{"oldimage1", "sameimage", "halfmade1"} {
			vm, err := w.db.VM(t.Context(), old)
			if err != nil || vm.State != store.VMDestroyed || w.host.Machine(old) != nil || now.VMID == old {
				t.Errorf("%+v, %v; on the host: %t", vm, err, w.host.Machine(old) != nil)
			}
		}
		close(g.open)
		w.reach(id, session.Completed)
	})
}

// TestPoolIsSwept: the sweep leaves the pool alone, whatever is taken from it
// meanwhile, and destroys what is nobody's otherwise.
func TestPoolIsSwept(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve(warm(1))
		before := w.ready(s, 1)[0].ID
		created, err := fake.NewDriver(w.host).Create(t.Context(), machine.Spec{ID: "forgotten", Kind: machine.Browser})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.db.InsertVM(t.Context(), store.VM{ID: "forgotten", Kind: "browser", Driver: "fake", State: store.VMRunning, Ref: created.Ref}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		if rows := w.nobodys(); len(rows) != 1 || rows[0].ID != before {
			t.Errorf("nobody's machines are %+v", rows)
		}
		now := w.reach(w.start(s, "claude"), session.Waiting)
		<-time.After(time.Minute)
		if again := w.session(now.ID); now.VMID != before || again.State != session.Waiting {
			t.Errorf("machine %s, then %s", now.VMID, again.State)
		}
	})
}

// TestPooledMachineDies: it is noticed and replaced, less and less often where
// it happens to every one.
func TestPooledMachineDies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve(warm(2))
		rows := w.ready(s, 2)
		w.host.Machine(rows[0].ID).Kill()
		w.eventually("the dead one is replaced", func() bool {
			now := w.nobodys()
			return len(now) == 2 && now[0].ID != rows[0].ID && now[1].ID != rows[0].ID
		})
		vm, err := w.db.VM(t.Context(), rows[0].ID)
		if err != nil || vm.State != store.VMFailed || vm.Reason == "" || w.host.Machine(vm.ID) != nil {
			t.Errorf("%+v, %v", vm, err)
		}
		w.ready(s, 2)

		// From now on every machine dies at once.
		w.host.Script(func(machine.Spec) fake.Script {
			return fake.Script{Line: func(context.Context, net.Conn) {}}
		})
		for _, vm := range w.nobodys() {
			w.host.Machine(vm.ID).Kill()
		}
		from := w.host.Started()
		<-time.After(10 * time.Minute)
		if n := w.host.Started() - from; n < 5 || n > 40 {
			t.Errorf("%d machines were made in ten minutes", n)
		}
		w.host.Script(func(machine.Spec) fake.Script { return fake.Script{} })
		w.ready(s, 2)
	})
}

// TestPoolCannotBeMade: sessions start all the same.
func TestPoolCannotBeMade(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		broken := true
		w.host.Script(func(machine.Spec) fake.Script {
			script := fake.Script{Login: signsIn(1)}
			if broken {
				script.Create = func(context.Context) error { return errors.New("no such device") }
			}
			return script
		})
		seen := new(takes)
		s := w.serve(warm(1), func(c *control.Config) { c.Observe = seen })
		<-time.After(10 * time.Minute)
		if n := w.host.Started(); n < 5 || n > 30 {
			t.Errorf("%d were tried in ten minutes", n)
		}
		if rows := w.nobodys(); len(rows) > 0 {
			t.Errorf("left: %+v", rows)
		}
		broken = false
		w.reach(w.start(s, "claude"), session.Completed)
		seen.are(t, 0, 1, 0)
		w.ready(s, 1)
	})
}

// TestTakeFails: a machine of the pool that does not take its configuration is
// destroyed, and the session gets another one in the same attempt.
func TestTakeFails(t *testing.T) {
	for name, lie := range map[string]func(*guestapi.Ack){
		"another build": func(a *guestapi.Ack) { a.Build = "another" },
		"another id":    func(a *guestapi.Ack) { a.MachineID = "another" },
		"no entropy":    func(a *guestapi.Ack) { a.Entropy = "" },
		"configured":    func(a *guestapi.Ack) { a.Again = true },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.script(fake.Script{Login: signsIn(1), Ack: lie}, fake.Script{})
				seen := new(takes)
				s := w.serve(warm(1), func(c *control.Config) { c.Observe = seen })
				bad := w.ready(s, 1)[0].ID
				w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
				now := w.reach(w.start(s, "claude"), session.Completed)
				if now.VMID == bad || now.Attempt != 1 {
					t.Errorf("machine %s in attempt %d", now.VMID, now.Attempt)
				}
				vm, err := w.db.VM(t.Context(), bad)
				if err != nil || vm.State != store.VMFailed || vm.SessionID != now.ID || w.host.Machine(bad) != nil {
					t.Errorf("%+v, %v", vm, err)
				}
				seen.are(t, 0, 0, 1)
				w.ready(s, 1)
			})
		})
	}
}

// TestRestartAfterTake: a server that is gone between taking a machine and
// saying so in the session leaves a machine that nobody gets.
func TestRestartAfterTake(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := &gate{open: make(chan struct{})}
		held := func(machine.Spec) fake.Script {
			return fake.Script{Login: signsIn(1), HTTP: g.requests("POST "+guestapi.PathConfigure, 1)}
		}
		w.host.Script(held)
		s := w.serve(warm(1))
		spare := w.ready(s, 1)[0].ID
		id := w.start(s, "claude")
		w.eventually("it is taken", func() bool {
			vm, err := w.db.VM(t.Context(), spare)
			return err == nil && vm.SessionID == id
		})
		s.stop()
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		close(g.open)
		s = w.serve(warm(1))
		if now := w.reach(id, session.Completed); now.VMID == spare {
			t.Error("the session got the machine that was half its own")
		}
		w.eventually("it is gone", func() bool { return w.host.Machine(spare) == nil })
		w.ready(s, 1)
	})
}

// TestPoolGivesWay: machines that are nobody's are no reason for somebody to go
// without one.
func TestPoolGivesWay(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		// The host has memory for two machines, of whatever kind.
		w.host.Script(func(machine.Spec) fake.Script {
			return fake.Script{Login: signsIn(1), Create: func(context.Context) error {
				if len(w.host.Machines(machine.Browser))+len(w.host.Machines(machine.CLI)) > 2 {
					return machine.ErrNoMemory
				}
				return nil
			}}
		})
		s := w.serve(warm(2))
		w.ready(s, 2)
		if _, err := s.EnsureMachine(t.Context(), w.user); err != nil {
			t.Fatalf("a cli machine: %v", err)
		}
		w.reach(w.start(s, "claude"), session.Completed)
		synctest.Wait()
	})
}

// TestPoolLeavesRoom: a machine that was still being made for the pool when
// somebody took the last place is one too many.
func TestPoolLeavesRoom(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := &gate{open: make(chan struct{})}
		first := true
		w.host.Script(func(machine.Spec) fake.Script {
			script := fake.Script{}
			if first { // the pool's
				script.Create = g.pass
			}
			first = false
			return script
		})
		s := w.serve(room(1, 0), warm(1))
		<-time.After(time.Second)
		id := w.start(s, "claude")
		w.reach(id, session.Waiting)
		close(g.open)
		<-time.After(time.Minute)
		if rows := w.nobodys(); len(rows) > 0 || len(w.host.Machines(machine.Browser)) != 1 {
			t.Errorf("nobody's: %+v; %d machines on the host", rows, len(w.host.Machines(machine.Browser)))
		}
		if _, err := s.Cancel(t.Context(), w.user, id); err != nil {
			t.Fatal(err)
		}
		w.ready(s, 1)
	})
}
