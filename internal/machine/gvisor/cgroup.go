//go:build linux

package gvisor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroupPath is a machine's cgroup below the root of each hierarchy.
func cgroupPath(id string) string { return "/anteroom/" + id }

// cgroupRetry is the time between two tries to remove a cgroup whose last
// process is just ending.
const cgroupRetry = 10 * time.Millisecond

// removeCgroups removes what cgroups there are of a machine whose processes
// have ended: one in the unified hierarchy, or one for each controller.
func removeCgroups(ctx context.Context, id string) error {
	for _, pattern := range []string{cgroupRoot + cgroupPath(id), cgroupRoot + "/*" + cgroupPath(id)} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := removeCgroup(ctx, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func removeCgroup(ctx context.Context, dir string) error {
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(cgroupRetry):
		}
	}
}
