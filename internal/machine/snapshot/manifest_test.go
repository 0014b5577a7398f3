//go:build linux

package snapshot

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestManifest(t *testing.T) {
	dir := t.TempDir()
	if err := VerifyManifest(dir, "key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v", err)
	}
	files := map[string]string{"checkpoint.img": "state", "pages.img": "memory"}
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, content := range files {
		write(name, content)
	}
	if err := WriteManifest(dir, "key"); err != nil {
		t.Fatal(err)
	}
	if err := VerifyManifest(dir, "key"); err != nil {
		t.Errorf("a whole snapshot: %v", err)
	}
	if err := VerifyManifest(dir, "another"); !errors.Is(err, ErrOtherKey) {
		t.Errorf("a whole snapshot of something else: %v", err)
	}
	for name, content := range files {
		for _, bad := range []string{"", content[1:], strings.ToUpper(content)} {
			write(name, bad)
			if err := VerifyManifest(dir, "key"); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is %q: %v", name, bad, err)
			}
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if err := VerifyManifest(dir, "key"); !errors.Is(err, ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is missing: %v", name, err)
		}
		write(name, content)
	}
	write(ManifestFile, `{"pages.img"`)
	if err := VerifyManifest(dir, "key"); !errors.Is(err, ErrDamaged) {
		t.Errorf("half a manifest: %v", err)
	}
}
