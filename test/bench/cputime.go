package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc, also of a machine's.
const tick = 10 * time.Millisecond

// machineTime is what a machine has used of the processors, by its cgroup.
func machineTime(id string) (time.Duration, error) {
	const root = "/sys/fs/cgroup"
	if b, err := os.ReadFile(filepath.Join(root, "anteroom", id, "cpu.stat")); err == nil {
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
				n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
				return time.Duration(n) * time.Microsecond, err
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(root, "cpuacct", "anteroom", id, "cpuacct.usage"))
	if err != nil {
		return 0, fmt.Errorf("the machine's processor time: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return time.Duration(n), err
}

// processTime is what a process has used, in user and in system mode.
func processTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return statTime(b)
}

// statTime reads a line of /proc/PID/stat.
func statTime(line []byte) (time.Duration, error) {
	// After the name in parentheses: state, and 10 fields before the two times.
	fields := bytes.Fields(line[bytes.LastIndexByte(line, ')')+1:])
	if len(fields) < 13 {
		return 0, fmt.Errorf("a stat of %q", line)
	}
	sum := time.Duration(0)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(string(f), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("a stat of %q", line)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}

// screenTime is what capture and encoder have used, by the machine's own account.
func (v *viewing) screenTime(ctx context.Context) (time.Duration, error) {
	out, err := v.subject.rig.Inside(ctx, v.machine, "/bin/sh", "-c", `cat /proc/[0-9]*/stat 2>/dev/null; true`)
	if err != nil {
		return 0, err
	}
	sum := time.Duration(0)
	for line := range strings.Lines(out) {
		if !strings.Contains(line, "(anteroom-screen") {
			continue
		}
		t, err := statTime([]byte(line))
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}
