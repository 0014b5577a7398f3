//go:build linux

package guest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestReach(t *testing.T) {
	for address, virtual := range map[string]bool{"unix:/run/line": false, "virtio:anteroom.line": true, "vsock:7411": true, "vsock-listen:1024": true} {
		if dial, got, err := Reach(address); err != nil || dial == nil || got != virtual {
			t.Errorf("%s: virtual is %v, %v", address, got, err)
		}
	}
	for _, address := range []string{"", "unix:", "vsock:", "vsock:x", "vsock-listen:-1", "vsock-listen:4294967296", "tcp:80", "/run/line"} {
		if _, _, err := Reach(address); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
}

// A wait for the host ends with its context, and the port stays open.
func TestAcceptVsock(t *testing.T) {
	dial := acceptVsock(20_000 + uint32(time.Now().UnixNano()%10_000)) //nolint:gosec // a port
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := dial(ctx)
		cancel()
		if errors.Is(err, unix.EAFNOSUPPORT) {
			t.Skip("SKIPPED: THIS COMPUTER'S KERNEL HAS NO VSOCK: waiting at a vsock port is not tested")
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

// Who is not the host is not listened to.
func TestAcceptHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := acceptHost(ctx, file)
		ended <- err
	}()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("somebody else was answered with %d bytes", n)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func TestReachNobody(t *testing.T) {
	dial, _, err := Reach("virtio:no.such.port")
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := dial(t.Context()); err == nil {
		_ = conn.Close()
		t.Error("a port that is not there")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if dial, _, err = Reach("vsock:7411"); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(ended); err == nil {
		t.Error("it dials with a context that has ended")
	}
}
