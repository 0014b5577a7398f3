//go:build linux

package machine

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Admit refuses another machine while the host is short of memory, or of room on
// the disk of dir: one that is killed half-way costs more than one that is not
// started. The errors are ErrNoMemory and ErrDiskFull; the limits are bytes.
func Admit(dir string, minMemory, minDisk int64) error {
	free, err := AvailableMemory()
	if err != nil {
		return err
	}
	if free < minMemory {
		return fmt.Errorf("%w: %d MiB are available, %d MiB must be", ErrNoMemory, free>>20, minMemory>>20)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if room := int64(fs.Bavail) * fs.Bsize; room < minDisk { //nolint:gosec // a number of blocks
		return fmt.Errorf("%w: %d MiB are free, %d MiB must be", ErrDiskFull, room>>20, minDisk>>20)
	}
	return nil
}

// Classify turns what the kernel says of a full disk or memory into the
// errors that callers tell apart.
func Classify(err error) error {
	text := err.Error()
	switch {
	case errors.Is(err, syscall.ENOSPC) || strings.Contains(text, "no space left on device"):
		return fmt.Errorf("%w: %w", ErrDiskFull, err)
	case errors.Is(err, syscall.ENOMEM) || strings.Contains(text, "cannot allocate memory"):
		return fmt.Errorf("%w: %w", ErrNoMemory, err)
	}
	return err
}
