package fake_test

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/machine/machinetest"
)

func TestConformance(t *testing.T) {
	machinetest.Run(t, func(t *testing.T) machinetest.Setup {
		host := fake.NewHost("a build")
		t.Cleanup(host.Close)
		refusing := func(err error) func(*testing.T) machine.Driver {
			return func(t *testing.T) machine.Driver {
				other := fake.NewHost("a build")
				t.Cleanup(other.Close)
				other.Script(func(machine.Spec) fake.Script {
					return fake.Script{Create: func(context.Context) error { return err }}
				})
				return fake.NewDriver(other)
			}
		}
		return machinetest.Setup{
			Driver: fake.NewDriver(host), Build: "a build",
			Again:    func(*testing.T) machine.Driver { return fake.NewDriver(host) },
			Kill:     func(_ *testing.T, id string, _ json.RawMessage) { host.Machine(id).Kill() },
			Recycled: func(*testing.T, json.RawMessage) json.RawMessage { return json.RawMessage(`{"number":1000000}`) },
			Refusing: map[error]func(*testing.T) machine.Driver{
				machine.ErrNoMemory: refusing(machine.ErrNoMemory),
				machine.ErrDiskFull: refusing(machine.ErrDiskFull),
			},
		}
	})
}
