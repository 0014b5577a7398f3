//go:build linux

package firecracker

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// A jail is a file system in memory, of a fixed size, with the files that the
// machine needs mounted into it. So what Firecracker or the guest's console
// write is bounded by the kernel; nothing depends on which file system the
// state directory is on; and all of it goes with one unmount.
const (
	// jailRoom is what a jail has room for beside Firecracker's program, a copy
	// of which the jailer puts into each: sockets, and the console's log, which
	// gets nothing more once it is full.
	jailRoom   = 1 << 20
	jailInodes = 256
)

// bind is a file or directory of the host that a jail shows at a path.
type bind struct {
	from, to string
	writable bool
}

// mountJail makes a machine's jail at base: a file system with room for the
// program and what root holds.
func mountJail(base, root string, programSize int64, binds []bind) error {
	if err := os.Mkdir(base, 0o700); err != nil {
		return err
	}
	// In whole pages, and some for the directories.
	options := fmt.Sprintf("size=%d,nr_inodes=%d,mode=0700", programSize+jailRoom, jailInodes)
	// Programs and devices are in it: the jailer makes them.
	if err := unix.Mount("anteroom", base, "tmpfs", unix.MS_NOSUID, options); err != nil {
		return fmt.Errorf("mounting the jail: %w", err)
	}
	// What is mounted later is seen in jails that are made later, and nowhere else.
	if err := unix.Mount("", base, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounting the jail: %w", err)
	}
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	for _, b := range binds {
		if err := mountBind(b.from, filepath.Join(root, b.to), b.writable); err != nil {
			return fmt.Errorf("%s in the jail: %w", b.from, err)
		}
	}
	return nil
}

func mountBind(from, to string, writable bool) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o711); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.Mkdir(to, 0o700)
	} else {
		err = os.WriteFile(to, nil, 0o400)
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if !writable {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount("", to, "", flags, "")
}

// unmountJail removes all mounts at or below a directory. Idempotent. What was
// running in them must have ended.
func unmountJail(base string) error {
	mounts, err := mountsBelow(base)
	if err != nil {
		return err
	}
	// The last one is on top.
	for i := len(mounts) - 1; i >= 0; i-- {
		err := unix.Unmount(mounts[i], unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", mounts[i], err)
		}
	}
	return nil
}

// mountsBelow are the mount points at or below a directory, in the order in
// which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	dir, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	// As the kernel writes what would end a field.
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	var found []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 {
			continue
		}
		at := unescape.Replace(fields[4])
		if at == dir || strings.HasPrefix(at, dir+"/") {
			found = append(found, at)
		}
	}
	return found, lines.Err()
}
