// Package fake makes machines that are goroutines of this process. They speak
// the real protocol, over a real line, and do what a script says: sign in,
// refuse, hang, die, lie. It is for tests of everything above a driver.
package fake

import (
	"fmt"
	"slices"
	"sync"

	"github.com/anteroom/anteroom/internal/machine"
)

// Host stands for the computer on which machines run: it outlives the drivers
// that are made over it, as a computer outlives a server's restart. Its methods
// may be called concurrently.
type Host struct {
	build string

	mu       sync.Mutex // guards what follows
	script   func(machine.Spec) Script
	machines map[string]*Machine
	started  int // how many machines have been started, ever
}

// NewHost returns a host without machines, whose agents say that they are of
// the given build. The caller closes it.
func NewHost(build string) *Host {
	return &Host{
		build: build, machines: map[string]*Machine{},
		script: func(machine.Spec) Script { return Script{} },
	}
}

// Script sets what machines do that are created from now on.
func (h *Host) Script(script func(machine.Spec) Script) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script = script
}

// Machine returns a machine that has any trace on the host, or nil.
func (h *Host) Machine(id string) *Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.machines[id]
}

// Machines returns all machines of a kind that have any trace on the host, in
// the order in which they were started.
func (h *Host) Machines(kind machine.Kind) []*Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*Machine
	for _, m := range h.machines {
		if m.spec.Kind == kind {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *Machine) int { return a.number - b.number })
	return out
}

// Started is how many machines were started, ever.
func (h *Host) Started() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.started
}

// Close ends all machines and waits for their goroutines.
func (h *Host) Close() {
	h.mu.Lock()
	all := make([]*Machine, 0, len(h.machines))
	for _, m := range h.machines {
		all = append(all, m)
	}
	h.mu.Unlock()
	for _, m := range all {
		h.remove(m.spec.ID)
	}
}

// add makes a machine's trace; it does not run yet.
func (h *Host) add(spec machine.Spec) (*Machine, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.machines[spec.ID] != nil {
		return nil, fmt.Errorf("fake: %w: %s", machine.ErrExists, spec.ID)
	}
	h.started++
	m := newMachine(h.build, h.started, spec, h.script(spec))
	h.machines[spec.ID] = m
	return m, nil
}

// remove ends a machine and takes its trace away.
func (h *Host) remove(id string) {
	if m := h.Machine(id); m != nil {
		m.Kill()
		m.work.Wait()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.machines, id)
}
