//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Limits on a command that is run for the host.
const (
	maxRunArgs    = 64
	maxRunArg     = 64 << 10
	maxRunOutput  = 256 << 10 // each of standard output and standard error
	runTimeout    = time.Minute
	maxRunTimeout = 5 * time.Minute
	runStopGrace  = 2 * time.Second
)

// ErrRunRequest says that a command cannot be run as it was asked for.
var ErrRunRequest = errors.New("not a command that can be run")

// RunCommand runs one command as u, without a terminal, in a session of its own, and
// returns when it and everything that it started have ended: by themselves, at
// the request's time limit, or when ctx ends. Output beyond the limit is cut.
// A command that fails is no error; ErrRunRequest and a program that cannot be
// started are.
func RunCommand(ctx context.Context, u User, env []string, req guestapi.RunRequest) (guestapi.RunResult, error) {
	timeout := runTimeout
	if req.Timeout != "" {
		var err error
		if timeout, err = time.ParseDuration(req.Timeout); err != nil || timeout <= 0 || timeout > maxRunTimeout {
			return guestapi.RunResult{}, fmt.Errorf("%w: the time limit must be at most %v", ErrRunRequest, maxRunTimeout)
		}
	}
	if len(req.Argv) == 0 || len(req.Argv) > maxRunArgs || len(strings.Join(req.Argv, "")) > maxRunArg {
		return guestapi.RunResult{}, fmt.Errorf("%w: it must have 1 to %d arguments of %d bytes together", ErrRunRequest, maxRunArgs, maxRunArg)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r := &runner{}
	defer r.close()
	if err := r.start(u, env, req); err != nil {
		return guestapi.RunResult{}, err
	}
	var out guestapi.RunResult
	select {
	case <-r.proc.done:
	case <-ctx.Done():
		out.TimedOut = true
	}
	r.proc.stop(runStopGrace)
	r.finish()
	out.ExitCode = r.proc.exitCode()
	out.Stdout, out.Stderr = strings.ToValidUTF8(r.out.String(), "�"), strings.ToValidUTF8(r.err.String(), "�")
	return out, nil
}

// runner is a running command and its pipes.
type runner struct {
	proc     *process
	files    []*os.File // every end of every pipe
	out, err capped
	readers  sync.WaitGroup
}

func (r *runner) close() { closeAll(r.files) }

func (r *runner) start(u User, env []string, req guestapi.RunRequest) error {
	var ends [6]*os.File
	for i := 0; i < len(ends); i += 2 {
		rd, wr, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
		ends[i], ends[i+1] = rd, wr //nolint:gosec // i is even
		r.files = append(r.files, rd, wr)
	}
	var err error
	r.proc, err = startProcess(processSpec{user: u, argv: req.Argv, env: env, stdin: ends[0], stdout: ends[3], stderr: ends[5]})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRunRequest, err)
	}
	closeAll([]*os.File{ends[0], ends[3], ends[5]})
	r.readers.Go(func() {
		_, _ = io.WriteString(ends[1], req.Stdin)
		_ = ends[1].Close()
	})
	r.readers.Go(func() { _, _ = io.Copy(&r.out, ends[2]) })
	r.readers.Go(func() { _, _ = io.Copy(&r.err, ends[4]) })
	return nil
}

// finish waits until all output has been read. What got away from stop and
// still holds a pipe is not waited for long.
func (r *runner) finish() {
	ended := make(chan struct{})
	go func() { r.readers.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(runStopGrace):
	}
	r.close()
	<-ended
}

// capped keeps the first maxRunOutput bytes written to it and takes the rest.
type capped struct{ strings.Builder }

func (c *capped) Write(p []byte) (int, error) {
	if room := maxRunOutput - c.Len(); room > 0 {
		c.Builder.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}
