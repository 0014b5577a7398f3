package doctor

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/anteroom/anteroom/internal/server"
)

// holdLock holds the state directory as a server does, until it is closed.
func holdLock(t *testing.T, cfg server.Config) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(cfg.StateDir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}
