package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

const rotateBatch = 100

// rewrapStore is what Rotate needs of the store.
type rewrapStore interface {
	// SealedVersions returns versions that are wrapped with none of these keys.
	SealedVersions(ctx context.Context, kekIDNot []string, limit int) ([]store.Credential, error)
	// Rewrap replaces a wrap if it is still by oldKEK; else store.ErrConflict.
	Rewrap(ctx context.Context, id, oldKEK, newKEK string, wrapped []byte) error
	// RetireKEK forbids that anything is stored under a key that nothing names;
	// store.ErrConflict while something does.
	RetireKEK(ctx context.Context, kekID string) error
}

// Rotate makes a new root key the current one, wraps every version's data key
// with it and removes the older root keys from the file. It returns how many
// versions it wrapped. Servers may go on sealing and opening meanwhile.
//
// It may be killed or fail at any point, and nothing is lost: the new key is
// on the disk before anything is wrapped with it, and an old one is removed
// only once the store has promised that nothing will name it again. Calling
// Rotate again goes on where it stopped, without another new key.
//
// A version that does not open, or names a key that the file does not hold,
// stays as it is and is reported (ErrSealed, ErrUnknownKey) after the others
// were done; until its owner has deleted it, the older keys stay in the file.
func (v *Vault) Rotate(ctx context.Context, s rewrapStore) (n int, err error) {
	unlock, err := lock(v.path, false)
	if err != nil {
		return 0, err
	}
	defer unlock()
	keys, err := readKeys(v.path)
	if err != nil {
		return 0, err
	}
	if len(keys) == 1 { // else an earlier rotation was not finished
		keys = append(keyring{newRootKey(time.Now())}, keys...)
		if err := writeKeys(v.path, keys, os.Rename); err != nil {
			return 0, err
		}
	}
	defer keys.wipe()
	for {
		done, failed := rewrapAll(ctx, s, keys)
		n += done
		if failed != nil {
			return n, failed
		}
		err := retire(ctx, s, keys[1:])
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrConflict) {
			return n, err
		}
		// A server that had read the file before committed just now.
	}
	return n, writeKeys(v.path, keys[:1], os.Rename)
}

func retire(ctx context.Context, s rewrapStore, old keyring) error {
	for _, key := range old {
		if err := s.RetireKEK(ctx, key.id); err != nil {
			return fmt.Errorf("vault: retire %s: %w", key, err)
		}
	}
	return nil
}

// rewrapAll wraps with the first key whatever is wrapped with another. It
// asks for a batch again until nothing is left but what cannot be done.
func rewrapAll(ctx context.Context, s rewrapStore, keys keyring) (n int, err error) {
	not := []string{keys[0].id}
	var unknown, closed []error
	for {
		batch, err := s.SealedVersions(ctx, not, rotateBatch+len(closed))
		if err != nil {
			return n, fmt.Errorf("vault: rotate: %w", err)
		}
		progress := false
		closed = nil
		for _, c := range batch {
			if _, ok := keys.find(c.Sealed.KEKID); !ok {
				if !slices.Contains(not, c.Sealed.KEKID) {
					not = append(not, c.Sealed.KEKID)
					unknown = append(unknown, fmt.Errorf("%w: %q, of credential %s", ErrUnknownKey, c.Sealed.KEKID, c.ID))
				}
				progress = true // it is not in the next batch
				continue
			}
			err := rewrap(ctx, s, keys, c)
			switch {
			case err == nil:
				n, progress = n+1, true
			case errors.Is(err, store.ErrConflict):
				progress = true // it was deleted or replaced meanwhile
			case errors.Is(err, ErrSealed):
				closed = append(closed, err)
			default:
				return n, err
			}
		}
		if !progress {
			return n, errors.Join(append(unknown, closed...)...)
		}
	}
}

func rewrap(ctx context.Context, s rewrapStore, keys keyring, c store.Credential) error {
	dek, err := keys.unwrap(BindingOf(c), c.Sealed)
	if err != nil {
		return fmt.Errorf("vault: rotate credential %s: %w", c.ID, err)
	}
	defer clear(dek)
	wrapped, err := encrypt(keys[0].secret[:], dek, BindingOf(c).aad(domainWrap, keys[0].id))
	if err != nil {
		return err
	}
	if err := s.Rewrap(ctx, c.ID, c.Sealed.KEKID, keys[0].id, wrapped); err != nil {
		return fmt.Errorf("vault: rotate credential %s: %w", c.ID, err)
	}
	return nil
}
