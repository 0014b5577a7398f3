package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/test/network"
)

// egressProxyCommand has this program be the path from a machine's programs to
// the internet, without the machine: the agent's port, some lines as of several
// machines, and the egress behind them.
const egressProxyCommand = "egress-proxy"

// proxyLines is of how many machines the connections are: each may have 256.
const proxyLines = 8

func egressProxy(addr string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p, err := egress.New(egress.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	direct, err := egress.ParseUpstream(egress.Direct)
	if err != nil {
		return err
	}
	p.Open("bench", direct[0])
	var group errgroup.Group
	guests := make([]*line.Line, proxyLines)
	for i := range guests {
		var host *line.Line
		if host, guests[i], err = linePair(); err != nil {
			return err
		}
		group.Go(func() error {
			return p.Serve(ctx, egress.Identity{UserID: "bench", MachineID: fmt.Sprint("machine", i)}, host)
		})
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	var next atomic.Int64
	for {
		conn, err := l.Accept()
		if err != nil {
			return errors.Join(p.Close(), group.Wait())
		}
		guest := guests[next.Add(1)%proxyLines]
		go func() {
			stream, err := guest.Dial(ctx)
			if err != nil {
				_ = conn.Close()
				return
			}
			network.Join(conn, stream)
		}()
	}
}

// linePair is a line over a unix socket, as gVisor's machines have it.
func linePair() (host, guest *line.Line, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), filepath.Join("line", fmt.Sprint(i))) //nolint:gosec // a descriptor
		conns[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			return nil, nil, err
		}
	}
	if host, err = line.Host(conns[0]); err != nil {
		return nil, nil, err
	}
	guest, err = line.Guest(conns[1])
	return host, guest, err
}
