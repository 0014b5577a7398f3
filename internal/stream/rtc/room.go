package rtc

import (
	"slices"
	"sync"
)

// room is the viewers of one session. One window controls, the others watch; a
// window may have more than one connection while it changes its transport.
type room struct {
	places int // taken; guarded by the gateway's lock

	mu      sync.Mutex
	all     []*Conn // also those that have not connected yet
	viewers []*Conn // connected, the oldest first
	control string  // the window; empty if there is no viewer
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

// enter lets a viewer in that has connected. It controls if no other window does.
func (r *room) enter(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.viewers = append(r.viewers, c)
	if r.control == "" {
		r.control = c.window
	}
	c.setRole(r.control == c.window)
}

// take gives a viewer's window control.
func (r *room) take(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.viewers, c) {
		r.give(c.window)
	}
}

// give gives a window control. The caller has locked.
func (r *room) give(window string) {
	if r.control == window {
		return
	}
	before := r.control
	r.control = window
	for _, v := range r.viewers { // who has control lets go before another gets it
		if v.window == before {
			v.setRole(false)
		}
	}
	for _, v := range r.viewers {
		if v.window == window {
			v.setRole(true)
		}
	}
}

// leave forgets a viewer; if it was the last of the window that controlled, that
// of the oldest viewer does now.
func (r *room) leave(c *Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	is := func(v *Conn) bool { return v == c }
	r.all, r.viewers = slices.DeleteFunc(r.all, is), slices.DeleteFunc(r.viewers, is)
	c.to.control(false)
	if slices.ContainsFunc(r.viewers, func(v *Conn) bool { return v.window == r.control }) {
		return
	}
	next := ""
	if len(r.viewers) > 0 {
		next = r.viewers[0].window
	}
	r.give(next)
}
