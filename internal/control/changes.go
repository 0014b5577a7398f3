package control

import "sync"

// changes tells those who wait that there may be something new to read. It
// carries nothing: what changed is in the database.
type changes struct {
	mu   sync.Mutex
	next chan struct{} // made when somebody waits
}

// wait returns a channel that is closed at the next change.
func (c *changes) wait() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = make(chan struct{})
	}
	return c.next
}

func (c *changes) tell() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next != nil {
		close(c.next)
		c.next = nil
	}
}
