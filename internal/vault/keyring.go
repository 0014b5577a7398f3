package vault

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

// The root key file is text:
//
//	anteroom-vault-keys v1
//	ID CREATED SECRET
//
// The first key is the current one, with which new versions are sealed; the
// others are older ones that a rotation has not yet done away with. ID is
// derived from the secret, so that a damaged file is noticed; CREATED is RFC
// 3339 in UTC, to the second; SECRET is 32 bytes in base64.
const (
	keyFileHeader   = "anteroom-vault-keys v1"
	keyFileName     = "anteroom-vault-keys v"
	maxKeys         = 16
	maxKeyFileBytes = 4 << 10
)

// rootKey is one root key. It does not show its secret.
type rootKey struct {
	id      string
	created time.Time
	secret  [keySize]byte
}

func (k rootKey) String() string { return "root key " + k.id }

// Format keeps the secret from every verb of fmt.
func (k rootKey) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, k.String()) }

// LogValue keeps the secret from slog.
func (k rootKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

func newRootKey(now time.Time) rootKey {
	k := rootKey{created: now.UTC().Truncate(time.Second)}
	rand.Read(k.secret[:]) // never fails: the program ends if there is no entropy
	k.id = keyID(k.secret)
	return k
}

// keyID names a key by a hash of its 256 random bits, which tells nothing.
func keyID(secret [keySize]byte) string {
	h := sha256.New()
	h.Write([]byte("anteroom/vault/kek-id\x00"))
	h.Write(secret[:])
	return strings.ToLower(base32.StdEncoding.EncodeToString(h.Sum(nil)[:10]))
}

// keyring is the content of a key file: at least one key, the current first.
type keyring []rootKey

// find returns the key in place: a copy would escape wipe.
func (k keyring) find(id string) (*rootKey, bool) {
	for i := range k {
		if k[i].id == id {
			return &k[i], true
		}
	}
	return nil, false
}

// wipe overwrites the secrets.
func (k keyring) wipe() {
	for i := range k {
		clear(k[i].secret[:])
	}
}

// format writes the file's text.
func (k keyring) format() []byte {
	out := make([]byte, 0, maxKeyFileBytes)
	out = append(out, keyFileHeader+"\n"...)
	for i := range k {
		key := &k[i]
		out = append(out, key.id+" "+key.created.Format(time.RFC3339)+" "...)
		out = base64.StdEncoding.AppendEncode(out, key.secret[:])
		out = append(out, '\n')
	}
	return out
}

// parseKeys reads a key file's text. Only what format writes is accepted, to
// the byte; an error never shows a part of it.
func parseKeys(text []byte) (keyring, error) {
	refuse := func(format string, args ...any) (keyring, error) {
		return nil, fmt.Errorf("%w: "+format, append([]any{ErrKeyFile}, args...)...)
	}
	if len(text) > maxKeyFileBytes {
		return refuse("it has more than %d bytes", maxKeyFileBytes)
	}
	header, rest, _ := bytes.Cut(text, []byte("\n"))
	if string(header) != keyFileHeader {
		if version, ok := bytes.CutPrefix(header, []byte(keyFileName)); ok && len(version) > 0 && len(bytes.Trim(version, "0123456789")) == 0 {
			return refuse("it was written by another version of Anteroom")
		}
		return refuse("it does not begin with %q", keyFileHeader)
	}
	var keys keyring
	for n := 2; len(rest) > 0; n++ {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\n"))
		key, ok := parseKey(line)
		if !ok {
			return refuse("line %d is not a key", n)
		}
		if _, twice := keys.find(key.id); twice || len(keys) == maxKeys {
			return refuse("line %d repeats a key, or is one too many", n)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return refuse("it holds no key")
	}
	again := keys.format()
	defer clear(again)
	if !bytes.Equal(again, text) {
		return refuse("it is not written as it must be")
	}
	return keys, nil
}

func parseKey(line []byte) (rootKey, bool) {
	fields := bytes.Split(line, []byte(" "))
	if len(fields) != 3 {
		return rootKey{}, false
	}
	created, err := time.Parse(time.RFC3339, string(fields[1]))
	if err != nil {
		return rootKey{}, false
	}
	k := rootKey{id: string(fields[0]), created: created.UTC()}
	var secret [keySize + 1]byte // with room for the padding
	defer clear(secret[:])
	if base64.StdEncoding.DecodedLen(len(fields[2])) > len(secret) {
		return rootKey{}, false
	}
	n, err := base64.StdEncoding.Decode(secret[:], fields[2])
	if err != nil || n != keySize {
		return rootKey{}, false
	}
	copy(k.secret[:], secret[:n])
	return k, k.id == keyID(k.secret)
}
