//go:build linux

package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/provider"
)

// keptDir is where the content of private directories that may persist does.
const keptDir = provider.KeptDir + "/kept"

// privateDirBytes limits a private directory: it takes the machine's memory.
const privateDirBytes = 256 << 20

// PrivateConfig says which directories of a home lie in memory.
type PrivateConfig struct {
	User   User
	Files  []*provider.File // their Target says which, and what is kept
	Logger *slog.Logger

	// mount puts a file system in memory over the directory target, owned by
	// uid and gid; isMemory says whether an open directory is on one. Both are
	// the kernel's unless a test says otherwise.
	mount    func(target string, uid, gid int) error
	isMemory func(dir *os.File) error
	settle   time.Duration // between the last change of a file and its copy; 300 ms
}

// PrivateDirs are the directories of a home in which tools keep secrets. They
// lie in memory; what is harmless in them is on the persistent home:
// subdirectories that the provider file names as links, top-level files as
// copies that are renewed as they change.
type PrivateDirs struct {
	cfg     PrivateConfig
	cancel  context.CancelFunc
	keepers sync.WaitGroup
}

// OpenPrivateDirs makes the private directories, with what was kept of them
// from earlier, and the seeds. It must be called before
// anything of the person's runs. An error says that a directory is not in
// memory; what else goes wrong is logged. The caller closes it.
func OpenPrivateDirs(cfg PrivateConfig) (*PrivateDirs, error) {
	if cfg.mount == nil {
		cfg.mount = mountMemory
	}
	if cfg.isMemory == nil {
		cfg.isMemory = inMemory
	}
	if cfg.settle == 0 {
		cfg.settle = 300 * time.Millisecond
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &PrivateDirs{cfg: cfg, cancel: cancel}
	for _, f := range cfg.Files {
		for _, d := range f.Target.PrivateDirs {
			if err := p.open(ctx, f, d); err != nil {
				p.Close()
				return nil, fmt.Errorf("private directory %s: %w", d.Path, err)
			}
		}
		for _, s := range f.Target.Seed {
			if err := seed(cfg.User, s); err != nil {
				cfg.Logger.Warn("file could not be seeded", "provider", f.Name, "path", s.Path, "err", err)
			}
		}
	}
	return p, nil
}

// Close copies what has changed last and returns when nothing is watched any
// more. The directories stay as they are.
func (p *PrivateDirs) Close() {
	p.cancel()
	p.keepers.Wait()
}

func (p *PrivateDirs) open(ctx context.Context, f *provider.File, d provider.PrivateDir) error {
	dir, err := p.inMemory(d.Path)
	if err != nil {
		return err
	}
	kept, err := openDir(p.cfg.User.Home, path.Join(keptDir, d.Path), &p.cfg.User)
	if err != nil { // a full disk, or the person put something there: the tool works without
		p.cfg.Logger.Warn("nothing of a private directory will be kept", "path", d.Path, "err", err)
		return dir.Close()
	}
	k := newKeeper(p.cfg, f, d, dir, kept)
	k.link()
	k.restore()
	p.keepers.Go(func() { k.run(ctx) })
	return nil
}

// inMemory returns the directory rel of the home, on a file system in memory.
func (p *PrivateDirs) inMemory(rel string) (*os.File, error) {
	u := p.cfg.User
	parent, err := openDir(u.Home, path.Dir(rel), &u)
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	below, err := plainDir(parent, path.Base(rel), u)
	if err != nil {
		return nil, err
	}
	defer func() { _ = below.Close() }()
	mounted, err := otherFileSystem(parent, below)
	if err != nil {
		return nil, err
	}
	if !mounted {
		if err := p.cfg.mount(filepath.Join(u.Home, rel), u.UID, u.GID); err != nil {
			return nil, fmt.Errorf("mounting: %w", err)
		}
	}
	dir, err := stepInto(parent, path.Base(rel), nil)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(p.cfg.isMemory(dir), dir.Chown(u.UID, u.GID), dir.Chmod(0o700)); err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// plainDir opens a directory of the person's, or makes it. Whatever else has
// its name, such as a link to elsewhere, is moved aside.
func plainDir(parent *os.File, name string, u User) (*os.File, error) {
	dir, err := stepInto(parent, name, &u)
	if !errors.Is(err, errNotPlain) {
		return dir, err
	}
	aside := name + ".before-anteroom-" + rand.Text()[:8]
	if err := unix.Renameat(int(parent.Fd()), name, int(parent.Fd()), aside); err != nil {
		return nil, err
	}
	return stepInto(parent, name, &u)
}

func otherFileSystem(a, b *os.File) (bool, error) {
	var sa, sb unix.Stat_t
	if err := errors.Join(unix.Fstat(int(a.Fd()), &sa), unix.Fstat(int(b.Fd()), &sb)); err != nil {
		return false, err
	}
	return sa.Dev != sb.Dev, nil
}

func mountMemory(target string, uid, gid int) error {
	options := fmt.Sprintf("mode=0700,uid=%d,gid=%d,size=%d", uid, gid, privateDirBytes)
	return unix.Mount("tmpfs", target, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
}

// seed writes a file if nothing has its name, and merges the seed into a plain
// file of the person's that lacks something of it.
func seed(u User, s provider.Seed) error {
	dir, err := openDir(u.Home, path.Dir(s.Path), &u)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	var st unix.Stat_t
	err = unix.Fstatat(int(dir.Fd()), path.Base(s.Path), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return writeAt(dir, path.Base(s.Path), []byte(s.Content), 0o600, u)
	}
	if err != nil {
		return err
	}
	have, err := readAt(dir, path.Base(s.Path), u, provider.MaxSeeded)
	if err != nil {
		return err
	}
	want, _, err := s.Merge(have) // what is there with another value is the person's choice
	if err != nil || bytes.Equal(want, have) {
		return err
	}
	return writeAt(dir, path.Base(s.Path), want, os.FileMode(st.Mode&0o777), u)
}

// holdsAny says whether content holds one of the secrets.
func holdsAny(content []byte, secrets [][]byte) bool {
	for _, s := range secrets {
		if bytes.Contains(content, s) {
			return true
		}
	}
	return false
}
