package vault

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden keeps this process's memory out of core dumps and away from other
// processes of the same user (ptrace, /proc/PID/mem). Call it once, early in
// main; what was started before keeps what it has. Children get the core limit
// but are dumpable again once they exec. Beware that /proc/self then belongs
// to root: a program that runs as another user cannot open its own files there.
func Harden() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("vault: forbid core dumps: %w", err)
	}
	// A core_pattern that is a pipe ignores the limit, but not this.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("vault: forbid dumps: %w", err)
	}
	return nil
}
