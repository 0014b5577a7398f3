//go:build linux

package guest

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/provider"
)

// Limits on what of a private directory is kept.
const (
	maxKeptFile  = 16 << 20
	maxKeptFiles = 128
	// sweepEvery is how often a directory is looked through in case the kernel
	// told nothing of a change.
	sweepEvery = 30 * time.Second
)

// keeper keeps the harmless content of one private directory. Its goroutine
// owns it.
type keeper struct {
	cfg  PrivateConfig
	file *provider.File
	spec provider.PrivateDir
	dir  *os.File // in memory
	kept *os.File // on the persistent home

	credentials []string         // top-level names that are those of credential files, or of directories that hold some
	last        map[string]stamp // what was copied, as it was then
	warned      map[string]bool
}

// stamp tells states of a file apart.
type stamp struct {
	ino        uint64
	size       int64
	mtim, ctim unix.Timespec
	mode       uint32
}

func newKeeper(cfg PrivateConfig, f *provider.File, d provider.PrivateDir, dir, kept *os.File) *keeper {
	k := &keeper{cfg: cfg, file: f, spec: d, dir: dir, kept: kept, last: make(map[string]stamp), warned: make(map[string]bool)}
	for _, c := range f.Files {
		if rest, ok := strings.CutPrefix(c.Path, d.Path+"/"); ok {
			top, _, _ := strings.Cut(rest, "/")
			k.credentials = append(k.credentials, top)
		}
	}
	return k
}

// link makes the kept subdirectories, and links to them where the tool expects
// them.
func (k *keeper) link() {
	for _, name := range k.spec.Keep {
		sub, err := plainDir(k.kept, name, k.cfg.User)
		if err == nil {
			_ = sub.Close()
			target := filepath.Join(k.cfg.User.Home, keptDir, k.spec.Path, name)
			err = unix.Symlinkat(target, int(k.dir.Fd()), name)
		}
		if err == nil {
			err = unix.Fchownat(int(k.dir.Fd()), name, k.cfg.User.UID, k.cfg.User.GID, unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil && !errors.Is(err, unix.EEXIST) {
			k.cfg.Logger.Warn("subdirectory will not be kept", "path", path.Join(k.spec.Path, name), "err", err)
		}
	}
}

// restore copies what was kept of top-level files back.
func (k *keeper) restore() {
	names, err := list(k.kept)
	if err != nil {
		k.warn("", err)
	}
	for _, name := range names {
		from, err := statAt(k.kept, name)
		if err != nil || !k.harmless(name, from) {
			continue
		}
		if _, err := statAt(k.dir, name); !errors.Is(err, unix.ENOENT) {
			continue // the directory was in memory already, with what is newer
		}
		content, err := readAt(k.kept, name, k.cfg.User, maxKeptFile)
		if err == nil {
			err = writeAt(k.dir, name, content, os.FileMode(from.mode&0o777), k.cfg.User)
		}
		if err != nil {
			k.warn(name, err)
			continue
		}
		if now, err := statAt(k.dir, name); err == nil {
			k.last[name] = now
		}
	}
}

// run keeps what changes until ctx ends, and then once more.
func (k *keeper) run(ctx context.Context) {
	defer func() { _ = k.dir.Close() }()
	defer func() { _ = k.kept.Close() }()
	defer k.copy()
	var events chan fsnotify.Event
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer func() { _ = w.Close() }()
		err = w.Add(filepath.Join(k.cfg.User.Home, k.spec.Path))
		events = w.Events
	}
	if err != nil {
		k.warn("", err) // the sweeps are left
	}
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	k.copy()
	settled := time.NewTimer(k.cfg.settle)
	defer settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-events:
			if !ok {
				events = nil
			}
			settled.Reset(k.cfg.settle)
		case <-settled.C:
			k.copy()
		case <-sweep.C:
			k.copy()
		}
	}
}

// copy brings the kept files up to date.
func (k *keeper) copy() {
	names, err := list(k.dir)
	if err != nil {
		k.warn("", err)
		return
	}
	secrets := k.secrets()
	files := 0
	for _, name := range names {
		now, err := statAt(k.dir, name)
		if err != nil || !k.harmless(name, now) {
			continue
		}
		if files++; files > maxKeptFiles {
			break
		}
		if k.last[name] == now {
			continue
		}
		content, err := readAt(k.dir, name, k.cfg.User, maxKeptFile)
		if err == nil && holdsAny(content, secrets) {
			err = errors.New("it holds a secret")
		}
		if err == nil {
			err = writeAt(k.kept, name, content, os.FileMode(now.mode&0o777), k.cfg.User)
		}
		if err != nil {
			k.warn(name, err)
			continue
		}
		k.last[name] = now
	}
	for name := range k.last {
		// A file that has become too large, or a link, keeps its last copy.
		if _, err := statAt(k.dir, name); errors.Is(err, unix.ENOENT) {
			delete(k.last, name)
			_ = unix.Unlinkat(int(k.kept.Fd()), name, 0)
		}
	}
}

// secrets are the texts that must not be copied to a disk.
func (k *keeper) secrets() [][]byte {
	content := make(provider.Content)
	for i := range k.file.Files {
		c := &k.file.Files[i]
		if b, err := readFile(k.cfg.User.Home, c.Path, k.cfg.User, provider.MaxCredentialBytes); err == nil {
			content[c.Name] = b
		}
	}
	return k.file.Secrets(content)
}

// harmless says whether a top-level file may be kept: a regular file of the
// person's, not too large, neither a credential file nor (by its name) a
// temporary one of a credential file, and not one that the provider file skips.
func (k *keeper) harmless(name string, s stamp) bool {
	if s.mode&unix.S_IFMT != unix.S_IFREG || s.size > maxKeptFile || slices.Contains(k.spec.Keep, name) || k.spec.Skips(name) {
		return false
	}
	for _, c := range k.credentials {
		if strings.HasPrefix(strings.TrimLeft(name, "."), strings.TrimLeft(c, ".")) {
			return false
		}
	}
	return true
}

// warn logs the first fault of each name.
func (k *keeper) warn(name string, err error) {
	if !k.warned[name] && len(k.warned) < maxKeptFiles {
		k.warned[name] = true
		k.cfg.Logger.Warn("file is not kept", "path", path.Join(k.spec.Path, name), "err", err)
	}
}

// list returns names in a directory, at most 8 times maxKeptFiles, sorted.
func list(dir *os.File) ([]string, error) {
	// A descriptor of its own has a reading position of its own.
	fd, err := unix.Openat(int(dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	again := os.NewFile(uintptr(fd), dir.Name())
	defer func() { _ = again.Close() }()
	names, err := again.Readdirnames(8 * maxKeptFiles)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func statAt(dir *os.File, name string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return stamp{}, err
	}
	return stamp{ino: st.Ino, size: st.Size, mtim: st.Mtim, ctim: st.Ctim, mode: st.Mode}, nil
}
