//go:build linux

package guest

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A guest whose clock is the host's cannot set it, and a message that was late
// is no reason to refuse the configuration.
func TestClockThatCannotBeSet(t *testing.T) {
	withoutTime := make(chan error)
	go func() {
		// The thread has given up a capability: it ends with the goroutine.
		runtime.LockOSThread()
		withoutTime <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&header, &none[0]); err != nil {
				t.Errorf("giving up all capabilities: %v", err)
				return nil // without that, it would set the clock of this host
			}
			return setClock(time.Now().Add(-time.Second))
		}()
	}()
	if err := <-withoutTime; err != nil {
		t.Error(err)
	}
}
