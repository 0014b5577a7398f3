//go:build linux

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/anteroom/anteroom/internal/machine"
)

func TestManifest(t *testing.T) {
	dir := t.TempDir()
	if err := verifyManifest(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	files := map[string]string{"checkpoint.img": "state", "pages.img": "memory"}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(name, content)
	}
	if err := writeManifest(dir); err != nil {
		t.Fatal(err)
	}
	if err := verifyManifest(dir); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
	for name, content := range files {
		for _, bad := range []string{"", content[1:], strings.ToUpper(content)} {
			write(name, bad)
			if err := verifyManifest(dir); !errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is %q: %v", name, bad, err)
			}
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := verifyManifest(dir); !errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is missing: %v", name, err)
		}
		write(name, content)
	}
	write(manifestFile, `{"pages.img"`)
	if err := verifyManifest(dir); !errors.Is(err, errDamaged) {
		t.Errorf("half a manifest: %v", err)
	}
}

func TestWaitProcess(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	start, err := startTime(pid)
	if err != nil || !running(pid, start) {
		t.Fatalf("process %d is said not to run: %v", pid, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := waitProcess(ended, pid, start); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	for name, other := range map[string]ref{
		"a number used again": {pid, start + 1}, "no number": {0, start}, "a negative one": {-1, start}, "one that no process has": {1 << 30, 0},
	} {
		if err := waitProcess(t.Context(), other.PID, other.StartTime); err != nil || running(other.PID, other.StartTime) {
			t.Errorf("%s: %v", name, err)
		}
	}
	waited := make(chan error)
	go func() { waited <- waitProcess(t.Context(), pid, start) }()
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Error(err)
	}
	// Not waited for yet, it is a zombie: that does not run either.
	if running(pid, start) {
		t.Error("a process that has ended is said to run")
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	const file = "/state/machines/abcdefgh/runsc.log"
	for args, want := range map[string]bool{
		"runsc --root /state/runsc --log " + file + " run abcdefgh":          true,
		"runsc-sandbox --root=/state/runsc --log=" + file + " boot abcdefgh": true,
		"runsc --log=" + file + "x run":                                      false,
		"tail -f " + file:                                                    false,
		file:                                                                 false,
		"":                                                                   false,
	} {
		var split [][]byte
		for a := range strings.FieldsSeq(args) {
			split = append(split, []byte(a))
		}
		if names(split, file) != want {
			t.Errorf("%q: %v, want %v", args, !want, want)
		}
	}
}

func TestClassify(t *testing.T) {
	for _, test := range []struct{ err, want error }{
		{fmt.Errorf("writing: %w", syscall.ENOSPC), machine.ErrDiskFull},
		{errors.New("runsc run: exit status 128: write /x: no space left on device"), machine.ErrDiskFull},
		{fmt.Errorf("fork: %w", syscall.ENOMEM), machine.ErrNoMemory},
		{errors.New("runsc run: fork/exec: cannot allocate memory"), machine.ErrNoMemory},
	} {
		got := classify(test.err)
		if !errors.Is(got, test.want) || !errors.Is(got, test.err) {
			t.Errorf("%v becomes %v", test.err, got)
		}
	}
	other := errors.New("something else")
	if got := classify(other); errors.Is(got, machine.ErrDiskFull) || errors.Is(got, machine.ErrNoMemory) || !errors.Is(got, other) {
		t.Errorf("something else becomes %v", got)
	}
}

func TestLastError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runsc.log")
	if got := lastError(file, " on stderr\n"); got != "on stderr" {
		t.Errorf("without a log: %q", got)
	}
	log := `{"level":"info","msg":"begin"}` + "\n" + `{"level":"error","msg":"first"}` + "\n" + `{"level":"fatal","msg":"last"}` + "\n" + `{"level":"info","msg":"end"}` + "\n{cut"
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastError(file, "on stderr"); got != "last" {
		t.Errorf("%q", got)
	}
}
