//go:build linux

package guest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// The agent is root and works in directories that belong to a person who may
// not be: whatever lies there may be a trap. So paths are walked one component
// at a time without following any symbolic link, and only plain files of the
// person's own are read. (openat2 with RESOLVE_NO_SYMLINKS would say the same
// in one call, but gVisor has none.)

// errNotPlain says that something on the way is not what it must be: a
// symbolic link, not a directory, not a regular file, or somebody else's.
var errNotPlain = errors.New("not a plain file of the person's")

// openPlain opens what is there itself, for reading. There is no O_DIRECTORY
// in it, because with that gVisor follows a symbolic link in spite of
// O_NOFOLLOW; and O_NONBLOCK, because a FIFO would hold us for ever.
const openPlain = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_CLOEXEC

// openDir opens the directory rel ("." for root itself) below root. If owner is
// not nil, missing directories are made, 0700 and owned by it. The caller
// closes the file.
func openDir(root, rel string, owner *User) (*os.File, error) {
	fd, err := unix.Open(root, openPlain, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	dir, err := onlyDir(fd, root)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", root, err)
	}
	if rel == "." {
		return dir, nil
	}
	for name := range strings.SplitSeq(rel, "/") {
		next, err := stepInto(dir, name, owner)
		_ = dir.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", rel, err)
		}
		dir = next
	}
	return dir, nil
}

func stepInto(dir *os.File, name string, owner *User) (*os.File, error) {
	if name == "" || name == "." || name == ".." {
		return nil, errNotPlain
	}
	fd, err := unix.Openat(int(dir.Fd()), name, openPlain, 0)
	if made := false; errors.Is(err, unix.ENOENT) && owner != nil {
		if err = unix.Mkdirat(int(dir.Fd()), name, 0o700); err == nil {
			made = true
		} else if !errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		if fd, err = unix.Openat(int(dir.Fd()), name, openPlain, 0); err == nil && made {
			if err = unix.Fchown(fd, owner.UID, owner.GID); err != nil {
				_ = unix.Close(fd)
				return nil, err
			}
		}
	}
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, errNotPlain
	}
	if err != nil {
		return nil, err
	}
	return onlyDir(fd, path.Join(dir.Name(), name))
}

// onlyDir makes a file of fd if it is a directory, and closes it if not.
func onlyDir(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err = errNotPlain
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readFile reads the regular file rel below root, at most limit bytes, if it
// belongs to u. A file that is larger is errNotPlain.
func readFile(root, rel string, u User, limit int64) ([]byte, error) {
	if path.Clean(rel) != rel { // path.Dir would take a step up for us
		return nil, fmt.Errorf("%s: %w", rel, errNotPlain)
	}
	dir, err := openDir(root, path.Dir(rel), nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	return readAt(dir, path.Base(rel), u, limit)
}

// readAt is readFile for a name in an open directory.
func readAt(dir *os.File, name string, u User, limit int64) ([]byte, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, openPlain, 0)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, fmt.Errorf("%s: %w", name, errNotPlain)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	// A second name (a hard link) could be one of a file that is not the person's
	// to show; the owner says whose it is.
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int(st.Uid) != u.UID || st.Size > limit {
		return nil, fmt.Errorf("%s: %w", name, errNotPlain)
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s: %w", name, errNotPlain)
	}
	return content, nil
}

// writeAt puts content into the file name of an open directory, with mode and
// owned by u, so that a reader sees the old file or the new one and a power
// cut leaves one of them: a temporary file beside it, synced, renamed over it,
// the directory synced. Whatever was there under that name, also a symbolic
// link, is replaced. The temporary file's name begins with name.
func writeAt(dir *os.File, name string, content []byte, mode os.FileMode, u User) (err error) {
	temp := name + ".tmp-" + rand.Text()
	fd, err := unix.Openat(int(dir.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), temp)
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(int(dir.Fd()), temp, 0)
		}
	}()
	err = errors.Join(fill(f, content, mode, u), f.Close())
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), temp, int(dir.Fd()), name)
	}
	if err == nil {
		err = dir.Sync()
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func fill(f *os.File, content []byte, mode os.FileMode, u User) error {
	if err := f.Chown(u.UID, u.GID); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}
