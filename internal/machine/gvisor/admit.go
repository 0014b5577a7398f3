//go:build linux

package gvisor

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
)

// admit refuses another machine while the host is short of memory or disk: one
// that is killed half-way costs more than one that is not started.
func (d *Driver) admit() error {
	free, err := machine.AvailableMemory()
	if err != nil {
		return err
	}
	if free < d.cfg.MinFreeMemory {
		return fmt.Errorf("%w: %d MiB are available, %d MiB must be", machine.ErrNoMemory, free>>20, d.cfg.MinFreeMemory>>20)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(d.cfg.StateDir, &fs); err != nil {
		return fmt.Errorf("statfs: %w", err)
	}
	if room := int64(fs.Bavail) * fs.Bsize; room < d.cfg.MinFreeDisk { //nolint:gosec // a number of blocks
		return fmt.Errorf("%w: %d MiB are free, %d MiB must be", machine.ErrDiskFull, room>>20, d.cfg.MinFreeDisk>>20)
	}
	return nil
}
