package stream

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	ticketBytes = 32
	// MaxTicketMessage is how long the first message of a connection may be.
	MaxTicketMessage = 512
)

// ErrTicket says that something is not a ticket, or not one that is good.
var ErrTicket = errors.New("stream: not a ticket")

// NewTicket returns the secret of a fresh ticket (32 random bytes, base64url)
// and the hash of it that is stored.
func NewTicket() (secret string, hash [32]byte) {
	b := make([]byte, ticketBytes)
	rand.Read(b) // never fails: the program ends if there is no entropy
	return base64.RawURLEncoding.EncodeToString(b), sha256.Sum256(b)
}

// HashTicket returns the hash under which a ticket is stored, or ErrTicket for
// a string that NewTicket cannot have returned. It accepts exactly one
// spelling of each ticket.
func HashTicket(secret string) ([32]byte, error) {
	if len(secret) != base64.RawURLEncoding.EncodedLen(ticketBytes) {
		return [32]byte{}, ErrTicket
	}
	// Strict refuses stray bits in the last character, but the decoder still
	// skips line breaks; those make the result too short.
	b, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || len(b) != ticketBytes {
		return [32]byte{}, ErrTicket
	}
	return sha256.Sum256(b), nil
}

// parseTicket reads the first message of a connection, {"ticket":"…"}.
func parseTicket(msg []byte) (string, error) {
	if len(msg) > MaxTicketMessage {
		return "", ErrTicket
	}
	var m struct {
		Ticket string `json:"ticket"`
	}
	if err := decodeStrict(msg, &m); err != nil {
		return "", fmt.Errorf("%w: %w", ErrTicket, err)
	}
	if _, err := HashTicket(m.Ticket); err != nil {
		return "", err
	}
	return m.Ticket, nil
}

var errTrailing = errors.New("more follows the value")

// decodeStrict decodes one JSON value with known fields and nothing behind it.
// The caller has limited its length.
func decodeStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}
