//go:build linux

package cgroup

import "testing"

func TestMounted(t *testing.T) {
	const mounts = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0\n" +
		"cgroup2 /sys/fs/cgroup/unified cgroup2 rw,memory 0 0\ntmpfs /pids tmpfs rw,pids 0 0\nbroken\n"
	for controller, want := range map[string]bool{"cpu": true, "cpuacct": true, "memory": false, "pids": false, "": false} {
		if mounted(mounts, controller) != want {
			t.Errorf("%q: not %v", controller, want)
		}
	}
}
