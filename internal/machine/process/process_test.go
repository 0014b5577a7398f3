//go:build linux

package process

import (
	"context"
	"errors"
	"os/exec"
	"testing"
)

func TestWait(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	start, err := StartTime(pid)
	if err != nil || !Running(pid, start) {
		t.Fatalf("process %d is said not to run: %v", pid, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Wait(ended, pid, start); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	for name, other := range map[string]struct {
		PID       int
		StartTime uint64
	}{
		"a number used again": {pid, start + 1}, "no number": {0, start}, "a negative one": {-1, start}, "one that no process has": {1 << 30, 0},
	} {
		if err := Wait(t.Context(), other.PID, other.StartTime); err != nil || Running(other.PID, other.StartTime) {
			t.Errorf("%s: %v", name, err)
		}
	}
	waited := make(chan error)
	go func() { waited <- Wait(t.Context(), pid, start) }()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	// Not waited for yet, it is a zombie: that does not run either.
	if Running(pid, start) {
		t.Error("a process that has ended is said to run")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
