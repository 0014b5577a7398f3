package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

const (
	// connectPrefix begins the names of temporary state directories.
	connectPrefix = "anteroom-connect-"
	// lastWords is how long the page has to show how it ended.
	lastWords = 2 * time.Second
	// runDir is in memory, as a rule, and only root's.
	runDir = "/run"
)

type deliverer = func(ctx context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error)

// Connect is one sign-in for this computer itself.
type Connect struct {
	// Config is the server's; its state directory, key file, user and snapshot
	// are not used.
	Config
	Provider string
	// Deliver puts the files where this computer's own tool finds them.
	Deliver deliverer
	// Link is called once, with the one address that leads to the session.
	Link func(address net.Addr, link string)
	// Progress is called with each event of the session's, in order.
	Progress func(session.Event)
}

// RunConnect runs a server for one session and returns that once it has ended,
// or ctx has. Everything is kept in a temporary directory; when RunConnect
// returns, directory and machines are gone, also after an error. What one that
// was killed has left is removed by the next.
func RunConnect(ctx context.Context, c Connect) (ended session.Session, err error) {
	c.KeyFile, c.User, c.Cold, c.WarmMachines = "", "", true, 0
	if c.Driver == DriverAuto {
		c.Driver = DriverGVisor // looking for the best takes longer than one machine's start
	}
	if err := ready(ctx, c.Config); err != nil {
		return ended, err
	}
	removeLeftOver(ctx, c.Config)
	dir, unlock, err := temporaryState()
	if err != nil {
		return ended, err
	}
	defer unlock()
	defer func() {
		if rm := os.RemoveAll(dir); rm != nil {
			err = errors.Join(err, fmt.Errorf("the temporary state could not be removed; do it by hand: %w", rm))
		}
	}()
	c.StateDir = dir
	err = run(ctx, c.Config, purpose{
		deliver: c.Deliver, once: true,
		during: func(ctx context.Context, db *sqlite.DB, service *control.Service, address net.Addr) error {
			var err error
			ended, err = c.follow(ctx, db, service, address)
			return err
		},
	})
	if ctx.Err() != nil && (err == nil || errors.Is(err, ctx.Err())) {
		err = ctx.Err() // whatever it was that was interrupted
	}
	return ended, err
}

// follow starts the session and tells what happens to it until it has ended.
func (c Connect) follow(ctx context.Context, db *sqlite.DB, service *control.Service, address net.Addr) (session.Session, error) {
	user, err := db.CreateUser(ctx, "you")
	if err != nil {
		return session.Session{}, err
	}
	one, _, err := service.StartSession(ctx, user.ID, c.Provider, "", guestapi.View{})
	if err != nil {
		return one, err
	}
	base, err := c.BaseURL(address.String())
	if err != nil {
		return one, err
	}
	link, err := newLink(ctx, db, user.ID, base+one.ViewerURL, one.Deadline)
	if err != nil {
		return one, err
	}
	c.Link(address, link)
	for seen := int64(0); ; {
		changed := service.Changed()
		events, err := service.EventsAfter(ctx, user.ID, one.ID, seen, 0)
		if err != nil {
			return one, err
		}
		for _, e := range events {
			seen = e.Seq
			c.Progress(e)
		}
		if one, err = service.Session(ctx, user.ID, one.ID); err != nil {
			return one, err
		}
		if one.State.Final() && len(events) == 0 {
			pause(ctx, lastWords)
			return one, nil
		}
		if len(events) > 0 {
			continue // there may be more
		}
		select {
		case <-ctx.Done():
			return one, ctx.Err()
		case <-changed:
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// temporaryState makes a state directory and locks it. It gets its name only
// once it is locked, so that removeLeftOver of another process leaves it alone.
func temporaryState() (dir string, unlock func(), err error) {
	parent := os.TempDir()
	if inMemory(runDir) {
		parent = runDir
	}
	fresh, err := os.MkdirTemp(parent, ".new-"+connectPrefix) // 0700
	if err != nil {
		return "", nil, fmt.Errorf("temporary state: %w", err)
	}
	dir = filepath.Join(parent, connectPrefix+filepath.Base(fresh)[len(".new-"+connectPrefix):])
	unlock, err = lockState(fresh)
	if err == nil {
		err = os.Rename(fresh, dir)
		if err != nil {
			unlock()
		}
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("temporary state: %w", err), os.RemoveAll(fresh))
	}
	return dir, unlock, nil
}

// inMemory says whether a directory is in memory, with room enough.
func inMemory(dir string) bool {
	const tmpfs, room = 0x01021994, 320 << 20
	var st syscall.Statfs_t
	return syscall.Statfs(dir, &st) == nil && st.Type == tmpfs && int64(st.Bavail)*st.Bsize >= room //nolint:gosec // a file system's size
}

// removeLeftOver destroys the machines of connects that were killed, and their
// directories. What cannot be removed is logged.
func removeLeftOver(ctx context.Context, cfg Config) {
	for _, parent := range []string{runDir, os.TempDir()} {
		dirs, _ := filepath.Glob(filepath.Join(parent, connectPrefix+"*"))
		for _, dir := range dirs {
			if err := removeOneLeftOver(ctx, cfg, dir); err != nil && !errors.Is(err, ErrLocked) {
				cfg.Logger.Warn("what an earlier connect left could not be removed", "dir", dir, "err", err)
			}
		}
	}
}

func removeOneLeftOver(ctx context.Context, cfg Config, dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || st.Uid != 0 || info.Mode().Perm() != 0o700 {
		return errors.New("it is not a directory of root's alone")
	}
	unlock, err := lockState(dir)
	if err != nil {
		return err
	}
	defer unlock()
	cfg.StateDir, cfg.Cold = dir, true
	if err := removeMachines(ctx, cfg); err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// removeMachines destroys all machines of a state directory.
func removeMachines(ctx context.Context, cfg Config) error {
	for _, name := range driverNames() {
		if !hasMachines(cfg, name) {
			continue
		}
		golden, err := image.Find(image.Config{Dir: cfg.ImageDir, Guest: cfg.Guest})
		if err != nil {
			return err
		}
		driver, err := openDriver(ctx, cfg, golden, name, true)
		if err != nil {
			return err
		}
		_, err = machine.NewManager(driver, cfg.Logger).Reclaim(ctx, nil)
		if err := errors.Join(err, driver.Close()); err != nil {
			return err
		}
	}
	return nil
}
