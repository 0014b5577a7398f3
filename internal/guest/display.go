//go:build linux

package guest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

// The X server's screen before a viewer asks for another size. In a virtual
// machine, which may be emulated, every pixel that Chromium draws at its start
// takes its time, and there is nobody to see it.
const (
	defaultWidth  = 1280
	defaultHeight = 800
	virtualWidth  = 640
	virtualHeight = 400
)

// displayPrograms keeps the X server and the window manager up until ctx ends,
// and returns when both have ended. The X server listens on unix sockets only:
// X11 clients on the usual one, RFB (VNC) on vncSocket, reached by nothing but
// the agent.
func displayPrograms(ctx context.Context, virtual bool, env []string, logs io.Writer, logger *slog.Logger) {
	width, height := defaultWidth, defaultHeight
	if virtual {
		width, height = virtualWidth, virtualHeight
	}
	var all sync.WaitGroup
	all.Go(func() {
		supervise(ctx, logger, "Xvnc", func(ctx context.Context) error {
			_ = os.Remove("/tmp/.X0-lock")
			_ = os.Remove(vncSocket)
			return personCommand(ctx, env, logs, "/usr/bin/Xvnc", display,
				"-geometry", strconv.Itoa(width)+"x"+strconv.Itoa(height),
				"-depth", "24",
				"-rfbport", "-1", "-rfbunixpath", vncSocket, "-rfbunixmode", "0600",
				"-SecurityTypes", "None",
				"-AlwaysShared", "-AcceptSetDesktopSize=1",
				"-FrameRate", "60",
				"-MaxCutText", "262144",
				// What is only selected is not copied: it would take the place
				// of what the person is about to paste over it.
				"-SendPrimary=0", "-SetPrimary=0",
				"-IdleTimeout", "0",
				"-nolisten", "tcp", "-nolisten", "local",
				"-extension", "GLX",
				"-desktop", "Anteroom",
			).Run()
		})
	})
	all.Go(func() {
		supervise(ctx, logger, "openbox", func(ctx context.Context) error {
			if err := waitForSocket(ctx, "/tmp/.X11-unix/X0"); err != nil {
				return err
			}
			return personCommand(ctx, env, logs, "/usr/bin/openbox", "--config-file", "/etc/anteroom/openbox.xml", "--sm-disable").Run()
		})
	})
	all.Wait()
}

// waitForSocket returns once something accepts on the unix socket.
func waitForSocket(ctx context.Context, path string) error {
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", path, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}
