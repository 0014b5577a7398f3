package image

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/steps"
)

type builder struct{ Config }

func (b *builder) build(ctx context.Context) (Image, error) {
	rootID, err := rootKey(recipe)
	if err != nil {
		return Image{}, err
	}
	key, err := key(b.Config)
	if err != nil {
		return Image{}, err
	}
	// Kept apart from the image, since it changes much more rarely than the
	// agent and takes much longer. Only what has the same key is dressed in it,
	// so that nothing of an earlier recipe is left there.
	root := filepath.Join(b.Dir, "root-"+rootID)
	if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
		if err := b.makeRoot(ctx, root); err != nil {
			return Image{}, err
		}
	} else if err != nil {
		return Image{}, err
	}
	kernelID, err := kernelKey()
	if err != nil {
		return Image{}, err
	}
	kernel := filepath.Join(b.Dir, "kernel-"+kernelID)
	if _, err := os.Stat(kernel); errors.Is(err, fs.ErrNotExist) {
		if err := b.makeKernel(ctx, kernel); err != nil {
			return Image{}, err
		}
	} else if err != nil {
		return Image{}, err
	}
	if err := b.dress(root); err != nil {
		return Image{}, err
	}
	err = b.Steps.Do("Packing the golden image", func(status steps.Status) error {
		return b.pack(ctx, root, imagePath(b.Dir, key), status)
	})
	if err != nil {
		return Image{}, err
	}
	packages, err := b.packages(root)
	if err != nil {
		return Image{}, err
	}
	img, err := b.record(key, kernel, packages)
	if err != nil {
		return Image{}, err
	}
	return img, b.removeOthers(root, kernel)
}

// stopTime is what a program has to clean up (mmdebstrap unmounts) when the build
// is interrupted.
const stopTime = 20 * time.Second

// run runs a program; its last line of output is the step's status, all of it
// goes to the log, and the end of it into the error. When ctx ends, the program
// and all that it has started are told to end, and killed if they do not.
func (b *builder) run(ctx context.Context, status steps.Status, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), programEnv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	var tail []string
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(r); lines.Scan(); {
			_, _ = fmt.Fprintln(b.Logger, lines.Text())
			if tail = append(tail, lines.Text()); len(tail) > 12 {
				tail = tail[1:]
			}
			if status != nil {
				status(lines.Text())
			}
		}
		_, _ = io.Copy(io.Discard, r) // a line too long for the scanner
	}()
	err := cmd.Run()
	if ctx.Err() != nil && cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what has ignored the first
	}
	_ = w.Close()
	<-read
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed (make setup installs it): %w", name, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, strings.Join(tail, "\n"))
	}
	return nil
}

// keptImages is how many images stay: servers of earlier builds may still be
// using theirs.
const keptImages = 3

// removeOthers removes the roots and kernels of other recipes and all but the
// newest images.
func (b *builder) removeOthers(root, kernel string) error {
	for pattern, keep := range map[string]string{"root-*": root, "kernel-*": kernel} {
		parts, err := filepath.Glob(filepath.Join(b.Dir, pattern))
		if err != nil {
			return err
		}
		for _, part := range parts {
			if part != keep {
				if err := os.RemoveAll(part); err != nil {
					return err
				}
			}
		}
	}
	images, err := filepath.Glob(filepath.Join(b.Dir, "image-*.erofs*"))
	if err != nil {
		return err
	}
	age := map[string]time.Time{}
	for _, img := range images {
		if info, err := os.Stat(img); err == nil {
			age[img] = info.ModTime()
		}
	}
	slices.SortFunc(images, func(a, c string) int { return age[c].Compare(age[a]) })
	for _, img := range images[min(keptImages, len(images)):] {
		name := strings.TrimSuffix(strings.TrimSuffix(img, ".new"), ".erofs")
		err := errors.Join(removeIfThere(name+".json"), removeIfThere(img))
		for _, part := range bootFiles {
			err = errors.Join(err, removeIfThere(name+"."+part))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock takes an exclusive lock on a file, waiting for it.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
