//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/line/serial"
)

// hostCID is the host's address in vsock.
const hostCID = 2

// Reach returns how the agent reaches the host, and whether it is in a virtual
// machine, with a kernel of its own: address is unix:PATH, a unix socket;
// virtio:NAME, a virtio-serial port; vsock:PORT, the host's vsock port; or
// vsock-listen:PORT, the machine's own, at which the host connects.
func Reach(address string) (dial func(context.Context) (net.Conn, error), virtual bool, err error) {
	scheme, rest, _ := strings.Cut(address, ":")
	switch {
	case rest == "":
	case scheme == "unix":
		return DialUnix(rest), false, nil
	case scheme == "virtio":
		return dialPort(rest), true, nil
	case scheme == "vsock" || scheme == "vsock-listen":
		port, err := strconv.ParseUint(rest, 10, 32)
		if err != nil {
			return nil, false, fmt.Errorf("line %q: %w", address, err)
		}
		if scheme == "vsock-listen" {
			return acceptVsock(uint32(port)), true, nil
		}
		return dialVsock(uint32(port)), true, nil
	}
	return nil, false, fmt.Errorf("line %q: only unix:PATH, virtio:NAME, vsock:PORT and vsock-listen:PORT are known", address)
}

// DialUnix returns a dial function for a line that is a unix socket at path.
func DialUnix(path string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Clean(path))
	}
}

// dialPort returns a dial function for a virtio-serial port, which is opened
// once: a dial waits for the host to come.
func dialPort(name string) func(context.Context) (net.Conn, error) {
	var mu sync.Mutex
	var port *serial.Port
	return func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if port == nil {
			file, err := openPort(name)
			if err != nil {
				return nil, err
			}
			port, _ = serial.Listen(file)
		}
		return port.Accept(ctx)
	}
}

// openPort opens the virtio-serial port with this name.
func openPort(name string) (io.ReadWriter, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if got, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(got)) == name {
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(f))), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("there is no virtio-serial port %q", name)
}

// dialVsock returns a dial function for a port of the host's. A connection is
// read and written by the runtime's poller.
func dialVsock(port uint32) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("vsock: %w", err)
		}
		// The host refuses at once where nobody listens.
		if err := errors.Join(unix.Connect(fd, &unix.SockaddrVM{CID: hostCID, Port: port}), unix.SetNonblock(fd, true)); err != nil {
			return nil, errors.Join(fmt.Errorf("vsock: %w", err), unix.Close(fd))
		}
		return vsockConn{os.NewFile(uintptr(fd), "vsock")}, nil
	}
}

// vsockConn is a connection of a kind that package net does not know.
type vsockConn struct{ *os.File }

type vsockAddr struct{}

func (vsockAddr) Network() string { return "vsock" }
func (vsockAddr) String() string  { return "vsock" }

func (vsockConn) LocalAddr() net.Addr  { return vsockAddr{} }
func (vsockConn) RemoteAddr() net.Addr { return vsockAddr{} }

// acceptVsock returns a dial function that waits for the host to connect to a
// port of the machine's. The port is opened once: it outlives the saving and
// restoring of the machine, which end connections.
func acceptVsock(port uint32) func(context.Context) (net.Conn, error) {
	var mu sync.Mutex
	var listener *os.File
	return func(ctx context.Context) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if listener == nil {
			var err error
			if listener, err = listenVsock(port); err != nil {
				return nil, err
			}
		}
		return acceptHost(ctx, listener)
	}
}

// listenVsock listens at a port of the machine's.
func listenVsock(port uint32) (*os.File, error) {
	const backlog = 4 // one connects at a time
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}), unix.Listen(fd, backlog)); err != nil {
		return nil, errors.Join(fmt.Errorf("vsock: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// acceptHost accepts a connection of the host's; others are ended.
func acceptHost(ctx context.Context, listener *os.File) (net.Conn, error) {
	if err := listener.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = listener.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := listener.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	for {
		var fd int
		var peer unix.Sockaddr
		var acceptErr error
		err := raw.Read(func(at uintptr) bool {
			fd, peer, acceptErr = unix.Accept4(int(at), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(acceptErr, unix.EAGAIN)
		})
		switch {
		case ctx.Err() != nil:
			if err == nil && acceptErr == nil {
				_ = unix.Close(fd)
			}
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, fmt.Errorf("vsock: %w", err)
		case errors.Is(acceptErr, unix.EINTR) || errors.Is(acceptErr, unix.ECONNABORTED):
			continue
		case acceptErr != nil:
			return nil, fmt.Errorf("vsock: %w", acceptErr)
		}
		if from, ok := peer.(*unix.SockaddrVM); ok && from.CID == hostCID {
			return vsockConn{os.NewFile(uintptr(fd), "vsock")}, nil
		}
		_ = unix.Close(fd)
	}
}
