package hostname

import (
	"errors"
	"strings"
	"testing"
)

func TestCheckLabels(t *testing.T) {
	for name, want := range map[string]error{
		"example.com":                    nil,
		"a.b.c.d.example.com":            nil,
		"xn--bcher-kva.example":          nil,
		"_dmarc.example.com":             nil,
		"1.2.3.4":                        nil,
		"localhost":                      nil,
		strings.Repeat("a", 63) + ".com": nil,
		strings.Repeat("a.", 126) + "a":  nil,
		strings.Repeat("a.", 127):        errTooLong,
		strings.Repeat("a.", 126) + "aa": errTooLong,
		strings.Repeat("a", 64) + ".com": errLabel,
		"":                               errLabel,
		".":                              errLabel,
		"example.com.":                   errLabel,
		".example.com":                   errLabel,
		"a..b":                           errLabel,
		"-a.example":                     errLabel,
		"a-.example":                     errLabel,
		"Example.com":                    errCharacter,
		"exa mple.com":                   errCharacter,
		"bücher.example":                 errCharacter,
		"a/b.example":                    errCharacter,
		"a@b.example":                    errCharacter,
		"[example.com]":                  errCharacter,
		"a\x00b.example":                 errCharacter,
	} {
		if err := CheckLabels(name); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}

func TestEndsInNumber(t *testing.T) {
	for name, want := range map[string]bool{
		"1.2.3.4": true, "127.1": true, "2130706433": true, "0x7f000001": true, "a.0x1f": true, "example.1": true, "0x": true, "": true,
		"example.com": false, "1.example": false, "example.0xg": false, "a1": false, "x1f": false,
	} {
		if EndsInNumber(name) != want {
			t.Errorf("%q: not %v", name, want)
		}
	}
}

func TestCheckPublic(t *testing.T) {
	for name, want := range map[string]error{
		"example.com": nil, "local.example": nil, "internal.example.org": nil, "localhost.com": nil,
		"localhost": errOnePart, "printer": errOnePart, "": errOnePart,
		"printer.local": errNotPublic, "metadata.google.internal": errNotPublic, "a.localhost": errNotPublic,
		"localhost.localdomain": errNotPublic, "4.3.2.1.in-addr.arpa": errNotPublic, "nas.home": errNotPublic, "fritz.lan": errNotPublic,
		"a.intranet": errNotPublic, "a.private": errNotPublic, "a.corp": errNotPublic,
	} {
		if err := CheckPublic(name); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", name, err, want)
		}
	}
}
