package rtc

import (
	"net"
	"sync"
	"time"
)

// tcpConn is a viewer's connection. One that takes nothing for tcpStall is cut:
// the library writes to it while others wait.
type tcpConn struct {
	net.Conn
	once sync.Once
	left func()
}

// Write implements net.Conn.
func (c *tcpConn) Write(p []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(tcpStall))
	n, err := c.Conn.Write(p)
	if err != nil {
		_ = c.Close() // half a frame may be out: nothing that follows can be read
	}
	return n, err
}

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	c.once.Do(c.left)
	return c.Conn.Close()
}
