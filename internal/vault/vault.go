// Package vault seals credential files and opens them again.
//
// Every version has a data key of its own, 256 random bits used for one
// AES-256-GCM encryption. The data key is wrapped, in the same way, with a
// root key from a file. Both are bound to what they belong to (tenant, user,
// provider, credential id, version) as additional data, the wrap to its root
// key's id as well: a row moved to another owner, version or key does not
// open. Rotation replaces the root key and rewraps; payloads stay as they are.
//
// What sealing cannot tell is that a whole older row was put back; the store's
// audit chain does. Memory that held keys and plaintext is overwritten after
// use where this package owns it, but Go may have copied it and cannot promise
// more; Harden and a machine without swap are the other half.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/store"
)

// Errors that callers tell apart.
var (
	// ErrNoKey: there is no root key file.
	ErrNoKey = errors.New("vault: there is no root key")
	// ErrKeyFile: the root key file is not as it must be; nothing was changed.
	ErrKeyFile = errors.New("vault: the root key file is refused")
	// ErrUnknownKey: the data is wrapped with a root key that the file does not
	// hold. Just after a rotation, reading the row again helps.
	ErrUnknownKey = errors.New("vault: the data is sealed with a root key that is not here")
	// ErrSealed: the data was altered, or belongs to somebody or something else.
	ErrSealed = errors.New("vault: the sealed data does not open")
	// ErrInvalid: the call breaks a limit or leaves something out.
	ErrInvalid = errors.New("vault: invalid argument")
	// ErrBusy: another process is changing the root key.
	ErrBusy = errors.New("vault: another process is changing the root key")
)

const (
	keySize = 32
	// schema is the number of the one format there is, of AAD, container and
	// algorithms together.
	schema = 1
	// overhead is what sealing adds: a nonce of 12 bytes and a tag of 16.
	overhead = 12 + 16

	domainWrap    = "anteroom/vault/wrap"
	domainPayload = "anteroom/vault/payload"
	tenant        = "" // reserved: one server is one tenant
)

// Config is what Open needs.
type Config struct {
	// KeyPath is the root key file's. Rotation and creation write beside it.
	KeyPath string
	// Create makes a key if there is no file. Set it only while nothing is
	// sealed yet: what an earlier key sealed stays closed with a new one.
	Create bool
}

// Vault seals and opens. It keeps no key: the file is read, and checked, each
// time, so that a rotation by another process is seen at once. All methods may
// be called concurrently. There is nothing to close.
type Vault struct {
	path string
}

// Open checks the root key file, or makes it if it is missing and cfg says so.
// ErrNoKey, ErrKeyFile.
func Open(cfg Config) (*Vault, error) {
	if cfg.KeyPath == "" {
		return nil, fmt.Errorf("%w: no path of a root key file", ErrInvalid)
	}
	removeStale(cfg.KeyPath)
	keys, err := readKeys(cfg.KeyPath)
	if errors.Is(err, ErrNoKey) && cfg.Create {
		if err := createKeys(cfg.KeyPath); err != nil {
			return nil, err
		}
		keys, err = readKeys(cfg.KeyPath)
	}
	if err != nil {
		return nil, err
	}
	keys.wipe()
	return &Vault{path: cfg.KeyPath}, nil
}

// Binding is what sealed data belongs to. All fields are needed; Version is
// counted from 1.
type Binding struct {
	UserID       string
	Provider     string
	CredentialID string
	Version      int
}

// BindingOf returns the binding of a row.
func BindingOf(c store.Credential) Binding {
	return Binding{UserID: c.UserID, Provider: c.Provider, CredentialID: c.ID, Version: c.Version}
}

func (b Binding) check() error {
	if b.UserID == "" || b.Provider == "" || b.CredentialID == "" || b.Version < 1 {
		return fmt.Errorf("%w: incomplete binding %+v", ErrInvalid, b)
	}
	return nil
}

// aad is the additional data: every field preceded by its length, so that no
// two bindings have the same. The wrap's has the root key's id at its end.
func (b Binding) aad(domain string, kekID ...string) []byte {
	var out []byte
	field := func(p []byte) {
		out = binary.BigEndian.AppendUint64(out, uint64(len(p)))
		out = append(out, p...)
	}
	number := func(n int) { field(binary.BigEndian.AppendUint64(nil, uint64(n))) } //nolint:gosec // the same bits
	field([]byte(domain))
	number(schema)
	field([]byte(tenant))
	field([]byte(b.UserID))
	field([]byte(b.Provider))
	field([]byte(b.CredentialID))
	number(b.Version)
	for _, id := range kekID {
		field([]byte(id))
	}
	return out
}

// Seal encrypts the files of one version under a fresh data key. It keeps no
// reference to them. ErrInvalid if the files break a limit.
func (v *Vault) Seal(b Binding, files []File) (store.Sealed, error) {
	if err := b.check(); err != nil {
		return store.Sealed{}, err
	}
	plain, err := encode(files)
	if err != nil {
		return store.Sealed{}, err
	}
	defer clear(plain)
	keys, err := readKeys(v.path)
	if err != nil {
		return store.Sealed{}, err
	}
	defer keys.wipe()
	kek := &keys[0]

	dek := make([]byte, keySize)
	defer clear(dek)
	rand.Read(dek) // never fails: the program ends if there is no entropy
	ciphertext, err := encrypt(dek, plain, b.aad(domainPayload))
	if err != nil {
		return store.Sealed{}, err
	}
	wrapped, err := encrypt(kek.secret[:], dek, b.aad(domainWrap, kek.id))
	if err != nil {
		return store.Sealed{}, err
	}
	return store.Sealed{Schema: schema, KEKID: kek.id, WrappedDEK: wrapped, Ciphertext: ciphertext, SHA256: sha256.Sum256(ciphertext)}, nil
}

// Open decrypts what Seal made for the same binding. The caller clears the
// files' contents after use. ErrSealed, ErrUnknownKey.
func (v *Vault) Open(b Binding, s store.Sealed) ([]File, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if len(s.Ciphertext) > maxContainer+overhead || sha256.Sum256(s.Ciphertext) != s.SHA256 {
		return nil, fmt.Errorf("%w: its digest does not match", ErrSealed)
	}
	keys, err := readKeys(v.path)
	if err != nil {
		return nil, err
	}
	defer keys.wipe()
	dek, err := keys.unwrap(b, s)
	if err != nil {
		return nil, err
	}
	defer clear(dek)
	plain, err := decrypt(dek, s.Ciphertext, b.aad(domainPayload))
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return decode(plain)
}

// unwrap returns the data key.
func (k keyring) unwrap(b Binding, s store.Sealed) ([]byte, error) {
	if s.Schema != schema {
		return nil, fmt.Errorf("%w: its format is %d, this program knows %d", ErrSealed, s.Schema, schema)
	}
	kek, ok := k.find(s.KEKID)
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknownKey, s.KEKID)
	}
	if len(s.WrappedDEK) != keySize+overhead {
		return nil, fmt.Errorf("%w: the wrapped key has %d bytes", ErrSealed, len(s.WrappedDEK))
	}
	return decrypt(kek.secret[:], s.WrappedDEK, b.aad(domainWrap, kek.id))
}

func encrypt(key, plain, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, plain, aad), nil //nolint:gosec // it draws the nonce itself
}

func decrypt(key, sealed, aad []byte) ([]byte, error) {
	aead, err := newAEAD(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, sealed, aad)
	if err != nil {
		return nil, ErrSealed // the cause is always the same, and says nothing
	}
	return plain, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("vault: cipher: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("vault: cipher: %w", err)
	}
	return aead, nil
}
