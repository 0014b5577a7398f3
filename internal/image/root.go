package image

// What is in this file shapes the image, as the recipe does: it is part of the
// key of both the root and the image (see shape).

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/anteroom/anteroom/internal/steps"
)

// debianOptions are mmdebstrap's: the smallest variant, and no documents or
// translations unpacked in the first place.
var debianOptions = []string{
	"--variant=minbase", "--mode=root", "--format=directory",
	`--aptopt=Acquire::Languages "none"`,
	"--dpkgopt=path-exclude=/usr/share/man/*",
	"--dpkgopt=path-exclude=/usr/share/info/*",
	"--dpkgopt=path-exclude=/usr/share/doc/*",
	"--dpkgopt=path-include=/usr/share/doc/*/copyright",
	"--dpkgopt=path-exclude=/usr/share/locale/*",
	"--dpkgopt=path-exclude=/usr/share/lintian/*",
}

// programEnv is what the programs of a build find in their environment beside
// what is there.
var programEnv = []string{"SOURCE_DATE_EPOCH=" + strconv.Itoa(epoch), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8"}

// makeRoot installs Debian's packages and the tools into root.
func (b *builder) makeRoot(ctx context.Context, root string) error {
	fresh := root + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	packages, err := lines("packages.txt")
	if err != nil {
		return err
	}
	keys, err := archiveKeys()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(keys) }()
	err = b.Steps.Do(fmt.Sprintf("Installing Debian %s and Chromium", Suite), func(status steps.Status) error {
		args := append([]string{}, debianOptions...)
		args = append(args, "--keyring="+keys, "--include="+strings.Join(packages, ","), Suite, fresh)
		return b.run(ctx, status, "", "mmdebstrap", args...)
	})
	if err != nil {
		return err
	}
	err = b.Steps.Do("Installing the tools from npm", func(status steps.Status) error {
		dir := filepath.Join(fresh, "opt/cli")
		if err := copyRecipe("recipe/cli", dir); err != nil {
			return err
		}
		// No script of a package is run: the vendors' programs are used where
		// their packages put them.
		return b.run(ctx, status, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--force", "--os=linux", "--cpu=x64")
	})
	if err != nil {
		return err
	}
	if err := b.run(ctx, nil, "", "chroot", fresh, "useradd", "--uid=1000", "--user-group", "--shell=/bin/bash", "--home-dir=/home/person", "--no-create-home", "person"); err != nil {
		return err
	}
	return os.Rename(fresh, root)
}

// archiveKeys writes the keys that Debian's archive is signed with to a new
// directory, which the caller removes. They are brought along, since those of
// an older Debian or Ubuntu end before this release. apt reads them as a user
// of its own.
func archiveKeys() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "anteroom-keys-"); err != nil {
		return "", err
	}
	if err = errors.Join(os.Chmod(dir, 0o755), copyRecipe("recipe/keys", dir)); err != nil {
		_ = os.RemoveAll(dir)
	}
	return dir, err
}

// dress puts what is ours into root: files, links, programs. Idempotent.
func (b *builder) dress(root string) error {
	if err := copyRecipe("recipe/files", root); err != nil {
		return err
	}
	for _, dir := range []string{"home/person", "run", "tmp"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	links, err := lines("links.txt")
	if err != nil {
		return err
	}
	for _, l := range links {
		f := strings.Fields(l)
		if len(f) != 2 {
			return fmt.Errorf("links.txt: %q is not a name and what it leads to", l)
		}
		name, target := f[0], f[1]
		if _, err := os.Stat(filepath.Join(root, target)); err != nil {
			return fmt.Errorf("a tool's program is not where it was: %w", err)
		}
		link := filepath.Join(root, name)
		_ = os.Remove(link)
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	patterns, err := lines("remove.txt")
	if err != nil {
		return err
	}
	for _, pattern := range patterns {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return err
		}
		for _, f := range found {
			if err := os.RemoveAll(f); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/machine-id"), nil, 0o644); err != nil {
		return err
	}
	for _, p := range b.programs() {
		content, err := os.ReadFile(p.from)
		if err != nil {
			return err
		}
		path := filepath.Join(root, p.in)
		_ = os.Remove(path)
		if err := os.WriteFile(path, content, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// pack makes the erofs image. Regular files are not inlined, since gVisor does
// not read those that are; identity and times are fixed, so that the same tree
// gives the same bytes.
func (b *builder) pack(ctx context.Context, root, image string, status steps.Status) error {
	date := "--date=@" + strconv.Itoa(epoch)
	// The font cache names the times of the directories: both get the image's.
	if err := b.run(ctx, status, "", "find", filepath.Join(root, "usr/share/fonts"), "-exec", "touch", "--no-dereference", date, "{}", "+"); err != nil {
		return err
	}
	if err := b.run(ctx, status, "", "chroot", root, "fc-cache", "--system-only", "--force"); err != nil {
		return err
	}
	fresh := image + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := b.run(ctx, status, "", "mkfs.erofs", "--quiet", "-E", "noinline_data",
		"-T", strconv.Itoa(epoch), "-U", "616e7465-726f-6f6d-0000-000000000000", fresh, root); err != nil {
		return err
	}
	return os.Rename(fresh, image)
}

func copyRecipe(from, to string) error {
	return fs.WalkDir(recipe, from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(name, from))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		content, err := recipe.ReadFile(path.Clean(name))
		if err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o644)
	})
}
