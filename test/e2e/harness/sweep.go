package harness

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// dirPattern is how the rigs' directories are named.
const dirPattern = "anteroom-e2e-*"

// lockName is the file whose lock says that a rig is alive.
const lockName = "lock"

// newDir makes a rig's directory, locked for as long as the file is open.
func newDir() (dir string, lock *os.File, err error) {
	if dir, err = os.MkdirTemp("", strings.TrimSuffix(dirPattern, "*")); err != nil {
		return "", nil, fmt.Errorf("harness: %w", err)
	}
	lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return "", nil, fmt.Errorf("harness: lock: %w", err)
	}
	return dir, lock, nil
}

// sweepAbandoned removes what rigs have left whose process was ended before it
// could clean up, as by a test's time limit.
func sweepAbandoned() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPattern))
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	for _, dir := range dirs {
		lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue // just being made
		}
		if err != nil {
			return fmt.Errorf("harness: %w", err)
		}
		if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			if err = sweep(filepath.Join(dir, stateName), nil); err == nil {
				err = os.RemoveAll(dir)
			}
		}
		if err := errors.Join(err, lock.Close()); err != nil {
			return fmt.Errorf("harness: clear away %s: %w", dir, err)
		}
	}
	return nil
}

// sweep removes by force what machines and servers of a state directory have
// left on the host.
func sweep(stateDir string, ids []string) error {
	for pid, args := range commandLines() {
		if !strings.Contains(args+" ", stateDir+" ") && !strings.Contains(args, stateDir+"/") {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("harness: kill %d: %w", pid, err)
		}
	}
	for _, m := range append(mountsBelow(stateDir), stateDir) {
		if err := unix.Unmount(strings.TrimPrefix(m, "mount "), unix.MNT_DETACH); err != nil && m != stateDir {
			return fmt.Errorf("harness: un%s: %w", m, err)
		}
	}
	return filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains(ids, d.Name()) {
			_ = os.Remove(path)
		}
		return nil
	})
}

// mountSmall makes dir a file system of its own, in memory.
func mountSmall(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=0700,size=%d", size)); err != nil {
		return fmt.Errorf("harness: mount a small disk: %w", err)
	}
	return nil
}

func unmountSmall(dir string) error {
	if err := unix.Unmount(dir, 0); err != nil {
		return fmt.Errorf("harness: unmount the small disk: %w", err)
	}
	return nil
}
