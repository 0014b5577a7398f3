//go:build linux

package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// nullNetNS is where runsc keeps, mounted, the empty network namespace that its
// helper processes share. It stays when the last machine has gone.
const nullNetNS = "null-netns"

// Close lets go of what the driver holds. Machines run on; where there are
// none, the mount that runsc leaves behind is removed too, so that the state
// directory can be. No other method may be called meanwhile or afterwards.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for id, l := range d.listeners {
		errs = append(errs, l.Close())
		delete(d.listeners, id)
	}
	ids, err := d.List(context.Background())
	if err != nil || len(ids) > 0 {
		return errors.Join(append(errs, err)...)
	}
	path := filepath.Join(d.runscRoot(), nullNetNS)
	// Two runsc that start at once may each mount one.
	for err == nil {
		err = unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		errs = append(errs, fmt.Errorf("gvisor: unmounting %s: %w", path, err))
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("gvisor: %w", err))
	}
	return errors.Join(errs...)
}
