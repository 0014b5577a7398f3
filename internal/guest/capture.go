//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// errNoFiles says that none of the required credential files is there.
var errNoFiles = errors.New("no credential file")

// maxStateFile limits the tools' own state files that an account label is read
// from; they are larger than credentials.
const maxStateFile = 256 << 10

// Captured is what a tool has written into a home directory.
type Captured struct {
	Files     []guestapi.File
	Account   string    // may be empty
	ExpiresAt time.Time // zero if unknown
}

// Capture reads exactly the files that f names, below u.Home, without following
// a symbolic link anywhere, and holds them to f's schemas. Errors wrap
// errNoFiles (nothing was written yet), errNotPlain or provider.ErrCredential
// and hold no content.
func Capture(f *provider.File, u User) (Captured, error) {
	var out Captured
	content := make(provider.Content)
	required := false
	for i := range f.Files {
		c := &f.Files[i]
		b, err := readFile(u.Home, c.Path, u, provider.MaxCredentialBytes)
		if errors.Is(err, os.ErrNotExist) {
			continue // Check says whether it may be missing
		}
		if err != nil {
			return Captured{}, fmt.Errorf("reading %s: %w", c.Name, err)
		}
		required = required || c.Required
		content[c.Name] = b
		out.Files = append(out.Files, guestapi.File{Name: c.Name, Content: b})
	}
	if !required {
		return Captured{}, errNoFiles
	}
	if err := f.Check(content); err != nil {
		return Captured{}, err
	}
	out.ExpiresAt = f.Expires(content)
	out.Account, _ = provider.ReadLabel(f.Account, func(path string) ([]byte, error) {
		return readFile(u.Home, path, u, maxStateFile)
	}) // a label is for people: none is no fault
	return out, nil
}

// present says whether any of f's credential files is there, whatever it is.
func present(f *provider.File, u User) (bool, error) {
	for i := range f.Files {
		_, err := readFile(u.Home, f.Files[i].Path, u, provider.MaxCredentialBytes)
		if err == nil || errors.Is(err, errNotPlain) {
			return true, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}
