package provider

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// Limits on what a Value is read from and on what it gives.
const (
	maxValueBytes = 256 << 10 // the tools' state files are larger than credentials
	maxJWTBytes   = 16 << 10
	maxLabel      = 256
)

// Times outside of these years are a fault of the file, not a time.
var (
	firstTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// ReadLabel reads a value meant for people: printable text of at most 256
// bytes. read gives the content of a file below the home directory. The error
// is ErrNoValue if there is nothing at v or v is nil; content never shows in
// errors.
func ReadLabel(v *Value, read func(path string) ([]byte, error)) (string, error) {
	raw, err := readValue(v, read)
	if err != nil {
		return "", err
	}
	s, ok := raw.(string)
	if !ok || s == "" {
		return "", fmt.Errorf("%w: not a text", ErrNoValue)
	}
	if len(s) > maxLabel || !printable(s) {
		return "", fmt.Errorf("%w: the text is too long or cannot be shown", ErrNoValue)
	}
	return s, nil
}

// ReadTime reads a time in v's unit, as ReadLabel reads a label.
func ReadTime(v *Value, read func(path string) ([]byte, error)) (time.Time, error) {
	for ; v != nil; v = v.Or {
		one := *v
		one.Or = nil
		raw, err := readValue(&one, read)
		if err == nil {
			var t time.Time
			if t, err = toTime(raw, v.Unit); err == nil {
				return t, nil
			}
		}
		if v.Or == nil {
			return time.Time{}, err
		}
	}
	return time.Time{}, ErrNoValue
}

func readValue(v *Value, read func(path string) ([]byte, error)) (any, error) {
	err := ErrNoValue
	for ; v != nil; v = v.Or {
		var raw any
		if raw, err = readOne(v, read); err == nil {
			return raw, nil
		}
	}
	return nil, err
}

func readOne(v *Value, read func(path string) ([]byte, error)) (any, error) {
	content, err := read(v.Path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, err)
	}
	if len(content) > maxValueBytes {
		return nil, fmt.Errorf("%w: the file is larger than %d bytes", ErrNoValue, maxValueBytes)
	}
	root, err := parseJSON(content, 2*maxDepth)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, err)
	}
	raw, err := lookup(root, v.Pointer)
	if err != nil {
		return nil, err
	}
	if v.JWT != "" {
		if raw, err = claim(raw, v.JWT); err != nil {
			return nil, err
		}
	}
	if raw == nil {
		return nil, ErrNoValue
	}
	return raw, nil
}

var errJWT = errors.New("not a JWT")

// claim reads one claim of a JWT without checking its signature.
func claim(raw any, name string) (any, error) {
	s, ok := raw.(string)
	if !ok || len(s) > maxJWTBytes {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, errJWT)
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, errJWT)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, errJWT)
	}
	claims, err := parseJSON(payload, maxDepth)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoValue, errJWT)
	}
	m, ok := claims.(map[string]any)
	if !ok || m[name] == nil {
		return nil, ErrNoValue
	}
	return m[name], nil
}

func toTime(raw any, unit string) (time.Time, error) {
	var t time.Time
	switch unit {
	case "s", "ms":
		n, ok := raw.(json.Number)
		if !ok {
			return time.Time{}, fmt.Errorf("%w: not a number", ErrNoValue)
		}
		f, err := n.Float64()
		if err != nil || math.Abs(f) > 1e15 {
			return time.Time{}, fmt.Errorf("%w: not a time", ErrNoValue)
		}
		if unit == "s" {
			f *= 1000
		}
		t = time.UnixMilli(int64(f)).UTC()
	case "rfc3339":
		s, ok := raw.(string)
		if !ok || len(s) > 64 {
			return time.Time{}, fmt.Errorf("%w: not a time", ErrNoValue)
		}
		var err error
		if t, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return time.Time{}, fmt.Errorf("%w: not a time", ErrNoValue)
		}
		t = t.UTC()
	}
	if t.Before(firstTime) || !t.Before(lastTime) {
		return time.Time{}, fmt.Errorf("%w: not a time", ErrNoValue)
	}
	return t, nil
}

// Content maps the names of credential files to what is in them.
type Content map[string][]byte

// Check holds a whole set of files to its provider: the required ones are
// there, none is there that the provider does not name, each passes CheckFile.
func (f *File) Check(files Content) error {
	for _, n := range sortedKeys(files) {
		if f.Credential(n) == nil {
			return fmt.Errorf("%w: %s has no file %q", ErrCredential, f.Name, n)
		}
	}
	for i := range f.Files {
		c := &f.Files[i]
		content, ok := files[c.Name]
		if !ok {
			if c.Required {
				return fmt.Errorf("%w: %s is missing", ErrCredential, c.Name)
			}
			continue
		}
		if err := CheckFile(*c, content); err != nil {
			return err
		}
	}
	return nil
}

// Credential returns the file of that name, or nil.
func (f *File) Credential(name string) *Credential {
	for i := range f.Files {
		if f.Files[i].Name == name {
			return &f.Files[i]
		}
	}
	return nil
}

// Expires returns when the sign-in is over as far as files tell; the zero time
// if they do not.
func (f *File) Expires(files Content) time.Time {
	t, err := ReadTime(f.Expiry, f.reader(files))
	if err != nil {
		return time.Time{}
	}
	return t
}

// Fresher says whether candidate may replace current as a later state of the
// same sign-in: it passes Check, and what grows with each refresh (Fresh, by
// default Expiry) is later in it. A current set in which that cannot be read
// is older than any.
func Fresher(f *File, current, candidate Content) bool {
	if f.Check(candidate) != nil {
		return false
	}
	v := f.Fresh
	if v == nil {
		v = f.Expiry
	}
	next, err := ReadTime(v, f.reader(candidate))
	if err != nil {
		return false
	}
	now, err := ReadTime(v, f.reader(current))
	return err != nil || f.Check(current) != nil || next.After(now)
}

// reader gives the content of credential files by path.
func (f *File) reader(files Content) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		for i := range f.Files {
			if f.Files[i].Path == path {
				if content, ok := files[f.Files[i].Name]; ok {
					return content, nil
				}
			}
		}
		return nil, ErrNoValue
	}
}

// minSecret is the length from which a value can be told from other text.
const minSecret = 16

// Secrets returns the texts in files that must never lie on a disk: the strings
// that NonEmpty leads to in secret JSON files, and opaque secret files as a
// whole. Files that are not valid have none.
func (f *File) Secrets(files Content) [][]byte {
	var out [][]byte
	for i := range f.Files {
		c := &f.Files[i]
		content, ok := files[c.Name]
		if !ok || !c.Secret {
			continue
		}
		if c.Format == "opaque" {
			out = append(out, content)
			continue
		}
		root, err := parseJSON(content, maxDepth)
		if err != nil {
			continue
		}
		for _, p := range c.NonEmpty {
			if v, err := lookup(root, p); err == nil {
				if s, ok := v.(string); ok {
					out = append(out, []byte(s))
				}
			}
		}
	}
	return slices.DeleteFunc(out, func(b []byte) bool { return len(b) < minSecret })
}
