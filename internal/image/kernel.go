package image

// What is in this file and in vmlinux.go and initrd.go shapes the kernel's files:
// they are part of the kernel's key (see kernelKey).

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/anteroom/anteroom/internal/steps"
)

// kernelRecipe says which kernel virtual machines have, and which modules.
//
//go:embed kernel kernel.go vmlinux.go initrd.go
var kernelRecipe embed.FS

// Boot is what a virtual machine starts with, beside the image: its files are
// next to it. The initrd holds the agent of the image and no secrets.
type Boot struct {
	Kernel  string `json:"kernel"`  // its release, such as 6.1.0-41-cloud-amd64
	Vmlinuz string `json:"vmlinuz"` // SHA-256 of the kernel as Debian ships it
	Vmlinux string `json:"vmlinux"` // and uncompressed (ELF)
	Initrd  string `json:"initrd"`
}

// Vmlinuz is the path of the kernel (bzImage).
func (i Image) Vmlinuz() string { return i.beside("vmlinuz") }

// Vmlinux is the path of the same kernel, uncompressed: what Firecracker takes,
// and what saves an emulated machine the time for unpacking it.
func (i Image) Vmlinux() string { return i.beside("vmlinux") }

// Initrd is the path of the initrd. Package guest/boot says what it does and what
// it expects of a machine.
func (i Image) Initrd() string { return i.beside("initrd") }

func (i Image) beside(name string) string {
	return strings.TrimSuffix(i.Path, ".erofs") + "." + name
}

// bootFiles are the names after an image's own of what belongs to it.
var bootFiles = []string{"vmlinuz", "vmlinux", "initrd"}

// kernelKey identifies what a kernel's files are made from.
func kernelKey() (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %d ", Suite, epoch)
	err := fs.WalkDir(kernelRecipe, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := kernelRecipe.ReadFile(path)
		_, _ = fmt.Fprintf(h, "%s %d ", path, len(b))
		_, _ = h.Write(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:24], nil
}

// makeKernel gets Debian's kernel into dir: vmlinuz, vmlinux, release, and below
// modules/ the modules with their list.
func (b *builder) makeKernel(ctx context.Context, dir string) error {
	packages, err := linesOf(kernelRecipe, "kernel/packages.txt")
	if err != nil {
		return err
	}
	wanted, err := linesOf(kernelRecipe, "kernel/modules.txt")
	if err != nil {
		return err
	}
	keys, err := archiveKeys()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(keys) }()
	fresh, unpacked := dir+".new", dir+".new.unpacked"
	for _, d := range []string{fresh, unpacked} {
		if err := os.RemoveAll(d); err != nil {
			return err
		}
	}
	defer func() { _ = os.RemoveAll(unpacked) }()
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return err
	}
	return b.Steps.Do("Getting the virtual machines' kernel", func(status steps.Status) error {
		err := b.run(ctx, status, "", "mmdebstrap", "--variant=extract", "--mode=root", "--format=directory",
			`--aptopt=Acquire::Languages "none"`, "--keyring="+keys, "--include="+strings.Join(packages, ","), Suite, unpacked)
		if err != nil {
			return err
		}
		if err := takeKernel(unpacked, fresh, wanted); err != nil {
			return err
		}
		return os.Rename(fresh, dir)
	})
}

// takeKernel takes what is needed out of a tree with one kernel in it.
func takeKernel(from, to string, wanted []string) error {
	found, err := filepath.Glob(filepath.Join(from, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("Debian's packages hold %d kernels, want 1", len(found)) //nolint:staticcheck // a name
	}
	compressed, err := os.ReadFile(found[0])
	if err != nil {
		return err
	}
	kernel, err := extractVmlinux(compressed)
	if err != nil {
		return fmt.Errorf("%s: %w", found[0], err)
	}
	release := strings.TrimPrefix(filepath.Base(found[0]), "vmlinuz-")
	tree := filepath.Join(from, "lib/modules", release)
	if _, err := os.Stat(tree); errors.Is(err, fs.ErrNotExist) {
		tree = filepath.Join(from, "usr/lib/modules", release)
	}
	order, err := moduleOrder(tree, wanted)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{"vmlinuz": compressed, "vmlinux": kernel, "release": []byte(release)} {
		if err := os.WriteFile(filepath.Join(to, name), content, 0o644); err != nil {
			return err
		}
	}
	if err := os.Mkdir(filepath.Join(to, "modules"), 0o755); err != nil {
		return err
	}
	list := ""
	for _, m := range order {
		content, err := os.ReadFile(filepath.Join(tree, m))
		if err != nil {
			return err
		}
		list += filepath.Base(m) + "\n"
		if err := os.WriteFile(filepath.Join(to, "modules", filepath.Base(m)), content, 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(to, "modules/list"), []byte(list), 0o644)
}

// moduleOrder returns the files of the wanted modules below tree and of all that
// they need, each after what it needs.
func moduleOrder(tree string, wanted []string) ([]string, error) {
	builtin, err := readLines(filepath.Join(tree, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, l := range builtin {
		there[moduleName(l)] = true
	}
	// modules.dep is made at a package's installation; modules say by themselves
	// what they need.
	files, err := moduleFiles(tree)
	if err != nil {
		return nil, err
	}
	var order []string
	var visit func(name string, by []string) error
	visit = func(name string, by []string) error {
		file, ok := files[name]
		switch {
		case there[name]:
			return nil
		case !ok:
			return fmt.Errorf("the kernel has no module %s (for %s)", name, strings.Join(by, ", "))
		case slices.Contains(by, name):
			return fmt.Errorf("the module %s needs itself (%s)", name, strings.Join(by, ", "))
		}
		needs, err := moduleNeeds(filepath.Join(tree, file))
		if err != nil {
			return err
		}
		for _, n := range needs {
			if err := visit(n, append(slices.Clone(by), name)); err != nil {
				return err
			}
		}
		there[name] = true
		order = append(order, file)
		return nil
	}
	for _, w := range wanted {
		if err := visit(moduleName(w), nil); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName is a module's name, of the path of its file.
func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

func moduleFiles(tree string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(filepath.Join(tree, "kernel"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.HasSuffix(path, ".ko") {
			rel, err := filepath.Rel(tree, path)
			files[moduleName(path)] = rel
			return err
		}
		return err
	})
	return files, err
}

// bootFilesOf puts the kernel and an initrd with the agent beside an image.
func (b *builder) bootFilesOf(kernel string, img *Image) error {
	release, err := os.ReadFile(filepath.Join(kernel, "release"))
	if err != nil {
		return err
	}
	if err := writeInitrd(img.Initrd(), kernel, b.Guest); err != nil {
		return err
	}
	for _, name := range []string{"vmlinuz", "vmlinux"} {
		content, err := os.ReadFile(filepath.Join(kernel, name))
		if err != nil {
			return err
		}
		if err := replaceFile(img.beside(name), content); err != nil {
			return err
		}
	}
	img.Boot.Kernel = string(release)
	for name, digest := range map[string]*string{"vmlinuz": &img.Boot.Vmlinuz, "vmlinux": &img.Boot.Vmlinux, "initrd": &img.Boot.Initrd} {
		h := sha256.New()
		if err := hashFile(img.beside(name))(h); err != nil {
			return err
		}
		*digest = hex.EncodeToString(h.Sum(nil))
	}
	return nil
}

// replaceFile writes a file so that it is never there in part.
func replaceFile(path string, content []byte) error {
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func readLines(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(b)), nil
}
