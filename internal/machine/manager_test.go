package machine_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

const build = "a build"

// serveNothing is an egress that refuses every stream.
func serveNothing(_ context.Context, streams net.Listener) error {
	for {
		conn, err := streams.Accept()
		if err != nil {
			return nil
		}
		_ = conn.Close()
	}
}

func settings(kind machine.Kind) machine.Settings {
	return machine.Settings{
		Configure: guestapi.Configure{Kind: string(kind), Width: 1280, Height: 800},
		Egress:    serveNothing, Build: build,
	}
}

// rig is a manager over a fake host.
type rig struct {
	host    *fake.Host
	manager *machine.Manager
}

func newRig(t *testing.T) rig {
	host := fake.NewHost(build)
	t.Cleanup(host.Close)
	return rig{host, machine.NewManager(fake.NewDriver(host), slog.New(slog.DiscardHandler))}
}

// start makes a machine that is let go of at the test's end.
func (r rig) start(t *testing.T, id string) (*machine.Machine, machine.Created) {
	t.Helper()
	m, created, err := r.manager.Start(t.Context(), machine.Spec{ID: id, Kind: machine.Browser}, settings(machine.Browser))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Detach)
	return m, created
}

// A machine whose programs are not caught is one all the same; the log says so,
// with not too many of the guest's words.
func TestUncaught(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		r := newRig(t)
		r.manager = machine.NewManager(fake.NewDriver(r.host), slog.New(slog.NewTextHandler(&log, nil)))
		r.host.Script(func(machine.Spec) fake.Script {
			return lies(func(a *guestapi.Ack) { a.Uncaught = "no TUN device\n" + strings.Repeat("\x1b[2J", 10_000) })
		})
		m, _ := r.start(t, "machine1")
		if err := asks(t.Context(), t, m); err != nil {
			t.Error(err)
		}
		if got := log.String(); !strings.Contains(got, "no TUN device") || strings.Count(got, "\n") != 1 || len(got) > 1024 {
			t.Errorf("the log says %.2000q", got)
		}
	})
}

// asks makes a request that any configured machine answers.
func asks(ctx context.Context, t *testing.T, m *machine.Machine) error {
	t.Helper()
	guest, err := m.Guest(ctx)
	if err != nil {
		return err
	}
	_, err = guest.Status(ctx, 0, 0)
	return err
}

func TestStart(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		ctx, cancel := context.WithCancel(t.Context())
		m, created, err := r.manager.Start(ctx, machine.Spec{ID: "machine1", Kind: machine.Browser}, settings(machine.Browser))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Detach()
		if !created.Restored || m.ID() != "machine1" || r.manager.Driver() != "fake" {
			t.Errorf("created %+v, id %q, driver %q", created, m.ID(), r.manager.Driver())
		}
		in := r.host.Machine("machine1").Configured()
		if in.MachineID != "machine1" || len(in.Entropy) != 64 || slices.Equal(in.Entropy, make([]byte, 64)) || time.Since(in.WallClock) > time.Minute || in.Width != 1280 {
			t.Errorf("configured with %+v", in)
		}
		cancel() // the machine outlives the context in which it was made
		synctest.Wait()
		if err := asks(t.Context(), t, m); err != nil {
			t.Error(err)
		}
	})
}

func TestStartFails(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.host.Script(func(machine.Spec) fake.Script {
			return fake.Script{Create: func(context.Context) error { return machine.ErrNoMemory }}
		})
		_, _, err := r.manager.Start(t.Context(), machine.Spec{ID: "machine1", Kind: machine.Browser}, settings(machine.Browser))
		if !errors.Is(err, machine.ErrNoMemory) {
			t.Errorf("start: %v, want ErrNoMemory", err)
		}
		if left := r.host.Machines(machine.Browser); len(left) > 0 {
			t.Errorf("it has left %d machines", len(left))
		}
	})
}

