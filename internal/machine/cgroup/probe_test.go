//go:build linux

package cgroup

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// TestProbeUnified stands in for the kernel: it takes what is written, or
// refuses one of the writes.
func TestProbeUnified(t *testing.T) {
	const all = "cpuset cpu io memory hugetlb pids"
	const down = "+cpuset +cpu +io +memory +hugetlb +pids"
	takes := []string{
		"cgroup.subtree_control " + down, "PROBE/cgroup.subtree_control " + down,
		"PROBE/machine/memory.max max", "PROBE/machine/cpu.max max",
	}
	back := []string{"cgroup.subtree_control -cpuset", "cgroup.subtree_control -io", "cgroup.subtree_control -hugetlb"}
	name := regexp.MustCompile(`^anteroom-probe-\w+`)
	for _, tt := range []struct {
		name, has string
		refused   string   // the write that fails
		writes    []string // all of them
		why       string   // empty: limits can be had
	}{
		{"a host", all, "", slices.Concat(takes, back), ""},
		{"a container", all, takes[0], slices.Concat(takes[:1], back), "not ours to divide here: device or resource busy"},
		{"a container's group", all, takes[1], slices.Concat(takes[:2], back), "not ours to divide"},
		{"a limit that cannot be set", all, takes[2], slices.Concat(takes[:3], back), "not ours to divide"},
		{"not all controllers", "cpu memory pids", "", nil, "no cpuset controller"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range map[string]string{"cgroup.controllers": tt.has + "\n", "cgroup.subtree_control": "cpu memory pids\n"} {
				if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var writes []string
			err := probeUnified(root, func(file, text string) error {
				rel, err := filepath.Rel(root, file)
				if err != nil {
					return err
				}
				if _, err := os.Stat(filepath.Dir(file)); err != nil {
					t.Errorf("%s: %v", rel, err)
				}
				writes = append(writes, name.ReplaceAllString(rel, "PROBE")+" "+text)
				if writes[len(writes)-1] == tt.refused {
					return syscall.EBUSY
				}
				return nil
			})
			if (err == nil) != (tt.why == "") || err != nil && !strings.Contains(err.Error(), tt.why) {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if !slices.Equal(writes, tt.writes) {
				t.Errorf("written:\n%s\nwant:\n%s", strings.Join(writes, "\n"), strings.Join(tt.writes, "\n"))
			}
			if left, err := filepath.Glob(filepath.Join(root, "anteroom-probe-*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	if err := probeUnified(t.TempDir(), writeFile); err == nil {
		t.Error("a directory that is no cgroup")
	}
}

// What a probe tries on this very host is gone afterwards.
func TestProbeLeavesNothing(t *testing.T) {
	ok, why := Probe()
	if ok != (why == "") {
		t.Errorf("%v, %q", ok, why)
	}
	for _, pattern := range []string{Root + "/anteroom-probe-*", Root + "/*/anteroom-probe-*"} {
		if left, err := filepath.Glob(pattern); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
}
