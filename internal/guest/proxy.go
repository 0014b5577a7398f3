//go:build linux

package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guest/catch"
)

// resolvConf is where programs read whom to ask about names.
const resolvConf = "/etc/resolv.conf"

// errNoWay says that the host's egress proxy does not connect there.
var errNoWay = errors.New("the host refuses")

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

// catchAll has what programs send without asking the proxy port go the same
// way. It must not be called before a machine is somebody's: gVisor cannot save
// one that has the device. It may be called again.
func (a *Agent) catchAll() error {
	if a.catcher != nil {
		return nil
	}
	device, err := catch.Open()
	if err != nil {
		return err
	}
	a.catcher, err = catch.New(device, catch.Config{
		Dial:   func(ctx context.Context, target string) (net.Conn, error) { return connectTo(ctx, target, a.dialHost) },
		Join:   join,
		Logger: a.logger,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(resolvConf, []byte(catch.ResolvConf()), 0o644)
}

// connectTo asks the host's egress proxy, at the other end of a stream, for a
// connection to "host:port".
func connectTo(ctx context.Context, target string, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	stream, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })
	answers, err := connect(stream, target)
	if !stop() {
		err = errors.Join(err, context.Cause(ctx))
	}
	if err != nil {
		_ = stream.Close()
		return nil, err
	}
	return buffered{stream, answers}, nil
}

// connect sends a CONNECT and reads what answers it. What comes behind that is
// still in the returned reader.
func connect(stream net.Conn, target string) (*bufio.Reader, error) {
	if _, err := fmt.Fprintf(stream, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target); err != nil {
		return nil, err
	}
	answers := bufio.NewReader(stream)
	res, err := http.ReadResponse(answers, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it ends with the stream
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%w: %s", errNoWay, res.Status)
	}
	return answers, nil
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
