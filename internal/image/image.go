// Package image builds the golden image: one read-only root file system
// (erofs) for machines of both kinds and of every driver, and beside it the
// kernel and initrd with which virtual machines start it.
package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/steps"
)

// recipe is all that decides what is in the image, beside Debian's archive on
// the day of the build and our programs.
//
//go:embed all:recipe
var recipe embed.FS

// shape is the code that makes an image of the recipe: where it was another, the
// root is another too.
//
//go:embed root.go
var shape []byte

// Suite is the Debian release of the image.
const Suite = "bookworm"

// epoch is the time of every file in the image, and of the image itself.
const epoch = 1767225600 // 2026-01-01

// Config is what a build needs.
type Config struct {
	Dir    string // where images and their parts are kept; holds a few GiB
	Guest  string // path of the anteroom-guest program; anteroom-screen is beside it
	Logger io.Writer
	Steps  *steps.Printer
}

// programs are what is ours in the image, and where it is here.
func (c Config) programs() []program {
	return []program{
		{"usr/sbin/anteroom-guest", c.Guest},
		{"usr/sbin/anteroom-screen", filepath.Join(filepath.Dir(c.Guest), "anteroom-screen")},
	}
}

type program struct{ in, from string }

// Image is one that was built.
type Image struct {
	ID       string    `json:"id"` // SHA-256 of its bytes
	Key      string    `json:"key"`
	Size     int64     `json:"size"`
	BuiltAt  time.Time `json:"built_at"`
	Packages []string  `json:"packages"` // name=version, of Debian and npm
	Boot     Boot      `json:"boot"`     // for virtual machines
	Path     string    `json:"-"`
}

// ErrMissing says that there is no image of this build.
var ErrMissing = errors.New("image: there is none for this build of Anteroom (anteroom image build makes it)")

// Find returns the image that fits this program, the agent at cfg.Guest
// and anteroom-screen.
func Find(cfg Config) (Image, error) {
	key, err := key(cfg)
	if err != nil {
		return Image{}, err
	}
	var img Image
	b, err := os.ReadFile(manifestPath(cfg.Dir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return img, ErrMissing
	}
	if err != nil {
		return img, fmt.Errorf("image: %w", err)
	}
	if err := json.Unmarshal(b, &img); err != nil {
		return Image{}, fmt.Errorf("%w: %s: %w", ErrMissing, manifestPath(cfg.Dir, key), err)
	}
	img.Path = imagePath(cfg.Dir, key)
	info, err := os.Stat(img.Path)
	if err != nil || info.Size() != img.Size {
		return Image{}, fmt.Errorf("%w: %s is missing or cut short", ErrMissing, img.Path)
	}
	for _, name := range bootFiles {
		if _, err := os.Stat(img.beside(name)); err != nil {
			return Image{}, fmt.Errorf("%w: %w", ErrMissing, err)
		}
	}
	return img, nil
}

func imagePath(dir, key string) string    { return filepath.Join(dir, "image-"+key+".erofs") }
func manifestPath(dir, key string) string { return filepath.Join(dir, "image-"+key+".json") }

// key identifies what an image is built from: its root, its kernel and our
// programs.
func key(cfg Config) (string, error) {
	root, err := rootKey(recipe)
	if err != nil {
		return "", err
	}
	kernel, err := kernelKey()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %s ", root, kernel)
	for _, p := range cfg.programs() {
		_, _ = fmt.Fprintf(h, "%s ", p.in)
		if err := hashFile(p.from)(h); err != nil {
			return "", fmt.Errorf("image: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil))[:24], nil
}

// rootKey identifies what the image is but for our programs. All of the recipe is
// in it: the root is dressed where it is kept, so that what an earlier recipe had
// put there, or removed, would stay.
func rootKey(from fs.FS) (string, error) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %d %d ", Suite, epoch, len(shape))
	_, _ = h.Write(shape)
	err := fs.WalkDir(from, "recipe", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(from, path)
		_, _ = fmt.Fprintf(h, "%s %d ", path, len(b))
		_, _ = h.Write(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:24], nil
}

func hashFile(path string) func(io.Writer) error {
	return func(w io.Writer) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(w, f)
		return err
	}
}

// lines returns the lines of a recipe file that are not empty or comments.
func lines(name string) ([]string, error) { return linesOf(recipe, "recipe/"+name) }

func linesOf(from fs.FS, name string) ([]string, error) {
	b, err := fs.ReadFile(from, name)
	if err != nil {
		return nil, err
	}
	out := slices.Collect(strings.Lines(string(b)))
	for i, l := range out {
		out[i] = strings.TrimSpace(l)
	}
	return slices.DeleteFunc(out, func(l string) bool { return l == "" || strings.HasPrefix(l, "#") }), nil
}

// Build returns the image that fits this program, and builds it first where it
// is missing. Images and parts that nothing needs any more are removed.
func Build(ctx context.Context, cfg Config) (Image, error) {
	if img, err := Find(cfg); err == nil {
		return img, nil
	} else if !errors.Is(err, ErrMissing) {
		return Image{}, err
	}
	if os.Geteuid() != 0 {
		return Image{}, errors.New("image: it can only be built by root")
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	unlock, err := lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	defer unlock()
	if img, err := Find(cfg); err == nil {
		return img, nil // another process has just built it
	}
	// Of the process, and of the programs that it runs: what is in the image is
	// for all of its users, however careful those of this machine are.
	defer syscall.Umask(syscall.Umask(0o022))
	b := &builder{Config: cfg}
	img, err := b.build(ctx)
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	return img, nil
}

// record writes the manifest last: an image without one does not exist. kernel
// is where the virtual machines' kernel is kept.
func (b *builder) record(key, kernel string, packages []string) (Image, error) {
	path := imagePath(b.Dir, key)
	h := sha256.New()
	if err := hashFile(path)(h); err != nil {
		return Image{}, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return Image{}, err
	}
	img := Image{ID: hex.EncodeToString(h.Sum(nil)), Key: key, Size: info.Size(), BuiltAt: time.Now().UTC(), Packages: packages, Path: path}
	if err := b.bootFilesOf(kernel, &img); err != nil {
		return Image{}, err
	}
	text, err := json.MarshalIndent(img, "", "  ")
	if err != nil {
		return Image{}, err
	}
	fresh := manifestPath(b.Dir, key) + ".new"
	if err := os.WriteFile(fresh, append(text, '\n'), 0o644); err != nil {
		return Image{}, err
	}
	return img, os.Rename(fresh, manifestPath(b.Dir, key))
}

// packages lists what is installed, from dpkg's database and npm's lock file.
func (b *builder) packages(root string) ([]string, error) {
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return nil, err
	}
	var out []string
	name := ""
	for line := range bytes.Lines(status) {
		switch field, value, _ := strings.Cut(strings.TrimSpace(string(line)), ": "); field {
		case "Package":
			name = value
		case "Version":
			out = append(out, name+"="+value)
		}
	}
	manifest, err := recipe.ReadFile("recipe/cli/package.json")
	if err != nil {
		return nil, err
	}
	var npm struct {
		Dependencies map[string]string `json:"dependencies"`
	}
	if err := json.Unmarshal(manifest, &npm); err != nil {
		return nil, err
	}
	for name, version := range npm.Dependencies {
		out = append(out, "npm:"+name+"="+version)
	}
	slices.Sort(out)
	return out, nil
}
