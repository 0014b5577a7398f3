package guestapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
)

// DeliveryHash is the hex SHA-256 by which host and guest agree on what was
// delivered. It covers names and contents, does not depend on the order of
// files, and no two sets of files have the same input to the hash.
func DeliveryHash(files []File) string {
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	part([]byte("anteroom delivery 1"))
	for _, f := range sorted {
		part([]byte(f.Name))
		part(f.Content)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// String keeps the content out of whatever prints a file by accident; JSON
// carries it.
func (f File) String() string { return fmt.Sprintf("%s (%d bytes)", f.Name, len(f.Content)) }

// GoString is String.
func (f File) GoString() string { return f.String() }

// LogValue is String.
func (f File) LogValue() slog.Value { return slog.StringValue(f.String()) }
