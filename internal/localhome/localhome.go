// Package localhome puts credential files into a home directory of this
// computer: what `anteroom connect` does in place of a CLI machine. It follows
// the variables by which a person has a tool keep its files elsewhere.
//
// It works with the rights of the home's owner, also when started by root, so
// that nothing that the owner has put there (links, directories that change)
// can lead to a file that is not the owner's.
package localhome

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// maxFile limits what is read of a file that is there already.
const maxFile = 1 << 20

// keptSuffix ends the name of a file that was there, could not be used as a
// sign-in, and was kept when the new one took its place.
const keptSuffix = ".before-anteroom"

var (
	// ErrLive: the home holds a sign-in already.
	ErrLive = errors.New("there is a sign-in already")
	// ErrHome: the home directory cannot be used.
	ErrHome = errors.New("home directory")
)

// Home is where a person's tool keeps its files: the person's home directory, or
// what a variable of the tool's own names in its place.
type Home struct {
	Dir string
	UID int
	GID int

	moved *provider.HomeEnv // the variable that names Dir; nil for a home directory
}

// Find returns the home at dir, whose owner is the person. If dir is empty it
// is that of the user who started this program, through sudo or not; or where
// this program's environment sets f's HomeEnv, that directory, which must be
// there already.
func Find(dir string, f *provider.File) (Home, error) {
	if dir != "" {
		return open(dir)
	}
	who, err := invoker()
	if err != nil {
		return Home{}, fmt.Errorf("%w: whose it is cannot be told; name it with --home: %w", ErrHome, err)
	}
	h, err := open(who.HomeDir)
	if err != nil || f.HomeEnv == nil || os.Getenv(f.HomeEnv.Name) == "" {
		return h, err
	}
	h.Dir, h.moved = os.Getenv(f.HomeEnv.Name), f.HomeEnv
	info, err := os.Stat(h.Dir)
	if err != nil || !info.IsDir() || !filepath.IsAbs(h.Dir) {
		return Home{}, fmt.Errorf("%w: %s is set, so %s keeps its files there, but %q is not the absolute path of a directory; make it or unset the variable, or name a home with --home",
			ErrHome, f.HomeEnv.Name, f.Title, h.Dir)
	}
	return h, nil
}

