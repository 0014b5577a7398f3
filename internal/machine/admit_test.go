//go:build linux

package machine

import (
	"errors"
	"fmt"
	"syscall"
	"testing"
)

func TestClassify(t *testing.T) {
	for _, test := range []struct{ err, want error }{
		{fmt.Errorf("writing: %w", syscall.ENOSPC), ErrDiskFull},
		{errors.New("runsc run: exit status 128: write /x: no space left on device"), ErrDiskFull},
		{fmt.Errorf("fork: %w", syscall.ENOMEM), ErrNoMemory},
		{errors.New("runsc run: fork/exec: cannot allocate memory"), ErrNoMemory},
	} {
		got := Classify(test.err)
		if !errors.Is(got, test.want) || !errors.Is(got, test.err) {
			t.Errorf("%v becomes %v", test.err, got)
		}
	}
	other := errors.New("something else")
	if got := Classify(other); errors.Is(got, ErrDiskFull) || errors.Is(got, ErrNoMemory) || !errors.Is(got, other) {
		t.Errorf("something else becomes %v", got)
	}
}
