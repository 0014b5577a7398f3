//go:build linux

// Package snapshot is what the drivers' snapshots have in common: the manifest
// that says whether one is whole, and what of the host they depend on.
package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// ManifestFile is written last: a snapshot without one was not finished.
const ManifestFile = "manifest.json"

// maxManifest is more than a manifest of a few files takes.
const maxManifest = 64 << 10

// What VerifyManifest can find.
var (
	ErrDamaged  = errors.New("a file is not what was saved")
	ErrOtherKey = errors.New("it was saved of another image, program, CPU or settings")
)

// manifest is what is in a manifest.
type manifest struct {
	Key   string            `json:"key"`   // what the snapshot depends on
	Files map[string]string `json:"files"` // SHA-256, by name
}

// WriteManifest notes the key of a snapshot and the digest of every file of it,
// and brings all of it to the disk.
func WriteManifest(dir, key string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	m := manifest{Key: key, Files: map[string]string{}}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if m.Files[e.Name()], err = FileHash(path); err != nil {
			return err
		}
		if err := syncFile(path); err != nil {
			return err
		}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, ManifestFile)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return errors.Join(syncFile(path), syncFile(dir))
}

// VerifyManifest checks the key and every file of a snapshot. fs.ErrNotExist if
// there is none, ErrOtherKey if it is one of something else, ErrDamaged if it is
// not what was saved.
func VerifyManifest(dir, key string) error {
	f, err := os.Open(filepath.Join(dir, ManifestFile))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return err
	}
	var m manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%w: %s", ErrDamaged, ManifestFile)
	}
	if m.Key != key {
		return ErrOtherKey
	}
	for name, want := range m.Files {
		if got, err := FileHash(filepath.Join(dir, name)); err != nil || got != want {
			return fmt.Errorf("%w: %s", ErrDamaged, name)
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

// FileHash is the SHA-256 of a file's content, in hexadecimal digits.
func FileHash(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// CPU is what of the host's CPU a memory image depends on.
func CPU() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer func() { _ = f.Close() }()
	var model []string
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; {
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "stepping", "flags":
			model = append(model, strings.TrimSpace(value))
		}
	}
	return strings.Join(model, "|")
}
