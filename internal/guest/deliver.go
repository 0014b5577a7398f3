//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// Errors of a delivery that callers tell apart.
var (
	// ErrOlder: a later version was delivered to this machine already.
	ErrOlder = errors.New("a later version was delivered already")
	// ErrNotInMemory: a secret file would lie on a disk.
	ErrNotInMemory = errors.New("the directory does not lie in memory")
)

// Deliverer puts credential files into a person's home. Methods may be called
// concurrently.
type Deliverer struct {
	user     User
	inMemory func(dir *os.File) error

	mu   sync.Mutex                   // guards last, and holds one delivery at a time
	last map[string]guestapi.Delivery // by provider; without files
}

// NewDeliverer returns a Deliverer for u's home. It refuses to put secret
// files anywhere but on a file system in memory.
func NewDeliverer(u User) *Deliverer {
	return &Deliverer{user: u, inMemory: inMemory, last: make(map[string]guestapi.Delivery)}
}

// Deliver writes the files, each atomically, 0600 and owned by the person, the
// required ones last, and removes those that the provider names and the
// delivery lacks. A delivery without files takes all of them away.
//
// The same delivery again writes the same again. But where what is there is a
// fresher state of the same sign-in (the same credential, or the same
// SessionID), the tool has refreshed its tokens, which may have used up the
// delivered ones: then nothing is written. A version below one that was
// delivered before is ErrOlder. Other errors: an invalid provider file,
// provider.ErrCredential, ErrNotInMemory.
func (d *Deliverer) Deliver(in guestapi.Delivery) (guestapi.DeliveryAck, error) {
	if err := in.Provider.Validate(); err != nil {
		return guestapi.DeliveryAck{}, err
	}
	content := make(provider.Content, len(in.Files))
	for _, f := range in.Files {
		if _, twice := content[f.Name]; twice {
			return guestapi.DeliveryAck{}, fmt.Errorf("%w: %q is there twice", provider.ErrCredential, f.Name)
		}
		content[f.Name] = f.Content
	}
	if len(in.Files) > 0 {
		if err := in.Provider.Check(content); err != nil {
			return guestapi.DeliveryAck{}, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ack := guestapi.DeliveryAck{CredentialID: in.CredentialID, Version: in.Version, SHA256: guestapi.DeliveryHash(in.Files)}
	last, again := d.last[in.Provider.Name]
	switch {
	case again && len(in.Files) > 0 && in.Version < last.Version:
		return guestapi.DeliveryAck{}, fmt.Errorf("version %d, have %d: %w", in.Version, last.Version, ErrOlder)
	case again && sameSignIn(in, last) && len(in.Files) > 0 && d.refreshed(in.Provider, content):
		ack.Kept = true
		return ack, nil
	}
	if err := d.write(in.Provider, content); err != nil {
		return guestapi.DeliveryAck{}, err
	}
	if len(in.Files) == 0 { // gone: what comes next may count from 1 again
		delete(d.last, in.Provider.Name)
		return ack, nil
	}
	in.Files = nil
	d.last[in.Provider.Name] = in
	return ack, nil
}

// Collect reads f's credential files as they are now: the tools refresh their
// tokens by themselves. Errors are those of Capture.
func (d *Deliverer) Collect(f *provider.File) (guestapi.Credentials, error) {
	if err := f.Validate(); err != nil {
		return guestapi.Credentials{}, err
	}
	d.mu.Lock() // not in the middle of a delivery
	defer d.mu.Unlock()
	have, err := Capture(f, d.user)
	if err != nil {
		return guestapi.Credentials{}, err
	}
	return guestapi.Credentials{Provider: f.Name, Files: have.Files, Account: have.Account, ExpiresAt: have.ExpiresAt}, nil
}

func sameSignIn(a, b guestapi.Delivery) bool {
	return a.CredentialID == b.CredentialID || a.SessionID != "" && a.SessionID == b.SessionID
}

// refreshed says whether the home holds a later state of the same sign-in.
func (d *Deliverer) refreshed(f *provider.File, delivered provider.Content) bool {
	have, err := Capture(f, d.user)
	if err != nil {
		return false
	}
	current := make(provider.Content, len(have.Files))
	for _, file := range have.Files {
		current[file.Name] = file.Content
	}
	return provider.Fresher(f, delivered, current)
}

func (d *Deliverer) write(f *provider.File, content provider.Content) error {
	order := slices.Clone(f.Files)
	slices.SortStableFunc(order, func(a, b provider.Credential) int {
		switch {
		case a.Required == b.Required:
			return 0
		case b.Required:
			return -1
		}
		return 1
	})
	for i := range order {
		if err := d.writeOne(&order[i], content); err != nil {
			return fmt.Errorf("delivering %s: %w", order[i].Name, err)
		}
	}
	return nil
}

func (d *Deliverer) writeOne(c *provider.Credential, content provider.Content) error {
	bytes, ok := content[c.Name]
	dir, err := openDir(d.user.Home, path.Dir(c.Path), &d.user)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	if !ok {
		if err := unix.Unlinkat(int(dir.Fd()), path.Base(c.Path), 0); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
		return nil
	}
	if c.Secret {
		if err := d.inMemory(dir); err != nil {
			return err
		}
	}
	return writeAt(dir, path.Base(c.Path), bytes, 0o600, d.user)
}

// inMemory says whether an open directory is on a file system in memory.
func inMemory(dir *os.File) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil {
		return fmt.Errorf("%s: %w", dir.Name(), err)
	}
	if st.Type != unix.TMPFS_MAGIC && st.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s: %w", dir.Name(), ErrNotInMemory)
	}
	return nil
}
