package machine_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

// spare makes a machine that is nobody's.
func (r rig) spare(t *testing.T, id string) *machine.Spare {
	t.Helper()
	one, created, err := r.manager.Spare(t.Context(), machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil || !created.Restored || one.ID() != id {
		t.Fatalf("%+v, %v", created, err)
	}
	t.Cleanup(one.Detach)
	return one
}

func over(one *machine.Spare) bool {
	synctest.Wait()
	select {
	case <-one.Over():
		return true
	default:
		return false
	}
}

// TestSpare: nothing of a machine is configured before it is somebody's, and
// then it is as any other.
func TestSpare(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		one := r.spare(t, "machine1")
		<-time.After(time.Hour)
		if over(one) || r.host.Machine("machine1").Configured() != nil {
			t.Fatal("it is over, or somebody's")
		}
		m, err := one.Take(t.Context(), settings(machine.Browser))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Detach()
		in := r.host.Machine("machine1").Configured()
		if in == nil || in.MachineID != "machine1" || len(in.Entropy) != 64 || time.Since(in.WallClock) > time.Minute {
			t.Errorf("configured with %+v", in)
		}
		if !over(one) {
			t.Error("it is still to be taken")
		}
		if err := asks(t.Context(), t, m); err != nil {
			t.Error(err)
		}
		r.host.Machine("machine1").BreakLine()
		synctest.Wait() // until it is noticed
		if err := asks(t.Context(), t, m); err != nil {
			t.Errorf("after its line broke: %v", err)
		}
	})
}

// TestSpareEnds: one that dies, or whose line breaks, says so; one that was let
// go of runs on.
func TestSpareEnds(t *testing.T) {
	for name, end := range map[string]func(*fake.Machine){"dies": (*fake.Machine).Kill, "breaks": (*fake.Machine).BreakLine} {
		t.Run(name, func(t *testing.T) {
			fake.Bubble(t, func(t *testing.T) {
				r := newRig(t)
				one := r.spare(t, "machine1")
				end(r.host.Machine("machine1"))
				if !over(one) {
					t.Error("nobody noticed")
				}
			})
		})
	}
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		one := r.spare(t, "machine1")
		one.Detach()
		one.Detach()
		select {
		case <-r.host.Machine("machine1").Dead():
			t.Error("letting go has ended it")
		default:
		}
	})
}

// TestSpareFails: after an error nothing is left of a machine; a guest that does
// not acknowledge its owner's configuration is no machine.
func TestSpareFails(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		r.host.Script(func(machine.Spec) fake.Script {
			return fake.Script{Create: func(context.Context) error { return machine.ErrNoMemory }}
		})
		if _, _, err := r.manager.Spare(t.Context(), machine.Spec{ID: "machine1", Kind: machine.Browser}); !errors.Is(err, machine.ErrNoMemory) {
			t.Errorf("without memory: %v", err)
		}
		r.host.Script(func(machine.Spec) fake.Script { return fake.Script{} })
		late, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := r.manager.Spare(late, machine.Spec{ID: "machine1", Kind: machine.Browser}); !errors.Is(err, context.Canceled) {
			t.Errorf("too late: %v", err)
		}
		if left := r.host.Machines(machine.Browser); len(left) > 0 {
			t.Errorf("%d machines are left", len(left))
		}
		r.host.Script(func(machine.Spec) fake.Script { return lies(func(a *guestapi.Ack) { a.Build = "another" }) })
		if _, err := r.spare(t, "machine2").Take(t.Context(), settings(machine.Browser)); !errors.Is(err, machine.ErrRefused) {
			t.Errorf("a guest of another build: %v", err)
		}
		r.host.Machine("machine2").Kill()
	})
}

// TestSpareServesNothing: whatever a guest asks for before it has an owner is
// closed, and the owner's egress never sees it; what it asks for later it does.
func TestSpareServesNothing(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		early := make(chan error, 1)
		lines := 0
		r.host.Script(func(machine.Spec) fake.Script {
			return fake.Script{Line: func(ctx context.Context, conn net.Conn) {
				lines++
				l, err := line.Guest(conn)
				if err != nil {
					return
				}
				defer func() { _ = l.Close() }()
				stream, err := l.Dial(ctx)
				if err != nil {
					return
				}
				_, _ = stream.Write([]byte("early"))
				_, err = stream.Read(make([]byte, 1))
				if lines == 1 {
					early <- err
				}
				<-l.Done()
			}}
		})
		one := r.spare(t, "machine1")
		if err := <-early; !errors.Is(err, io.EOF) && err == nil {
			t.Error("it was answered")
		}
		var seen []string
		with := settings(machine.Browser)
		with.Egress = func(_ context.Context, streams net.Listener) error {
			conn, err := streams.Accept()
			if err == nil {
				b := make([]byte, 16)
				n, _ := conn.Read(b)
				seen = append(seen, string(b[:n]))
				_ = conn.Close()
			}
			return nil
		}
		// This guest acknowledges nothing, so nobody serves it.
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := one.Take(ctx, with); !errors.Is(err, machine.ErrRefused) {
			t.Errorf("taken without an acknowledgement: %v", err)
		}
		if !slices.Equal(seen, nil) {
			t.Errorf("the egress saw %q", seen)
		}
		r.host.Machine("machine1").Kill()
	})
}