// open returns the home directory at dir.
func open(dir string) (Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Home{}, fmt.Errorf("%w: %w", ErrHome, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return Home{}, fmt.Errorf("%w: %w", ErrHome, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() {
		return Home{}, fmt.Errorf("%w: %s is not a directory", ErrHome, dir)
	}
	return Home{Dir: dir, UID: int(st.Uid), GID: int(st.Gid)}, nil
}

func invoker() (*user.User, error) {
	if uid := os.Getenv("SUDO_UID"); uid != "" && os.Geteuid() == 0 {
		return user.LookupId(uid)
	}
	return user.Current()
}

// Path is where below Dir the file is that a provider file has at p.
func (h Home) Path(p string) string {
	if h.moved != nil {
		p, _ = h.moved.Path(p) // a valid file's moves all
	}
	return p
}

// Live returns ErrLive, with the path, if the home holds a sign-in for f that
// looks usable. Whether the vendor still accepts it cannot be told.
func (h Home) Live(f *provider.File) error {
	return h.as(func(root *os.Root) error { return h.live(root, f) })
}

func (h Home) live(root *os.Root, f *provider.File) error {
	have := provider.Content{}
	at := ""
	for _, c := range f.Files {
		content, err := read(root, h.Path(c.Path), maxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if c.Secret && at == "" {
			at = c.Path
		}
		have[c.Name] = content
	}
	if at != "" && f.Check(have) == nil {
		return fmt.Errorf("%w: %s", ErrLive, h.shown(at))
	}
	return nil
}

// shown is a file's place in the words of whoever uses the tool.
func (h Home) shown(p string) string {
	if h.moved != nil {
		return "$" + h.moved.Name + "/" + h.Path(p)
	}
	return "~/" + p
}

// Deliver writes the files, each atomically and 0600, and before them the
// provider's seeds, merged into what is there. ErrLive, and nothing is written,
// if there is another sign-in and force does not say to replace it. A file that
// is no usable sign-in is kept under another name. notes are for the person:
// what of the seeds could not be had without changing what is theirs.
func (h Home) Deliver(_ context.Context, in guestapi.Delivery, force bool) (ack guestapi.DeliveryAck, notes []string, err error) {
	content := make(provider.Content, len(in.Files))
	for _, f := range in.Files {
		content[f.Name] = f.Content
	}
	if len(content) != len(in.Files) {
		return ack, nil, fmt.Errorf("%w: a file comes twice", provider.ErrCredential)
	}
	if err := in.Provider.Check(content); err != nil {
		return ack, nil, err
	}
	err = h.as(func(root *os.Root) error {
		alive := h.live(root, in.Provider)
		if alive != nil && (!errors.Is(alive, ErrLive) || !force) {
			return alive
		}
		for _, seed := range in.Provider.Target.Seed {
			note, err := h.seed(root, in.Provider, seed)
			if err != nil {
				return err
			}
			if note != "" {
				notes = append(notes, note)
			}
		}
		for _, required := range []bool{false, true} { // last what makes it a sign-in
			for _, c := range in.Provider.Files {
				bytes, ok := content[c.Name]
				if !ok || c.Required != required {
					continue // an optional one that did not come: what is there stays
				}
				if err := place(root, h.Path(c.Path), bytes, 0o600, alive == nil); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return ack, nil, err
	}
	return guestapi.DeliveryAck{CredentialID: in.CredentialID, Version: in.Version, SHA256: guestapi.DeliveryHash(in.Files)}, notes, nil
}

// seed writes a seed's file, or merges it into the one that is there. A file that
// it cannot be merged into stays as it is, and the note says so.
func (h Home) seed(root *os.Root, f *provider.File, s provider.Seed) (note string, err error) {
	name := h.Path(s.Path)
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", place(root, name, []byte(s.Content), 0o600, false)
	}
	if err != nil {
		return "", err
	}
	lacks := func(what string) string {
		return fmt.Sprintf("%s %s. %s may not use the sign-in before this is in it: %s", h.shown(s.Path), what, f.Title, strings.TrimSpace(s.Content))
	}
	have, want, differ, unusable := merged(root, name, s)
	changes := !bytes.Equal(want, have)
	if changes && !info.Mode().IsRegular() { // renaming would put a file where the person has a link
		unusable = "it is a link"
	}
	if unusable != "" {
		return lacks("was left as it is: " + unusable), nil
	}
	if len(differ) > 0 {
		note = lacks("has another value at " + strings.Join(differ, ", ") + ", which was left")
	}
	if !changes {
		return note, nil
	}
	return note, place(root, name, want, info.Mode().Perm(), false)
}

// merged reads a file and merges a seed into it; unusable says why it cannot.
func merged(root *os.Root, name string, s provider.Seed) (have, want []byte, differ []string, unusable string) {
	have, err := read(root, name, provider.MaxSeeded)
	if err == nil {
		want, differ, err = s.Merge(have)
	}
	if err != nil {
		unusable = err.Error()
	}
	return have, want, differ, unusable
}

// place writes one file: beside its place first, in full and onto the disk,
// then into it. With keep, a different file that is there gets another name.
func place(root *os.Root, name string, content []byte, mode fs.FileMode, keep bool) error {
	dir := path.Dir(name)
	if err := root.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if keep {
		old, err := read(root, name, maxFile)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		case len(old) > 0 && !bytes.Equal(old, content):
			if err := root.Rename(name, name+keptSuffix); err != nil {
				return err
			}
		}
	}
	temp := path.Join(dir, ".anteroom-"+randomName())
	if err := write(root, temp, content, mode); err != nil {
		return errors.Join(err, removeIfThere(root, temp))
	}
	if err := root.Rename(temp, name); err != nil {
		return errors.Join(err, removeIfThere(root, temp))
	}
	return syncDir(root, dir)
}

func write(root *os.Root, name string, content []byte, mode fs.FileMode) (err error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(mode); err != nil { // whatever the umask took away
		return err
	}
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// read reads a regular file of at most limit bytes. O_NONBLOCK: a FIFO must not
// hold us up.
func read(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > limit {
		return nil, fmt.Errorf("%w: %s is not a file that a sign-in could be in; move it away", ErrHome, filepath.Join(root.Name(), name))
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

func syncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func removeIfThere(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func randomName() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// as runs f in the home, with the owner's rights on files.
func (h Home) as(f func(*os.Root) error) error {
	done := make(chan error, 1)
	go func() {
		// The rights are the thread's. It is never unlocked, so it ends with
		// this goroutine, and no other ever runs with them.
		runtime.LockOSThread()
		done <- func() error {
			if err := becomeOnFiles(h.UID, h.GID); err != nil {
				return err
			}
			root, err := os.OpenRoot(h.Dir)
			if err != nil {
				return fmt.Errorf("%w: %w", ErrHome, err)
			}
			defer func() { _ = root.Close() }()
			return f(root)
		}()
	}()
	return <-done
}

// becomeOnFiles takes on a user's and group's rights on files, on this thread.
// The system calls do not say whether they worked, so they are asked twice.
func becomeOnFiles(uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil // whose home it is decides the kernel, as ever
	}
	for _, id := range []struct {
		set func(int) (int, error)
		to  int
	}{{unix.SetfsgidRetGid, gid}, {unix.SetfsuidRetUid, uid}} {
		if _, err := id.set(id.to); err != nil {
			return fmt.Errorf("becoming the home's owner: %w", err)
		}
		if now, err := id.set(id.to); err != nil || now != id.to {
			return errors.New("becoming the home's owner: the kernel refused group or user " + strconv.Itoa(id.to))
		}
	}
	return nil
}
