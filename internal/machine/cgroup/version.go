//go:build linux

package cgroup

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Version is that of the hierarchies in which another program (Firecracker's
// jailer) can limit machines by all of the controllers: 1 or 2, or 0 with the
// reason.
func Version(controllers ...string) (version int, why string) {
	if ok, why := Probe(); !ok {
		return 0, why
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(Root, &fs); err != nil {
		return 0, err.Error()
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return 2, ""
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return 0, err.Error()
	}
	for _, c := range controllers {
		if !mounted(string(mounts), c) {
			return 0, fmt.Sprintf("the %s controller for cgroups is not mounted", c)
		}
	}
	return 1, ""
}

// mounted says whether a table of mounts has a hierarchy of the first version
// with this controller.
func mounted(mounts, controller string) bool {
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) >= 4 && fields[2] == "cgroup" && slices.Contains(strings.Split(fields[3], ","), controller) {
			return true
		}
	}
	return false
}
