package store

import (
	"strings"
	"unicode/utf8"
)

// Limits of stored text, in bytes. What is for people is cut; what programs
// compare is refused (ErrInvalid).
const (
	MaxMessage = 4096
	MaxDetail  = 1000
	MaxAccount = 400
	MaxLabel   = 200
)

// Clip makes s fit for storing: valid UTF-8 without NUL (which PostgreSQL does
// not take), at most limit bytes, cut between characters. Some of this text
// comes from a guest.
func Clip(s string, limit int) string {
	if len(s) > 4*limit { // no work on what is thrown away
		s = s[:4*limit]
	}
	s = strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
	if len(s) <= limit {
		return s
	}
	const mark = "…"
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
