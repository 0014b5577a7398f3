package server

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inTemp has temporary states made below a directory of the test's.
func inTemp(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	return dir
}

func TestTemporaryState(t *testing.T) {
	inTemp(t)
	dir, unlock, err := temporaryState()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 || !strings.HasPrefix(filepath.Base(dir), connectPrefix) {
		t.Errorf("%s: %v, %v", dir, info, err)
	}
	if _, err := lockState(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("it is not locked: %v", err)
	}
	// Another connect leaves it alone while it is locked, and removes it then.
	cfg := Defaults()
	cfg.Logger = slog.New(slog.DiscardHandler)
	removeLeftOver(t.Context(), cfg)
	if _, err := os.Stat(dir); err != nil {
		t.Errorf("a state in use was removed: %v", err)
	}
	unlock()
	if os.Geteuid() != 0 {
		return // only root's are removed
	}
	removeLeftOver(t.Context(), cfg)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left over is still there: %v", err)
	}
}

func TestWhatIsNotOursIsLeftAlone(t *testing.T) {
	parent := inTemp(t)
	outside := filepath.Join(parent, "outside")
	cfg := Defaults()
	cfg.Logger = slog.New(slog.DiscardHandler)
	for name, prepare := range map[string]func(path string) error{
		"a link":           func(path string) error { return os.Symlink(outside, path) },
		"open to others":   func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chmod(path, 0o755)) },
		"somebody else's":  func(path string) error { return errors.Join(os.Mkdir(path, 0o700), os.Chown(path, 65534, 65534)) },
		"not a directory":  func(path string) error { return os.WriteFile(path, nil, 0o700) },
		"machines unknown": func(path string) error { return os.MkdirAll(filepath.Join(path, "gvisor", "machines", "m"), 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			if os.Geteuid() != 0 {
				t.Skip("SKIPPED: only root removes what is left over")
			}
			if err := os.MkdirAll(outside, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(parent, connectPrefix+"1")
			if err := prepare(path); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(path) }()
			cfg.ImageDir = filepath.Join(parent, "no-images")
			removeLeftOver(t.Context(), cfg)
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("it was removed: %v", err)
			}
			if _, err := os.Stat(outside); err != nil {
				t.Errorf("what a link led to was removed: %v", err)
			}
		})
	}
}

func TestCheckGuest(t *testing.T) {
	program := func(text string) string {
		path := filepath.Join(t.TempDir(), "guest")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := program("[ $1 = build ] && echo devel")
	if err := CheckGuest(t.Context(), good); err == nil || !strings.Contains(err.Error(), "anteroom-screen is missing") {
		t.Errorf("without anteroom-screen: %v", err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(good), "anteroom-screen"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := CheckGuest(t.Context(), good); err != nil {
		t.Error(err)
	}
	for name, path := range map[string]string{"another": program("echo other"), "one that fails": program("echo devel; exit 1")} {
		if err := CheckGuest(t.Context(), path); !errors.Is(err, ErrGuestBuild) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := CheckGuest(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("none: %v", err)
	}
}
