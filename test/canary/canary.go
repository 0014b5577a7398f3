// Package canary looks for secrets where none may be: in files, and in the
// arguments and environments of processes.
package canary

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// window is how many bytes of a pattern are compared at first; shorter
// patterns would be found by chance and are refused.
const window = 8

// Found says that a secret is somewhere. It does not hold the secret.
type Found struct {
	Where string // a file, or a process and its part
	As    string // how it is written there: "plain", "base64", ...
}

func (f Found) String() string { return f.Where + " (" + f.As + ")" }

// Scanner knows secrets in the forms in which they might be kept. It may be
// used concurrently.
type Scanner struct {
	patterns []pattern
	// byEnd finds patterns by the last bytes of their first window; ends is a
	// quick test that most positions fail.
	byEnd map[uint64][]int
	ends  [1 << 14]uint64
}

type pattern struct {
	bytes string
	as    string
}

// New makes a scanner. A secret of less than 16 bytes is an error.
func New(secrets []string) (*Scanner, error) {
	s := &Scanner{byEnd: map[uint64][]int{}}
	for _, secret := range secrets {
		if len(secret) < 2*window {
			return nil, fmt.Errorf("canary: a secret of %d bytes is too short to look for", len(secret))
		}
		for as, text := range forms(secret) {
			s.add(pattern{text, as})
		}
	}
	return s, nil
}

// forms are the ways in which a secret is looked for. Base64 is of the secret
// in any place of what was encoded: three alignments, without the characters
// at both ends that depend on the neighbours.
func forms(secret string) map[string]string {
	all := map[string]string{
		"plain": secret, "hex": hex.EncodeToString([]byte(secret)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"UTF-16": utf16(secret),
	}
	if escaped := url.QueryEscape(secret); escaped != secret {
		all["URL"] = escaped
	}
	for shift := range 3 {
		padded := make([]byte, shift, shift+len(secret))
		padded = append(padded, secret...)
		padded = padded[:len(padded)/3*3]
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
			text := encoding.EncodeToString(padded)
			if shift > 0 {
				text = text[4:]
			}
			all[fmt.Sprintf("%s+%d", name, shift)] = text
		}
	}
	return all
}

func utf16(s string) string {
	wide := make([]byte, 0, 2*len(s))
	for _, b := range []byte(s) {
		wide = append(wide, b, 0)
	}
	return string(wide)
}

func (s *Scanner) add(p pattern) {
	at := len(s.patterns)
	s.patterns = append(s.patterns, p)
	// The end of a pattern differs more from others than its beginning.
	key := word(p.bytes[len(p.bytes)-window:])
	s.byEnd[key] = append(s.byEnd[key], at)
	h := hash(key)
	s.ends[h>>6] |= 1 << (h & 63)
}

func word(b string) (w uint64) {
	for i := range window {
		w = w<<8 | uint64(b[i])
	}
	return w
}

func hash(w uint64) uint64 { return w * 0x9E3779B97F4A7C15 >> 44 }

// Read looks through all that r gives, and returns the forms in which secrets
// are in it.
func (s *Scanner) Read(r io.Reader) ([]string, error) {
	longest := 0
	for _, p := range s.patterns {
		longest = max(longest, len(p.bytes))
	}
	var found []string
	buf := make([]byte, 0, longest+1<<20)
	for {
		n, err := r.Read(buf[len(buf):cap(buf)])
		from := len(buf)
		buf = buf[:from+n]
		found = append(found, s.within(buf, from)...)
		if errors.Is(err, io.EOF) {
			slices.Sort(found)
			return slices.Compact(found), nil
		}
		if err != nil {
			return found, err
		}
		if len(buf) > cap(buf)-1<<16 { // keep what a pattern may have begun in
			buf = buf[:copy(buf, buf[len(buf)-longest:])]
		}
	}
}

// within finds the patterns that end in buf[from:].
func (s *Scanner) within(buf []byte, from int) (found []string) {
	var w uint64
	for i := max(0, from-window+1); i < len(buf); i++ {
		w = w<<8 | uint64(buf[i])
		h := hash(w)
		if s.ends[h>>6]&(1<<(h&63)) == 0 {
			continue
		}
		for _, at := range s.byEnd[w] {
			if p := s.patterns[at]; i+1 >= len(p.bytes) && string(buf[i+1-len(p.bytes):i+1]) == p.bytes {
				found = append(found, p.as)
			}
		}
	}
	return found
}

// Files looks through every regular file below dir, and the names of all.
func (s *Scanner) Files(dir string) ([]Found, error) {
	var all []Found
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		all = s.note(all, "the name of "+path, strings.NewReader(filepath.Base(path)))
		if !d.Type().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went meanwhile
		}
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		as, err := s.Read(f)
		if errors.Is(err, syscall.EINVAL) {
			err = nil // a namespace's handle, which has no content
		}
		for _, a := range as {
			all = append(all, Found{path, a})
		}
		return err
	})
	if err != nil {
		return all, fmt.Errorf("canary: %w", err)
	}
	return all, nil
}

// Processes looks through the arguments and the environment of every process
// on this host but its own.
func (s *Scanner) Processes() ([]Found, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("canary: %w", err)
	}
	var all []Found
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, part := range []string{"cmdline", "environ"} {
			content, err := os.ReadFile(filepath.Join("/proc", e.Name(), part))
			if err != nil {
				continue // it has ended
			}
			all = s.note(all, fmt.Sprintf("process %d: %s", pid, part), strings.NewReader(string(content)))
		}
	}
	return all, nil
}

func (s *Scanner) note(all []Found, where string, r io.Reader) []Found {
	as, _ := s.Read(r) // from memory
	for _, a := range as {
		all = append(all, Found{where, a})
	}
	return all
}
