package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// readKeys reads the root key file after checking, on the descriptor, that
// nobody else can have read or written it.
func readKeys(path string) (keyring, error) {
	// O_NONBLOCK: a FIFO in the file's place must not hold the server up.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s does not exist; put it back from your copy, or, if nothing was ever sealed here, let a first run make one", ErrNoKey, path)
	case errors.Is(err, unix.ELOOP):
		return nil, fmt.Errorf("%w: %s is a symbolic link; name the file itself", ErrKeyFile, path)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}
	if err := checkStat(path, &st, os.Geteuid()); err != nil {
		return nil, err
	}
	text := make([]byte, maxKeyFileBytes+1)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s: %w", ErrKeyFile, path, err)
	}
	keys, err := parseKeys(text[:n])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

func checkStat(path string, st *unix.Stat_t, uid int) error {
	perm := st.Mode & 0o7777
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return fmt.Errorf("%w: %s is not a regular file", ErrKeyFile, path)
	case int(st.Uid) != uid:
		return fmt.Errorf("%w: %s belongs to user %d, but this program runs as user %d; chown it", ErrKeyFile, path, st.Uid, uid)
	case perm&^0o400 != 0:
		return fmt.Errorf("%w: %s has mode %04o; only its owner may read it, and nobody write it: chmod 0400 %s, and if others could read it, rotate the key", ErrKeyFile, path, perm, path)
	case st.Size == 0 || st.Size > maxKeyFileBytes:
		return fmt.Errorf("%w: %s has %d bytes, 1 to %d are possible", ErrKeyFile, path, st.Size, maxKeyFileBytes)
	}
	return nil
}

// createKeys makes the file with one fresh key, unless there is one: an
// existing file is never replaced. Two processes may try at once.
func createKeys(path string) error {
	unlock, err := lock(path, true)
	if err != nil {
		return err
	}
	defer unlock()
	keys := keyring{newRootKey(time.Now())}
	defer keys.wipe()
	err = writeKeys(path, keys, os.Link)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// writeKeys writes the file in full beside its place, then puts it there by
// place (os.Link, which does not replace, or os.Rename). When it returns nil
// the new file is on the disk; after a kill there is the old one or the new
// one. The caller holds the lock.
func writeKeys(path string, keys keyring, place func(from, to string) error) error {
	temp := tempPath(path)
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("vault: remove an unfinished root key file: %w", err)
	}
	if err := writeTemp(temp, keys); err != nil {
		return errors.Join(fmt.Errorf("vault: write the root key file: %w", err), removeIfThere(temp))
	}
	if err := place(temp, path); err != nil {
		return errors.Join(fmt.Errorf("vault: put the root key file in its place: %w", err), removeIfThere(temp))
	}
	if err := removeIfThere(temp); err != nil {
		return fmt.Errorf("vault: remove the root key file's second name: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func tempPath(path string) string { return path + ".new" }

func writeTemp(temp string, keys keyring) (err error) {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o400)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(0o400); err != nil { // whatever the umask took away
		return err
	}
	text := keys.format()
	defer clear(text)
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("vault: sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("vault: sync directory: %w", err)
	}
	return nil
}

// lock keeps other processes from writing the key file. It waits only for
// those that create it; ErrBusy else.
func lock(path string, wait bool) (unlock func(), err error) {
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: lock: %w", err)
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err == nil {
		return func() { _ = f.Close() }, nil // closing gives the lock back
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, ErrBusy
	}
	return nil, fmt.Errorf("vault: lock: %w", err)
}

// removeStale removes what a killed process left beside the file: it holds a
// key. If it cannot, the next one that writes the file will, or fails.
func removeStale(path string) {
	if _, err := os.Lstat(tempPath(path)); err != nil {
		return
	}
	unlock, err := lock(path, false)
	if err != nil {
		return
	}
	defer unlock()
	_ = removeIfThere(tempPath(path))
}
