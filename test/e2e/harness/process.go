package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ErrMissed says that a state had passed before the server could be killed in it.
var ErrMissed = errors.New("harness: the state was missed")

// startTime limits a server's start, the snapshot included.
const startTime = 3 * time.Minute

// process is a running `anteroom serve`.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed once it was waited for
	err   error         // what Wait said; after ended
}

// Restart starts the server again on the same address and state directory, with
// more flags if they are given, and returns once it answers. It must not be
// running.
func (r *Rig) Restart(ctx context.Context, flags ...string) error {
	args := append([]string{
		"serve", "--listen", r.address, "--state", r.StateDir(), "--upstreams-file", r.upstreamFile(), "--ca-files", r.caFile(),
		"--image-dir", r.cfg.ImageDir, "--guest", filepath.Join(r.cfg.Bin, "anteroom-guest"), "--runsc", filepath.Join(r.cfg.Bin, "runsc"),
		"--driver", r.cfg.Driver, "--user", "", "--log-level", "debug", "--warm-machines", "0",
	}, slices.Concat(r.cfg.Flags, flags)...)
	if len(r.cfg.Upstreams) == 0 {
		args = append(args, "--shared-upstream")
	}
	cmd := exec.Command(filepath.Join(r.cfg.Bin, "anteroom"), args...)
	cmd.Env = cleanEnv()
	cmd.Stderr = r.log
	if r.cfg.Log != nil {
		cmd.Stderr = io.MultiWriter(r.log, r.cfg.Log)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	start := r.cfg.Start
	if start == nil {
		start = (*exec.Cmd).Start
	}
	if err := start(cmd); err != nil {
		return fmt.Errorf("harness: start the server: %w", err)
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	r.server = p
	ready := make(chan struct{})
	go func() {
		defer close(p.ended)
		lines := bufio.NewScanner(out)
		for said := false; lines.Scan(); {
			if !said && strings.HasPrefix(lines.Text(), "Anteroom is ready at ") {
				said = true
				close(ready)
			}
		}
		p.err = cmd.Wait()
	}()
	late := time.NewTimer(r.cfg.StartTime)
	defer late.Stop()
	select {
	case <-ready:
		return nil
	case <-p.ended:
		r.server = nil
		return fmt.Errorf("harness: the server ended at its start: %w\n%s", p.err, r.LogTail(20))
	case <-late.C:
		err = errors.New("it took too long")
	case <-ctx.Done():
		err = ctx.Err()
	}
	return errors.Join(fmt.Errorf("harness: the server's start: %w\n%s", err, r.LogTail(20)), r.Kill())
}

// cleanEnv is this process's environment without Anteroom's settings.
func cleanEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "ANTEROOM_") {
			env = append(env, e)
		}
	}
	return env
}

// PID is the server's process number.
func (r *Rig) PID() int { return r.server.cmd.Process.Pid }

// Kill ends the server with SIGKILL and returns when it is gone.
func (r *Rig) Kill() error {
	p := r.server
	if p == nil {
		return errors.New("harness: the server is not running")
	}
	r.server = nil
	err := p.cmd.Process.Kill()
	<-p.ended
	if err != nil {
		return fmt.Errorf("harness: kill the server: %w", err)
	}
	return nil
}

// Stop ends the server with SIGTERM. An exit code other than 0 is an error.
func (r *Rig) Stop(ctx context.Context) error {
	p := r.server
	if p == nil {
		return errors.New("harness: the server is not running")
	}
	r.server = nil
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("harness: stop the server: %w", err)
	}
	select {
	case <-p.ended:
		if p.err != nil {
			return fmt.Errorf("harness: the server's end: %w\n%s", p.err, r.LogTail(20))
		}
		return nil
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.ended
		return fmt.Errorf("harness: the server did not stop: %w\n%s", ctx.Err(), r.LogTail(20))
	}
}

// Freeze holds the server still (SIGSTOP) and returns when all of its threads
// have stopped; Thaw lets it go on. Between the two it can be looked at, or
// killed, without anything moving.
func (r *Rig) Freeze() error {
	pid := r.PID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("harness: freeze the server: %w", err)
	}
	for {
		state, err := threadStates(pid)
		if err != nil {
			return err
		}
		if strings.Trim(state, "T") == "" {
			return nil
		}
	}
}

// Thaw lets a frozen server go on.
func (r *Rig) Thaw() error {
	if err := syscall.Kill(r.PID(), syscall.SIGCONT); err != nil {
		return fmt.Errorf("harness: thaw the server: %w", err)
	}
	return nil
}

// threadStates is one letter for each thread of a process.
func threadStates(pid int) (string, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(files) == 0 {
		return "", fmt.Errorf("harness: process %d is gone", pid)
	}
	var states strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // that thread has just ended
		}
		_, after, _ := strings.Cut(string(b), ") ")
		if len(after) > 0 {
			states.WriteByte(after[0])
		}
	}
	return states.String(), nil
}

// LogTail is the end of the server's log.
func (r *Rig) LogTail(lines int) string {
	b, err := os.ReadFile(r.LogFile())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// dataRaces is an error with the first report of the race detector in a log, if
// there is one.
func dataRaces(log string) error {
	b, err := os.ReadFile(log)
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	const begins, ends = "WARNING: DATA RACE", "=================="
	_, report, found := strings.Cut(string(b), begins)
	if !found {
		return nil
	}
	report, _, _ = strings.Cut(report, ends)
	return fmt.Errorf("harness: %d data races in the server (%s), the first:%s", strings.Count(string(b), begins), log, report)
}

// Command runs one of the commands of anteroom on the rig's state directory,
// and returns what it printed on standard output, also if it fails.
func (r *Rig) Command(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "anteroom"), append(args, "--state", r.StateDir())...)
	cmd.Env = cleanEnv()
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("harness: anteroom %s: %w: %s", strings.Join(args, " "), err, errs.String())
	}
	return strings.TrimSpace(string(out)), err
}
