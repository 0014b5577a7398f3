//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
)

const (
	// answerTime is how long Firecracker may take to answer the first CONNECT.
	// Just after a restore the guest may not have seen yet that its old
	// connections are gone; a request that happens to get the port of one of
	// those is never answered (firecracker pull request 5688), and the next one
	// gets another port.
	answerTime = time.Second
	// slower is by how much the next one may take longer, up to answerSlowest
	// times: on a host that is very busy an answer may only be late.
	slower        = 2
	answerSlowest = 16
	// dialAgain is the time between two tries.
	dialAgain = 20 * time.Millisecond
	// maxAnswer is the longest answer to a CONNECT: "OK 4294967295\n".
	maxAnswer = 14
)

var errNoGuest = errors.New("nobody in the guest answers at its port")

// dialGuest connects to a port of the guest through Firecracker's socket, which
// dial connects to. It tries until ctx ends: a guest that boots, or has just
// been restored, does not listen at once. The first try takes at most patience;
// each that was not answered lets the next one take longer.
func dialGuest(ctx context.Context, dial func(context.Context) (net.Conn, error), port int, patience time.Duration) (net.Conn, error) {
	for most := patience * answerSlowest; ; {
		conn, err := dial(ctx)
		if err == nil {
			if err = connectGuest(ctx, conn, port, patience); err == nil {
				return conn, nil
			}
			_ = conn.Close()
		}
		switch {
		case errors.Is(err, machine.ErrGone):
			return nil, err
		case errors.Is(err, os.ErrDeadlineExceeded):
			patience = min(patience*slower, most)
		}
		timer := time.NewTimer(dialAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
	}
}

// connectGuest asks Firecracker, over a new connection to its socket, to connect
// it to a port of the guest: "CONNECT 1024\n", answered by "OK 1073741824\n",
// where the number is the port that the host's end got, or by the connection's
// end. Everything after that is the guest's.
func connectGuest(ctx context.Context, conn net.Conn, port int, patience time.Duration) error {
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := fmt.Fprintf(conn, "CONNECT %d\n", port); err != nil {
		return err
	}
	if err := readOK(conn); err != nil {
		return err
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return conn.SetDeadline(time.Time{})
}

// readOK reads the answer to a CONNECT, and not a byte more.
func readOK(r io.Reader) error {
	line := make([]byte, 0, maxAnswer)
	for len(line) < maxAnswer {
		b := line[len(line) : len(line)+1]
		if _, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) && len(line) == 0 {
				return errNoGuest
			}
			return err
		}
		line = line[:len(line)+1]
		if b[0] == '\n' {
			break
		}
	}
	number, ok := strings.CutPrefix(string(line), "OK ")
	number, ended := strings.CutSuffix(number, "\n")
	if !ok || !ended || number == "" || strings.Trim(number, "0123456789") != "" {
		return fmt.Errorf("firecracker answers a CONNECT with %q", line)
	}
	return nil
}
