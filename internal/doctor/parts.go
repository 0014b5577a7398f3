package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/vault"
)

// Room on disks.
const (
	minStateRoom  = 256 << 20 // a machine is refused below it
	goodStateRoom = 2 << 30
	buildRoom     = 6 << 30 // the image, its parts, and the old ones beside them
)

func (e *exam) runsc(ctx context.Context) Result {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, e.cfg.Runsc, "--version").Output()
	if err != nil && (e.cfg.Driver == server.DriverQEMU || e.cfg.Driver == server.DriverFirecracker) {
		return ok("not needed with " + e.cfg.Driver)
	}
	if err != nil {
		return missing(fmt.Sprintf("%s does not run: %v", e.cfg.Runsc, err), "make build builds it; --runsc says where it is")
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return ok(fmt.Sprintf("%s (%s)", e.cfg.Runsc, first))
}

func (e *exam) guest(ctx context.Context) Result {
	if err := server.CheckGuest(ctx, e.cfg.Guest); err != nil {
		return missing(err.Error(), "make build builds it together with this program; --guest says where it is")
	}
	return ok(e.cfg.Guest)
}

func (e *exam) goldenImage(context.Context) Result {
	img, err := image.Find(image.Config{Dir: e.cfg.ImageDir, Guest: e.cfg.Guest})
	if err != nil {
		return missing(err.Error(), "sudo anteroom image build")
	}
	e.image = true
	return ok(fmt.Sprintf("%s (%s)", img.Path, size(img.Size)))
}

func (e *exam) buildPrograms(context.Context) Result {
	var lacking []string
	for _, p := range []string{"mmdebstrap", "mkfs.erofs", "npm", "node"} {
		if _, err := exec.LookPath(p); err != nil {
			lacking = append(lacking, p)
		}
	}
	switch {
	case len(lacking) == 0:
		return ok("mmdebstrap, mkfs.erofs, npm and node")
	case e.image:
		return warning("not found: "+strings.Join(lacking, ", "), "make setup installs them; they are needed only to build the image anew")
	}
	return missing("not found: "+strings.Join(lacking, ", "), "make setup installs them; the image cannot be built without")
}

// driver says what machines would be made with, and tries whether a guest boots on
// KVM where that decides it.
func (e *exam) driver(ctx context.Context) Result {
	if !e.image {
		return ok(e.cfg.Driver + "; what it comes to shows once there is a golden image")
	}
	name, why, err := server.ExplainDriver(ctx, e.cfg)
	if err != nil {
		return missing(err.Error(), "mend what it says, or choose another with --driver ("+strings.Join(server.Drivers(), ", ")+")")
	}
	return ok(name + ": " + why)
}

func (e *exam) state(context.Context) Result {
	dir := e.cfg.StateDir
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := unix.Access(existing(dir), unix.W_OK); err != nil {
			return missing(dir+" is not there, and cannot be made: "+err.Error(), "run as root, or name another directory with --state")
		}
		return ok(dir + " will be made at the first start")
	}
	if err != nil {
		return missing(err.Error(), "name another directory with --state")
	}
	if !info.IsDir() {
		return missing(dir+" is not a directory", "name another one with --state")
	}
	if err := unix.Access(dir, unix.R_OK|unix.W_OK|unix.X_OK); err != nil {
		return missing(dir+": "+err.Error(), "run as root, or name another directory with --state")
	}
	e.server = locked(filepath.Join(dir, "lock"))
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return warning(fmt.Sprintf("%s has mode %04o", dir, perm), "chmod 0700 "+dir)
	}
	if e.server {
		return ok(dir + ", in use by a running server")
	}
	return ok(dir)
}

// locked says whether a server holds the lock.
func locked(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // gives the lock back, if we got it
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// existing is the nearest directory above path, or path, that is there.
func existing(path string) string {
	for path != "/" {
		if _, err := os.Stat(path); err == nil {
			break
		}
		path = filepath.Dir(path)
	}
	return path
}

// inspect looks at the database; found is false if there is none.
func (e *exam) inspect(ctx context.Context) (in sqlite.Inspection, found bool, err error) {
	path := server.DatabaseFile(e.cfg)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return in, false, err
	}
	in, err = sqlite.Inspect(ctx, path)
	return in, true, err
}

