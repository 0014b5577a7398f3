//go:build linux

package home

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A home's disk begins with what is in its directory, and is made once.
func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ann")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "note"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 16 << 20
	for range 2 {
		f, err := Open(dir, size)
		if err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil || info.Size() != size || info.Mode().Perm() != 0o600 || f.Name() != dir+Suffix {
			t.Errorf("%s: %v, %v", f.Name(), info, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(dir, "note")); err != nil { // not read again
			t.Fatal(err)
		}
	}
	out, err := exec.Command("debugfs", "-R", "cat note", dir+Suffix).Output()
	if err != nil || strings.TrimSpace(string(out)) != "kept" {
		t.Errorf("in it: %q, %v", out, err)
	}
}

// One that cannot be made leaves nothing half-made.
func TestOpenFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ann")
	if _, err := Open(dir, 16<<20); err == nil {
		t.Error("of a directory that is not there")
	}
	if left, err := filepath.Glob(dir + "*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
