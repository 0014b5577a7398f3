//go:build linux

package gvisor

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// What runsc leaves mounted goes when no machine is left, and not before.
func TestCloseUnmounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can mount")
	}
	dir := t.TempDir()
	d := &Driver{cfg: Config{StateDir: dir}, listeners: map[string]*net.UnixListener{}}
	machine := filepath.Join(dir, "machines", "m0000001")
	for _, made := range []string{machine, d.runscRoot()} {
		if err := os.MkdirAll(made, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(d.runscRoot(), nullNetNS)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as two runsc that start at once do
		if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); !errors.Is(err, unix.EBUSY) {
		t.Fatalf("with a machine left, it was unmounted: %v", err)
	}
	if err := os.Remove(machine); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	if err := d.Close(); err != nil { // nothing to do any more
		t.Error(err)
	}
}
