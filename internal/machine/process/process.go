//go:build linux

// Package process tells processes apart by number and start time, so that one
// that has got the number of another is not taken for it, waits for them and
// kills them.
package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// StartTime is when the process began, in clock ticks since boot: with its
// number, its identity. A number that was used again has another.
// os.ErrProcessDone says that it has ended and was not waited for yet.
func StartTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name in parentheses may hold anything; what follows it is fixed.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	if fields[0] == "Z" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Running says whether the process with this number and start time runs.
func Running(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	now, err := StartTime(pid)
	return err == nil && now == start
}

// Wait returns nil once the process with this number and start time no
// longer runs, at once if another has its number.
func Wait(ctx context.Context, pid int, start uint64) error {
	if pid <= 0 {
		return nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("pidfd of %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	// Only now: a process whose descriptor we hold cannot be replaced.
	if !Running(pid, start) {
		return nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	defer func() {
		if !stop() {
			<-woken
		}
		_ = unix.Close(wake)
	}()
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// maxKillRounds is how often Kill looks for more processes: one that is being
// killed may just have started another.
const maxKillRounds = 10

// Kill ends every process whose arguments match says are those of one to be
// killed, and returns once there is none left.
func Kill(ctx context.Context, match func(args [][]byte) bool) error {
	return KillAll(ctx, func(pid int) bool { return match(Arguments(pid)) })
}

// KillOnce is one round of Kill; found says that there was something to kill.
func KillOnce(ctx context.Context, match func(args [][]byte) bool) (found bool, err error) {
	return KillAllOnce(ctx, func(pid int) bool { return match(Arguments(pid)) })
}

// KillAll is Kill for processes that are known by more than their arguments.
// match is asked twice for each: the second time while its number cannot come to
// mean another process.
func KillAll(ctx context.Context, match func(pid int) bool) error {
	for range maxKillRounds {
		found, err := KillAllOnce(ctx, match)
		if err != nil || !found {
			return err
		}
	}
	return errors.New("processes that were killed come again and again")
}

// KillAllOnce is one round of KillAll; found says that there was something to
// kill.
func KillAllOnce(ctx context.Context, match func(pid int) bool) (found bool, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !match(pid) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has just ended
		}
		// Looked at again through a descriptor that can't come to mean another.
		if match(pid) {
			found = true
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			err = pollEnd(ctx, fd)
		}
		_ = unix.Close(fd)
		if err != nil {
			return found, fmt.Errorf("process %d does not end: %w", pid, err)
		}
	}
	return found, nil
}

// pollEnd waits until the process behind a descriptor has ended.
func pollEnd(ctx context.Context, fd int) error {
	const step = 100 // ms
	for ctx.Err() == nil {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // descriptors are small
		n, err := unix.Poll(fds, step)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return ctx.Err()
}

// Arguments are a process's command line; none if it cannot be read.
func Arguments(pid int) [][]byte {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		return nil
	}
	return bytes.Split(b, []byte{0})
}
