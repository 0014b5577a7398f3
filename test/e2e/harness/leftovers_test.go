package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// What a machine can leave is found, and removed by force.
func TestLeftovers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("mounting needs root")
	}
	state := filepath.Join(t.TempDir(), "state")
	if left := Leftovers(state, nil); len(left) != 0 {
		t.Fatalf("found %q before anything was there", left)
	}
	marker := filepath.Join(state, "gvisor", "machines", "m1")
	mount := filepath.Join(state, "mount")
	for _, dir := range []string{marker, mount, filepath.Join(state, "gvisor", "runsc")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sandbox := filepath.Join(state, "gvisor", "runsc", "m1_sandbox:m1.state")
	if err := os.WriteFile(sandbox, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=4096"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cat", "-", state+"/gvisor/runsc")
	in, err := cmd.StdinPipe() // it runs until this is closed
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()

	want := []string{
		fmt.Sprintf("process %d cat - %s/gvisor/runsc", cmd.Process.Pid, state),
		"file " + marker, "file " + sandbox, "mount " + mount,
	}
	if left := Leftovers(state, []string{"m1"}); !slices.Equal(left, want) {
		t.Errorf("found %q, want %q", left, want)
	}
	if left := MachineLeftovers(state, "m2"); len(left) != 0 {
		t.Errorf("of another machine: %q", left)
	}
	if err := sweep(state, nil); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	if left := Leftovers(state, nil); !slices.Equal(left, []string{"file " + marker, "file " + sandbox}) {
		t.Errorf("after the sweep there is %q", left)
	}
}

// A rig whose process has ended is swept; one that is alive is left alone.
func TestSweepAbandoned(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	alive, lock, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	dead, gone, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	if err := sweepAbandoned(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("a rig that is alive: %v", err)
	}
	if _, err := os.Stat(dead); !os.IsNotExist(err) {
		t.Errorf("a rig that is dead: %v", err)
	}
}
