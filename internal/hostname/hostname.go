// Package hostname says which names can be those of public destinations. The
// host's egress proxy holds every destination to it; the answerer of name
// questions inside a machine holds to the same, so that a program learns at
// once what the proxy would refuse.
package hostname

import (
	"errors"
	"strings"
)

const (
	maxName  = 253
	maxLabel = 63
)

// Why a name is none of a public destination.
var (
	errTooLong   = errors.New("the name is too long")
	errLabel     = errors.New("a part of the name is empty, too long or malformed")
	errCharacter = errors.New("the name has a character that names do not have")
	errOnePart   = errors.New("a name of one part")
	errNotPublic = errors.New("a name that is not public")
)

// CheckLabels returns an error if a name, in lower case, is not made as names
// are. Other scripts come as punycode; there is no dot at the end.
func CheckLabels(name string) error {
	if len(name) > maxName {
		return errTooLong
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > maxLabel || label[0] == '-' || label[len(label)-1] == '-' {
			return errLabel
		}
		for i := range len(label) {
			c := label[i]
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return errCharacter
			}
		}
	}
	return nil
}

// EndsInNumber says whether some programs would take the name for an IPv4
// address: its last label is decimal, or hexadecimal with 0x.
func EndsInNumber(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	digits, set := last, "0123456789"
	if hex, ok := strings.CutPrefix(last, "0x"); ok {
		digits, set = hex, "0123456789abcdef"
	}
	return strings.Trim(digits, set) == ""
}

// CheckPublic returns an error for names that are not in the public DNS: they
// mean something only in the network of whoever resolves them, which may be an
// upstream far away. So do single labels.
func CheckPublic(name string) error {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return errOnePart
	}
	switch name[dot+1:] {
	case "localhost", "local", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "arpa":
		return errNotPublic
	}
	return nil
}
