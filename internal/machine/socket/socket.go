//go:build linux

// Package socket listens at and dials unix sockets in directories whose paths
// may be longer than the 107 bytes that a socket's path can have.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
)

// Listen listens at the socket name in dir, for root only, in the place of one
// that an earlier process has left. The socket stays when the listener is closed.
func Listen(dir, name string) (*net.UnixListener, error) {
	var l *net.UnixListener
	err := short(dir, name, func(path string) error {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		var err error
		if l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}); err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		if err := os.Chmod(path, 0o600); err != nil {
			return errors.Join(err, l.Close())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Dial connects to the socket name in dir.
func Dial(ctx context.Context, dir, name string) (net.Conn, error) {
	var conn net.Conn
	err := short(dir, name, func(path string) error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	})
	return conn, err
}

// short calls use with a short path of a file in dir, by dir's descriptor.
func short(dir, name string, use func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return use(fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
}
