package image

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// apt reads the keys as a user of its own, so that others must be able to.
func TestArchiveKeys(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir, err := archiveKeys()
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	for _, kind := range []string{"automatic", "security-automatic", "stable"} {
		file := filepath.Join(dir, "debian-archive-"+Suite+"-"+kind+".asc")
		info, err := os.Stat(file)
		if err != nil {
			t.Error(err)
			continue
		}
		if info.Mode().Perm() != 0o644 {
			t.Errorf("%s is %v", file, info.Mode())
		}
		text, err := os.ReadFile(file)
		if err != nil || !strings.HasPrefix(string(text), "-----BEGIN PGP PUBLIC KEY BLOCK-----") {
			t.Errorf("%s: %v, %.40q", file, err, text)
		}
	}
}
