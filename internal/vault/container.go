package vault

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
)

// Limits of what one version holds.
const (
	MaxFiles     = 16
	MaxFileBytes = 64 << 10
	maxNameBytes = 64
	maxContainer = 2 + MaxFiles*(1+maxNameBytes+4+MaxFileBytes)
)

// File is one credential file. However it is printed, logged or marshalled,
// its content is not shown.
type File struct {
	Name    string // [a-z0-9_.-]{1,64}, unique in its version
	Content []byte // secret; at most MaxFileBytes
}

// String says the name and the size.
func (f File) String() string { return fmt.Sprintf("%s (%d bytes, redacted)", f.Name, len(f.Content)) }

// Format does the same for every verb of fmt.
func (f File) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, f.String()) }

// LogValue does the same for slog.
func (f File) LogValue() slog.Value { return slog.StringValue(f.String()) }

// MarshalJSON does the same for JSON. Files are not meant to be sent as they
// are; whoever must send one says so by converting it.
func (f File) MarshalJSON() ([]byte, error) { return json.Marshal(f.String()) }

// encode writes the files one after the other: their number (2 bytes), then
// for each the length of its name (1), the name, the length of its content
// (4), the content. Numbers are big-endian. ErrInvalid if there is no file, or
// a limit is broken.
func encode(files []File) ([]byte, error) {
	if len(files) == 0 || len(files) > MaxFiles {
		return nil, fmt.Errorf("%w: %d files, 1 to %d are allowed", ErrInvalid, len(files), MaxFiles)
	}
	size := 2
	seen := make(map[string]bool, len(files))
	for _, f := range files {
		if !validName(f.Name) || seen[f.Name] {
			return nil, fmt.Errorf("%w: file name %q is not allowed or occurs twice", ErrInvalid, f.Name)
		}
		if len(f.Content) > MaxFileBytes {
			return nil, fmt.Errorf("%w: file %s has %d bytes, %d are allowed", ErrInvalid, f.Name, len(f.Content), MaxFileBytes)
		}
		seen[f.Name] = true
		size += 1 + len(f.Name) + 4 + len(f.Content)
	}
	// Of the right size at once: growing would leave copies of secrets behind.
	out := make([]byte, 0, size)
	out = binary.BigEndian.AppendUint16(out, uint16(len(files))) //nolint:gosec // checked above
	for _, f := range files {
		out = append(out, byte(len(f.Name))) //nolint:gosec // checked above
		out = append(out, f.Name...)
		out = binary.BigEndian.AppendUint32(out, uint32(len(f.Content))) //nolint:gosec // checked above
		out = append(out, f.Content...)
	}
	return out, nil
}

// decode reads what encode wrote, all of it and nothing else: exactly one
// sequence of bytes decodes to a given list of files. The files have memory of
// their own. ErrSealed.
func decode(b []byte) ([]File, error) {
	malformed := func(what string) ([]File, error) { return nil, fmt.Errorf("%w: %s", ErrSealed, what) }
	take := func(n int) []byte {
		if n > len(b) {
			return nil
		}
		var p []byte
		p, b = b[:n:n], b[n:]
		return p
	}
	head := take(2)
	if head == nil {
		return malformed("no number of files")
	}
	n := int(binary.BigEndian.Uint16(head))
	if n == 0 || n > MaxFiles {
		return malformed("a wrong number of files")
	}
	files := make([]File, 0, n)
	seen := make(map[string]bool, n)
	for range n {
		size := take(1)
		if size == nil {
			return malformed("a file is missing")
		}
		name := string(take(int(size[0])))
		if !validName(name) || seen[name] {
			return malformed("a file's name is not allowed or occurs twice")
		}
		seen[name] = true
		length := take(4)
		if length == nil {
			return malformed("a file's length is missing")
		}
		size32 := binary.BigEndian.Uint32(length)
		if size32 > MaxFileBytes || int(size32) > len(b) {
			return malformed("a file's length is wrong")
		}
		files = append(files, File{Name: name, Content: append([]byte{}, take(int(size32))...)})
	}
	if len(b) > 0 {
		return malformed("there is something after the files")
	}
	return files, nil
}

func validName(s string) bool {
	if s == "" || len(s) > maxNameBytes {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
