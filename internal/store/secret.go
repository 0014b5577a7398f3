package store

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
)

// Secret is an API token, the code of a sign-in link or the value of a page's
// cookie. However it is printed, logged or marshalled, it shows nothing; who
// hands it to its owner calls Reveal.
type Secret string

const redacted = "[secret]"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String returns a placeholder.
func (Secret) String() string { return redacted }

// GoString returns a placeholder.
func (Secret) GoString() string { return redacted }

// LogValue returns a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns a placeholder; JSON uses it as well.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// NewSecret returns 32 random bytes as base64url behind a prefix that says what
// it is for ("anteroom_" for an API token, so that scanners of repositories
// find a leaked one), and the hash under which its Token is stored.
func NewSecret(prefix string) (Secret, [32]byte) {
	b := make([]byte, 32)
	rand.Read(b) // never fails: the program ends if there is no entropy
	s := Secret(prefix + base64.RawURLEncoding.EncodeToString(b))
	return s, HashSecret(s)
}

// HashSecret is what is stored of a secret. The secret has 256 random bits, so
// one round of SHA-256 is enough: there is nothing to guess.
func HashSecret(s Secret) [32]byte { return sha256.Sum256([]byte(s)) }
