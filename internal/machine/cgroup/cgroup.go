//go:build linux

// Package cgroup limits what a machine takes of the host's memory and
// processors, where the host lets it.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Root is where the host's control groups are.
const Root = "/sys/fs/cgroup"

// Path is a machine's cgroup below the root of each hierarchy.
func Path(id string) string { return "/anteroom/" + id }

// retry is the time between two tries to remove a cgroup whose last
// process is just ending.
const retry = 10 * time.Millisecond

// Remove removes what cgroups there are of a machine whose processes
// have ended: one in the unified hierarchy, or one for each controller.
func Remove(ctx context.Context, id string) error {
	for _, pattern := range []string{Root + Path(id), Root + "/*" + Path(id)} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := remove(ctx, dir); err != nil {
				return err
			}
		}
	}
	return nil
}

func remove(ctx context.Context, dir string) error {
	for {
		err := os.Remove(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(retry):
		}
	}
}

// Limits of a machine.
type Limits struct {
	Memory int64   // bytes
	CPUs   float64 // processors' worth of time
	PIDs   int     // processes and threads
}

// period is what shares of processor time are counted in, in microseconds.
const period = 100_000

// Make makes the control groups of a machine. What it has made when it fails,
// Remove removes.
func Make(id string, l Limits) error {
	quota := int64(l.CPUs * period)
	var at unix.Statfs_t
	if err := unix.Statfs(Root, &at); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	if at.Type == unix.CGROUP2_SUPER_MAGIC {
		return makeUnified(Root, id, map[string]string{
			"memory.max": fmt.Sprint(l.Memory), "memory.swap.max": "0", "cpu.max": fmt.Sprint(quota, " ", period), "pids.max": fmt.Sprint(l.PIDs),
		})
	}
	for controller, limits := range map[string][][2]string{
		"memory": {{"memory.limit_in_bytes", fmt.Sprint(l.Memory)}},
		"cpu":    {{"cpu.cfs_period_us", fmt.Sprint(period)}, {"cpu.cfs_quota_us", fmt.Sprint(quota)}},
		"pids":   {{"pids.max", fmt.Sprint(l.PIDs)}},
		// Limits nothing; see Usage.
		"cpuacct": {},
	} {
		if _, err := os.Stat(filepath.Join(Root, controller)); errors.Is(err, fs.ErrNotExist) {
			continue // this host has no such controller
		}
		dir := filepath.Join(Root, controller, Path(id))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("cgroups: %w", err)
		}
		for _, limit := range limits {
			if err := writeFile(filepath.Join(dir, limit[0]), limit[1]); err != nil {
				return fmt.Errorf("cgroups: %w", err)
			}
		}
	}
	return nil
}

// makeUnified makes a machine's group in the unified hierarchy at root, and hands
// it the controllers. A limit of swap is left out where there is none.
func makeUnified(root, id string, limits map[string]string) error {
	dir := filepath.Join(root, Path(id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cgroups: %w", err)
	}
	for _, above := range []string{root, filepath.Dir(dir)} {
		if err := writeFile(filepath.Join(above, "cgroup.subtree_control"), "+cpu +memory +pids"); err != nil {
			return fmt.Errorf("cgroups: %w", err)
		}
	}
	for name, limit := range limits {
		err := writeFile(filepath.Join(dir, name), limit)
		if err != nil && (name != "memory.swap.max" || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("cgroups: %w", err)
		}
	}
	return nil
}

// Enter puts a process, with all of its threads, into the groups of a machine.
func Enter(id string, pid int) error {
	entered := false
	for _, pattern := range []string{Root + Path(id), Root + "/*" + Path(id)} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, dir := range dirs {
			if err := writeFile(filepath.Join(dir, "cgroup.procs"), fmt.Sprint(pid)); err != nil {
				return fmt.Errorf("cgroups: %w", err)
			}
			entered = true
		}
	}
	if !entered {
		return fmt.Errorf("cgroups: the machine %s has none", id)
	}
	return nil
}

// Usage is the processor time that a machine has used, and the memory that it
// holds, without what could be dropped at once, in bytes.
func Usage(id string) (cpu time.Duration, memory int64, err error) {
	var at unix.Statfs_t
	if err := unix.Statfs(Root, &at); err != nil {
		return 0, 0, fmt.Errorf("cgroups: %w", err)
	}
	files := usageFiles{cpu: "cpuacct" + Path(id) + "/cpuacct.usage", unit: time.Nanosecond, memory: "memory" + Path(id) + "/memory.stat", held: "rss"}
	if at.Type == unix.CGROUP2_SUPER_MAGIC {
		files = usageFiles{cpu: Path(id) + "/cpu.stat", used: "usage_usec", unit: time.Microsecond, memory: Path(id) + "/memory.stat", held: "anon"}
	}
	used, err := number(filepath.Join(Root, files.cpu), files.used)
	if err != nil {
		return 0, 0, fmt.Errorf("cgroups: %w", err)
	}
	held, err := number(filepath.Join(Root, files.memory), files.held)
	if err != nil {
		return 0, 0, fmt.Errorf("cgroups: %w", err)
	}
	return time.Duration(used) * files.unit, held, nil
}

// usageFiles say where a kernel counts, and as what.
type usageFiles struct {
	cpu, used    string
	unit         time.Duration
	memory, held string
}

// number reads the number behind a name in a file of the kernel's, or the only
// number in it if name is empty.
func number(file, name string) (int64, error) {
	all, err := words(file)
	if err != nil {
		return 0, err
	}
	if name == "" && len(all) == 1 {
		return strconv.ParseInt(all[0], 10, 64)
	}
	for i := 0; i+1 < len(all); i += 2 {
		if all[i] == name {
			return strconv.ParseInt(all[i+1], 10, 64)
		}
	}
	return 0, fmt.Errorf("%s has no %q", file, name)
}
