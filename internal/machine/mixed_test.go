package machine_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

// slow is a driver that is ten times slower.
type slow struct{ *fake.Driver }

func (slow) Pace() int { return 10 }

// TestMixed: machines of another driver are opened, waited for, listed and
// destroyed; new ones are made with the chosen one only.
func TestMixed(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		here, there := fake.NewHost(build), fake.NewHost(build)
		t.Cleanup(here.Close)
		t.Cleanup(there.Close)
		made, err := fake.NewDriver(there).Create(t.Context(), machine.Spec{ID: "machine1", Kind: machine.Browser})
		if err != nil {
			t.Fatal(err)
		}
		m := machine.NewMixed(slow{fake.NewDriver(here)}, fake.NewDriver(there))
		if machine.PaceOf(m) != 10 || machine.PaceOf(fake.NewDriver(here)) != 1 {
			t.Error("its pace is not that of the driver which makes machines")
		}
		if _, err := m.Create(t.Context(), machine.Spec{ID: "machine1", Kind: machine.Browser}); !errors.Is(err, machine.ErrExists) {
			t.Errorf("a machine with the id of another driver's: %v", err)
		}
		if _, err := m.Create(t.Context(), machine.Spec{ID: "machine2", Kind: machine.Browser}); err != nil || here.Machine("machine2") == nil {
			t.Errorf("a new machine: %v", err)
		}
		ids, err := m.List(t.Context())
		if slices.Sort(ids); err != nil || !slices.Equal(ids, []string{"machine1", "machine2"}) {
			t.Errorf("listed: %q, %v", ids, err)
		}
		conn, err := m.Open(t.Context(), "machine1", made.Ref)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		ended := make(chan error, 1)
		go func() { ended <- m.Wait(t.Context(), "machine1", made.Ref) }()
		if err := m.Destroy(t.Context(), "machine1"); err != nil || there.Machine("machine1") != nil {
			t.Errorf("destroying it: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("waiting for it: %v", err)
		}
		if _, err := m.Open(t.Context(), "machine1", made.Ref); !errors.Is(err, machine.ErrGone) {
			t.Errorf("opening it then: %v", err)
		}
	})
}
