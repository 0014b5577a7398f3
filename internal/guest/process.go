//go:build linux

package guest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// scopeVar marks every process that a program of ours starts, so that those
// which leave its process group and session are found too when it is stopped.
const scopeVar = "ANTEROOM_SCOPE"

// killRounds limits how often the leftovers of a program are looked for, and
// killPause is how long a round waits for the killed to be gone. A program that
// forks faster than it is killed is left to the machine's end.
const (
	killRounds = 100
	killPause  = 5 * time.Millisecond
)

// processSpec says what to run. The files are given to the program and stay
// the caller's to close.
type processSpec struct {
	user                  User
	file                  string   // the program; if it is empty, argv[0] is looked up in the PATH of env
	argv                  []string // the program's name and arguments
	env                   []string
	stdin, stdout, stderr *os.File
	tty                   bool // stdin is a terminal and becomes the controlling one
}

// process is a program that runs as the person, in a session of its own.
type process struct {
	cmd   *exec.Cmd
	scope string
	done  chan struct{} // closed when the program itself has ended

	stopOnce sync.Once
}

func startProcess(spec processSpec) (*process, error) {
	file := spec.file
	if file == "" {
		var err error
		if file, err = lookPath(spec.env, spec.argv[0]); err != nil {
			return nil, err
		}
	}
	p := &process{scope: rand.Text(), done: make(chan struct{})}
	p.cmd = &exec.Cmd{
		Path:   file,
		Args:   spec.argv,
		Env:    withEnv(spec.env, map[string]string{scopeVar: p.scope, "HOME": spec.user.Home, "USER": spec.user.Name, "LOGNAME": spec.user.Name}),
		Dir:    spec.user.Home,
		Stdout: spec.stdout,
		Stderr: spec.stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Setctty:    spec.tty,
			Credential: spec.user.credential(),
		},
	}
	if spec.stdin != nil { // a nil *os.File in an interface is not nil
		p.cmd.Stdin = spec.stdin
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", spec.argv[0], err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // the state says how it ended
	}()
	return p, nil
}

// exitCode is the program's exit code, or 128 + the signal that ended it. It
// waits for the end.
func (p *process) exitCode() int {
	<-p.done
	if st, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && st.Signaled() {
		return 128 + int(st.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the program and everything that it started: SIGTERM to its group,
// SIGKILL to what is left after grace. It returns when all of it is gone.
// Idempotent; a second caller waits for the first.
func (p *process) stop(grace time.Duration) {
	p.stopOnce.Do(func() {
		pid := p.cmd.Process.Pid
		select {
		case <-p.done:
		default:
			_ = syscall.Kill(-pid, syscall.SIGTERM)
			timer := time.NewTimer(grace)
			defer timer.Stop()
			select {
			case <-p.done:
			case <-timer.C:
			}
		}
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-p.done
		for range killRounds {
			if !killScope(pid, p.scope) {
				return
			}
			<-time.After(killPause)
		}
	})
}

// killScope kills every process of the session or with the scope in its
// environment, and says whether there was any.
func killScope(session int, scope string) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false
	}
	mark := []byte(scopeVar + "=" + scope)
	found := false
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !belongs(e.Name(), session, mark) {
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
			found = true
		}
	}
	return found
}

// belongs says whether a live process is of the session or bears the mark.
func belongs(pid string, session int, mark []byte) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	// pid (name) state ppid pgrp session …; the name may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return false
	}
	if string(fields[3]) == strconv.Itoa(session) {
		return true
	}
	env, err := os.ReadFile(filepath.Join("/proc", pid, "environ"))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, mark) {
			return true
		}
	}
	return false
}
