package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
)

// Mixed makes machines with one driver and knows those that others have made on
// the same host: each is opened, waited for and destroyed by its own.
type Mixed struct {
	Driver // makes machines
	others []Driver
}

// NewMixed returns the mix of a driver that makes machines and of others that may
// have made some earlier.
func NewMixed(makes Driver, others ...Driver) *Mixed {
	return &Mixed{Driver: makes, others: others}
}

// Pace is that of the driver which makes machines.
func (m *Mixed) Pace() int { return PaceOf(m.Driver) }

// all are the drivers, the one that makes machines first.
func (m *Mixed) all() []Driver { return append([]Driver{m.Driver}, m.others...) }

// of returns the driver of a machine: the one that lists it, and the one that
// makes machines where none does.
func (m *Mixed) of(ctx context.Context, id string) (Driver, error) {
	for _, d := range m.all() {
		ids, err := d.List(ctx)
		if err != nil {
			return nil, err
		}
		if slices.Contains(ids, id) {
			return d, nil
		}
	}
	return m.Driver, nil
}

// Create makes a machine, unless a machine of another driver has its id.
func (m *Mixed) Create(ctx context.Context, spec Spec) (Created, error) {
	d, err := m.of(ctx, spec.ID)
	if err != nil {
		return Created{}, err
	}
	if d != m.Driver {
		return Created{}, fmt.Errorf("%s has made %s: %w", d.Name(), spec.ID, ErrExists)
	}
	return m.Driver.Create(ctx, spec)
}

// Open opens a channel to a machine of any of the drivers.
func (m *Mixed) Open(ctx context.Context, id string, ref json.RawMessage) (net.Conn, error) {
	d, err := m.of(ctx, id)
	if err != nil {
		return nil, err
	}
	return d.Open(ctx, id, ref)
}

// Wait waits for a machine of any of the drivers.
func (m *Mixed) Wait(ctx context.Context, id string, ref json.RawMessage) error {
	d, err := m.of(ctx, id)
	if err != nil {
		return err
	}
	return d.Wait(ctx, id, ref)
}

// Destroy removes every trace of a machine, whichever driver has made it.
func (m *Mixed) Destroy(ctx context.Context, id string) error {
	var errs []error
	for _, d := range m.all() {
		errs = append(errs, d.Destroy(ctx, id))
	}
	return errors.Join(errs...)
}

// List lists the machines of all drivers.
func (m *Mixed) List(ctx context.Context) ([]string, error) {
	var all []string
	for _, d := range m.all() {
		ids, err := d.List(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}
