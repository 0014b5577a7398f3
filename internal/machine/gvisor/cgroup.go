//go:build linux

package gvisor

import (
	"fmt"
	"os"
	"path/filepath"
)

// probeCgroups says whether this host lets us limit a machine's memory.
func probeCgroups() (ok bool, reason string) {
	for _, dir := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
			continue
		}
		probe := filepath.Join(dir, fmt.Sprintf("anteroom-probe-%d", os.Getpid()))
		if err := os.Mkdir(probe, 0o755); err != nil {
			return false, fmt.Sprintf("cgroups are not writable here: %v", err)
		}
		_ = os.Remove(probe)
		return true, ""
	}
	return false, "no cgroup file system is mounted"
}
