//go:build linux

// Package home makes the disks on which people's homes are in virtual machines.
package home

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
)

// Suffix makes the name of a home's image of that of its directory.
const Suffix = ".ext4"

// Open opens the image of a home (ext4, in a sparse file), and makes it first
// where there is none, size bytes large, with what is in the directory dir. What
// a program has not synced may be lost with the host's power, as elsewhere.
func Open(dir string, size int64) (*os.File, error) {
	path := dir + Suffix
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	fresh := path + ".new"
	if err := create(fresh, dir, size); err != nil {
		return nil, errors.Join(fmt.Errorf("the home's file system: %w", err), os.Remove(fresh))
	}
	if err := os.Rename(fresh, path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR, 0)
}

func create(path, from string, size int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	var out bytes.Buffer
	// Nothing is reserved for root, who has nothing there; -d copies.
	cmd := exec.Command("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-L", "home",
		"-E", "root_owner=1000:1000,lazy_itable_init=1,lazy_journal_init=1,nodiscard", "-d", from, path, strconv.FormatInt(size>>10, 10)+"k")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = []string{"PATH=/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL=C"}
	if err := cmd.Run(); errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("mke2fs is missing (Debian's package e2fsprogs has it): %w", err)
	} else if err != nil {
		return fmt.Errorf("mke2fs: %w: %.500s", err, out.String())
	}
	return f.Sync()
}