func (e *exam) database(ctx context.Context) Result {
	in, found, err := e.inspect(ctx)
	switch {
	case errors.Is(err, store.ErrNewerSchema):
		return missing(err.Error(), "install the version that wrote it or a newer one, or name another directory with --state")
	case err != nil:
		return missing(err.Error(), "put "+server.DatabaseFile(e.cfg)+" back from a copy, or name another directory with --state")
	case !found:
		return ok("will be made at the first start")
	case in.Schema < in.Known:
		return ok(fmt.Sprintf("schema %d; the next start brings it to %d", in.Schema, in.Known))
	}
	return ok(fmt.Sprintf("schema %d, %d credential versions", in.Schema, in.Sealed))
}

func (e *exam) rootKey(ctx context.Context) Result {
	path := server.KeyFileOf(e.cfg)
	if err := vault.Harden(); err != nil { // before the key is in memory
		return missing(err.Error(), "run this on a Linux that lets a program forbid core dumps of itself")
	}
	_, err := vault.Open(vault.Config{KeyPath: path})
	switch {
	case err == nil:
		return ok(path + " (keep a copy of it in another place)")
	case errors.Is(err, vault.ErrNoKey):
		if in, _, err := e.inspect(ctx); err == nil && in.Sealed == 0 {
			return ok("will be made at the first start")
		}
		return missing(path+" is not there, but credentials are sealed with it", "put it back from your copy; without it they are lost, and each user must sign in again")
	}
	return missing(err.Error(), "chown root and chmod 0400 "+path+", or put it back from your copy")
}

func (e *exam) snapshot(context.Context) Result {
	if e.cfg.Cold {
		return warning("the settings say that machines start cold", "leave out --cold: a restored machine is there in about a second")
	}
	found, err := filepath.Glob(filepath.Join(e.cfg.StateDir, "*/snapshots/browser-*/manifest.json"))
	if err != nil || len(found) == 0 {
		return ok("will be saved at the next start, which takes some seconds longer")
	}
	return ok("there is one; it is saved anew if image, driver, CPU or settings have changed")
}

func (e *exam) disk(context.Context) Result {
	state, err := room(e.cfg.StateDir)
	if err != nil {
		return missing(err.Error(), "name a directory that can be used with --state")
	}
	found := size(state) + " free for " + e.cfg.StateDir
	switch {
	case state < minStateRoom:
		return missing(found, "make room: no machine is started with less than "+size(minStateRoom))
	case state < goodStateRoom:
		return warning(found, "make room: snapshots and homes need some GiB")
	}
	if e.image {
		return ok(found)
	}
	images, err := room(e.cfg.ImageDir)
	if err != nil {
		return missing(err.Error(), "name a directory that can be used with --image-dir")
	}
	found += ", " + size(images) + " free for " + e.cfg.ImageDir
	if images < buildRoom {
		return missing(found, "make room: building the image needs "+size(buildRoom))
	}
	return ok(found)
}

// homes looks whether what people keep on their machines can fill the disk that
// the server itself needs.
func (e *exam) homes(context.Context) Result {
	dir := filepath.Join(e.cfg.StateDir, "homes")
	together, err := shareRoom(dir, filepath.Dir(server.DatabaseFile(e.cfg)))
	switch {
	case err != nil:
		return missing(err.Error(), "name a directory that can be used with --state")
	case together:
		return warning(dir+" has no limit of its own: a full home fills the disk for everybody",
			"mount a file system of its own at "+dir+", or give it a project quota")
	}
	return ok(dir + " has a limit of its own")
}

// shareRoom says whether two directories, which need not be there, fill up
// together: they are on one file system, and no project quota is on either.
func shareRoom(a, b string) (bool, error) {
	var stats [2]unix.Stat_t
	var rooms [2]unix.Statfs_t
	for i, dir := range []string{a, b} {
		dir = existing(dir)
		if err := errors.Join(unix.Stat(dir, &stats[i]), unix.Statfs(dir, &rooms[i])); err != nil {
			return false, fmt.Errorf("%s: %w", dir, err)
		}
	}
	return stats[0].Dev == stats[1].Dev && rooms[0].Blocks == rooms[1].Blocks, nil
}

// room is what is free on the file system of a directory that need not be there.
func room(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(existing(dir), &st); err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, nil //nolint:gosec // a file system's size
}
