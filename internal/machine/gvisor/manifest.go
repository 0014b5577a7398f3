//go:build linux

package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// manifestFile is written last: a snapshot without one was not finished.
const manifestFile = "manifest.json"

// maxManifest is more than a manifest of a few files takes.
const maxManifest = 64 << 10

var errDamaged = errors.New("a file is not what was saved")

// writeManifest notes the digest of every file of a snapshot and brings all of
// it to the disk.
func writeManifest(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	digests := map[string]string{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if digests[e.Name()], err = fileHash(path); err != nil {
			return err
		}
		if err := syncFile(path); err != nil {
			return err
		}
	}
	text, err := json.Marshal(digests)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, manifestFile)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(path), syncFile(dir))
}

// verifyManifest checks every file of a snapshot. fs.ErrNotExist if there is
// no snapshot.
func verifyManifest(dir string) error {
	f, err := os.Open(filepath.Join(dir, manifestFile))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	var digests map[string]string
	if err := json.Unmarshal(text, &digests); err != nil {
		return fmt.Errorf("%w: %s", errDamaged, manifestFile)
	}
	for name, want := range digests {
		if got, err := fileHash(filepath.Join(dir, name)); err != nil || got != want {
			return fmt.Errorf("%w: %s", errDamaged, name)
		}
	}
	return nil
}

// syncFile brings a file or directory to the disk.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
