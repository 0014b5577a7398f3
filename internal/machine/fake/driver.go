package fake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"

	"github.com/anteroom/anteroom/internal/machine"
)

var validID = regexp.MustCompile(`^[a-z0-9]{8,32}$`)

// Driver implements machine.Driver on a Host. What one driver started another
// one finds.
type Driver struct{ host *Host }

// NewDriver returns a driver of the host's machines.
func NewDriver(host *Host) *Driver { return &Driver{host: host} }

// ref is what a machine's row keeps for Driver. A number is never used again.
type ref struct {
	Number int `json:"number"`
}

// Name is "fake".
func (d *Driver) Name() string { return "fake" }

// Create starts a machine with the script that the host has for it.
func (d *Driver) Create(ctx context.Context, spec machine.Spec) (machine.Created, error) {
	if !validID.MatchString(spec.ID) {
		return machine.Created{}, fmt.Errorf("fake: bad machine id %q", spec.ID)
	}
	m, err := d.host.add(spec)
	if err != nil {
		return machine.Created{}, err
	}
	if m.script.Create != nil {
		err = m.script.Create(ctx)
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		d.host.remove(spec.ID)
		return machine.Created{}, fmt.Errorf("fake: creating machine %s: %w", spec.ID, err)
	}
	m.run()
	created := machine.Created{Restored: spec.Kind == machine.Browser && !spec.Cold}
	if !created.Restored {
		created.ColdReason = "the specification says so"
	}
	created.Ref, err = json.Marshal(ref{Number: m.number})
	return created, err
}

// find returns the machine that a row means, or nil.
func (d *Driver) find(id string, raw json.RawMessage) *Machine {
	var r ref
	m := d.host.Machine(id)
	if m == nil || json.Unmarshal(raw, &r) != nil || r.Number != m.number {
		return nil
	}
	return m
}

// Open cuts the line that there is and waits for the agent to call.
func (d *Driver) Open(ctx context.Context, id string, raw json.RawMessage) (net.Conn, error) {
	m := d.find(id, raw)
	if m == nil {
		return nil, fmt.Errorf("fake: line of %s: %w", id, machine.ErrGone)
	}
	m.BreakLine()
	select {
	case conn := <-m.calls:
		m.mu.Lock()
		defer m.mu.Unlock()
		m.conn = conn
		return conn, nil
	case <-m.Dead():
		return nil, fmt.Errorf("fake: line of %s: %w", id, machine.ErrGone)
	case <-ctx.Done():
		return nil, fmt.Errorf("fake: line of %s: %w", id, context.Cause(ctx))
	}
}

// Wait returns when the machine has ended.
func (d *Driver) Wait(ctx context.Context, id string, raw json.RawMessage) error {
	m := d.find(id, raw)
	if m == nil {
		return nil
	}
	select {
	case <-m.Dead():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Destroy ends the machine and takes its trace away.
func (d *Driver) Destroy(_ context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("fake: bad machine id %q", id)
	}
	d.host.remove(id)
	return nil
}

// List returns the ids of all machines on the host.
func (d *Driver) List(context.Context) ([]string, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	ids := make([]string, 0, len(d.host.machines))
	for id := range d.host.machines {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}
