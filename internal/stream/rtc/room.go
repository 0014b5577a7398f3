package rtc

import (
	"slices"
	"sync"
)

// room is the viewers of one session. One of them controls, the others watch.
type room struct {
	places int // taken; guarded by the gateway's lock

	mu      sync.Mutex
	all     []*Conn // also those that have not connected yet
	viewers []*Conn // connected, the oldest first
	control *Conn
}

func (r *room) add(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, c)
}

func (r *room) find(id string) *Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.all, func(c *Conn) bool { return c.id == id }); i >= 0 {
		return r.all[i]
	}
	return nil
}

// enter lets a viewer in that has connected. It controls if nobody does.
func (r *room) enter(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.viewers = append(r.viewers, c)
	if r.control == nil {
		r.control = c
	}
	c.setRole(r.control == c)
}

// take gives a viewer control.
func (r *room) take(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.control == c || !slices.Contains(r.viewers, c) {
		return
	}
	if before := r.control; before != nil {
		before.setRole(false)
	}
	r.control = c
	c.setRole(true)
}

// leave forgets a viewer; if it controlled, the oldest of the others does now.
func (r *room) leave(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := func(v *Conn) bool { return v == c }
	r.all, r.viewers = slices.DeleteFunc(r.all, is), slices.DeleteFunc(r.viewers, is)
	if r.control != c {
		return
	}
	c.to.control(false)
	r.control = nil
	if len(r.viewers) > 0 {
		r.control = r.viewers[0]
		r.control.setRole(true)
	}
}
