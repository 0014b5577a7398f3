//go:build linux

package cgroup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe says whether this host lets a driver limit the memory and CPU of its
// machines, and if not, why. What it tries is gone when it returns.
func Probe() (ok bool, why string) {
	var fs unix.Statfs_t
	err := unix.Statfs(Root, &fs)
	switch {
	case err != nil:
		err = fmt.Errorf("no cgroup file system is mounted: %w", err)
	case fs.Type == unix.CGROUP2_SUPER_MAGIC:
		err = probeUnified(Root, writeFile)
	default:
		err = probeMemory(filepath.Join(Root, "memory"))
	}
	if err != nil {
		return false, err.Error()
	}
	return true, ""
}

// probeMemory tries to make a control group in the first version's hierarchy of
// the memory controller.
func probeMemory(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err != nil {
		return errors.New("no cgroup file system is mounted")
	}
	probe := filepath.Join(dir, probeName())
	if err := os.Mkdir(probe, 0o755); err != nil {
		return fmt.Errorf("cgroups are not writable here: %w", err)
	}
	return os.Remove(probe)
}

// unifiedNeeds are the controllers that runsc does not do without in the unified
// hierarchy (runsc/cgroup/cgroup_v2.go).
var unifiedNeeds = []string{"cpu", "cpuset", "io", "memory", "pids"}

// probeUnified does in the unified hierarchy at root what runsc does for a
// machine: it hands all controllers down from the root, level by level, to a
// group with limits. In a container the first step is refused as a rule, since
// its root has processes in it; there no machine would start, with runsc told to
// use cgroups. write writes into a file that the kernel has made.
func probeUnified(root string, write func(file, text string) error) (err error) {
	const control = "cgroup.subtree_control"
	all, err := words(filepath.Join(root, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("cgroups cannot be read here: %w", err)
	}
	for _, c := range unifiedNeeds {
		if !slices.Contains(all, c) {
			return fmt.Errorf("this system has no %s controller for cgroups", c)
		}
	}
	before, err := words(filepath.Join(root, control))
	if err != nil {
		return fmt.Errorf("cgroups cannot be read here: %w", err)
	}
	down := "+" + strings.Join(all, " +")
	// One by one: what somebody else has come to need meanwhile stays.
	defer func() {
		for _, c := range all {
			if !slices.Contains(before, c) {
				_ = write(filepath.Join(root, control), "-"+c)
			}
		}
	}()
	group := filepath.Join(root, probeName())
	machine := filepath.Join(group, "machine")
	for _, step := range []func() error{
		func() error { return write(filepath.Join(root, control), down) },
		func() error { return os.Mkdir(group, 0o755) },
		func() error { return write(filepath.Join(group, control), down) },
		func() error { return os.Mkdir(machine, 0o755) },
		func() error { return write(filepath.Join(machine, "memory.max"), "max") },
		func() error { return write(filepath.Join(machine, "cpu.max"), "max") },
	} {
		if err = step(); err != nil {
			err = fmt.Errorf("cgroups are not ours to divide here: %w", err)
			break
		}
	}
	for _, dir := range []string{machine, group} {
		if rm := os.Remove(dir); rm != nil && !errors.Is(rm, os.ErrNotExist) {
			err = errors.Join(err, rm)
		}
	}
	return err
}

// probeName is that of a group which nobody else makes.
func probeName() string { return "anteroom-probe-" + rand.Text() }

// writeFile writes to a file of a cgroup file system.
func writeFile(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// words are the words in a file.
func words(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	return strings.Fields(string(text)), err
}
