//go:build linux

package guest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
)

// halfCloser is what TCP connections can do.
type halfCloser interface{ CloseWrite() error }

// serveProxy hands every connection to the guest's loopback proxy port to the
// host, as a stream of the line that is up at that moment. Without a line the
// connection is closed at once: the program sees a proxy that does not answer.
// It returns when the listener is closed and all connections have ended.
func serveProxy(l net.Listener, dial func(context.Context) (net.Conn, error), logger *slog.Logger) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			logger.Warn("proxy port: accept", "err", err)
			continue
		}
		conns.Add(1)
		go func() {
			defer conns.Done()
			defer func() { _ = conn.Close() }()
			stream, err := dial(context.Background())
			if err != nil {
				return
			}
			join(conn, stream)
		}()
	}
}

// join copies both ways until both directions have ended, then closes both.
// The end of one direction is handed on as a half-close, so that an answer
// behind it still arrives.
func join(a, b net.Conn) {
	var both sync.WaitGroup
	oneWay := func(dst, src net.Conn) {
		defer both.Done()
		_, err := io.Copy(dst, src)
		if hc, ok := dst.(halfCloser); ok && err == nil {
			_ = hc.CloseWrite()
			return
		}
		// A yamux stream's Close ends its own sending side only; anything
		// that broke ends both.
		_ = dst.Close()
		if err != nil {
			_ = src.Close()
		}
	}
	both.Add(2)
	go oneWay(a, b)
	go oneWay(b, a)
	both.Wait()
	_ = a.Close()
	_ = b.Close()
}