func TestMachineEnds(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		m, created := r.start(t, "machine1")
		r.host.Machine("machine1").Kill()
		<-m.Done()
		if err := asks(t.Context(), t, m); !errors.Is(err, machine.ErrGone) {
			t.Errorf("asking a machine that ended: %v, want ErrGone", err)
		}
		if _, err := r.manager.Adopt(t.Context(), "machine1", created.Ref, settings(machine.Browser)); !errors.Is(err, machine.ErrGone) {
			t.Errorf("adopting a machine that ended: %v, want ErrGone", err)
		}
	})
}

func TestLineBreaks(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		m, _ := r.start(t, "machine1")
		began := time.Now()
		for range 3 {
			r.host.Machine("machine1").BreakLine()
			synctest.Wait()
			if err := asks(t.Context(), t, m); err != nil {
				t.Error(err)
			}
			<-time.After(time.Minute)
		}
		if took := time.Since(began); took > 3*time.Minute+time.Second {
			t.Errorf("three broken lines took %s to mend", took-3*time.Minute)
		}
		select {
		case <-m.Done():
			t.Error("the machine is said to have ended")
		default:
		}
	})
}

func TestDetachAndAdopt(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		m, created := r.start(t, "machine1")
		m.Detach()
		m.Detach()
		if err := asks(t.Context(), t, m); !errors.Is(err, machine.ErrGone) {
			t.Errorf("asking a machine that was let go of: %v, want ErrGone", err)
		}
		select {
		case <-m.Done():
			t.Error("letting go has ended the machine")
		case <-r.host.Machine("machine1").Dead():
			t.Error("letting go has killed the machine")
		default:
		}
		next := machine.NewManager(fake.NewDriver(r.host), slog.New(slog.DiscardHandler))
		adopted, err := next.Adopt(t.Context(), "machine1", created.Ref, settings(machine.Browser))
		if err != nil {
			t.Fatal(err)
		}
		defer adopted.Detach()
		if err := asks(t.Context(), t, adopted); err != nil {
			t.Error(err)
		}
		for name, ref := range map[string]json.RawMessage{"recycled": json.RawMessage(`{"number":77}`), "none": nil} {
			if _, err := next.Adopt(t.Context(), "machine1", ref, settings(machine.Browser)); !errors.Is(err, machine.ErrGone) {
				t.Errorf("adopting with the ref %s: %v, want ErrGone", name, err)
			}
		}
	})
}

func TestReclaim(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.start(t, "machine1")
		r.start(t, "machine2")
		r.start(t, "machine3")
		r.host.Machine("machine3").Kill()
		gone, err := r.manager.Reclaim(t.Context(), map[string]bool{"machine2": true})
		if err != nil || !slices.Equal(gone, []string{"machine1", "machine3"}) {
			t.Errorf("reclaimed %q, %v", gone, err)
		}
		if left := r.host.Machines(machine.Browser); len(left) != 1 || left[0].ID() != "machine2" {
			t.Errorf("%d machines are left", len(left))
		}
	})
}

// unsteady is a driver that cannot always watch its machines.
type unsteady struct {
	machine.Driver
	failures chan error
}

func (u unsteady) Wait(ctx context.Context, id string, ref json.RawMessage) error {
	select {
	case err := <-u.failures:
		return err
	default:
		return u.Driver.Wait(ctx, id, ref)
	}
}

func TestWaitFails(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		host := fake.NewHost(build)
		defer host.Close()
		failures := make(chan error, 2)
		failures <- errors.New("no descriptors are left")
		failures <- errors.New("still none")
		manager := machine.NewManager(unsteady{fake.NewDriver(host), failures}, slog.New(slog.DiscardHandler))
		m, _, err := manager.Start(t.Context(), machine.Spec{ID: "machine1", Kind: machine.Browser}, settings(machine.Browser))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Detach()
		host.Machine("machine1").Kill()
		select {
		case <-m.Done():
		case <-time.After(time.Minute):
			t.Error("the end of the machine was missed")
		}
	})
}
