package settings

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/anteroom/anteroom/internal/machine/firecracker"
)

// value is where a setting is kept, and how its text is read. Set changes
// nothing when it fails. Its errors say what is allowed, and hold the text only
// if that is no secret.
type value interface {
	Set(text string) error
	String() string
	Type() string // one word, for people: also says what the file must hold
}

// scalar is a value that is one thing.
type scalar[T any] struct {
	to     *T
	kind   string
	parse  func(string) (T, error)
	format func(T) string
}

func (v scalar[T]) Set(text string) error {
	parsed, err := v.parse(text)
	if err != nil {
		return err
	}
	*v.to = parsed
	return nil
}
func (v scalar[T]) String() string { return v.format(*v.to) }
func (v scalar[T]) Type() string   { return v.kind }

func text(to *string) value {
	return scalar[string]{to, "text", func(s string) (string, error) { return s, nil }, func(s string) string { return s }}
}

// path is a file's or directory's; a relative one is below the directory in
// which the program was started. Empty means that there is none.
func path(to *string) value {
	parse := func(s string) (string, error) {
		if s == "" {
			return "", nil
		}
		return filepath.Abs(s)
	}
	return scalar[string]{to, "text", parse, func(s string) string { return s }}
}

func choice(to *string, allowed ...string) value {
	parse := func(s string) (string, error) {
		if !slices.Contains(allowed, s) {
			return "", fmt.Errorf("%q is not one of %s", s, strings.Join(allowed, ", "))
		}
		return s, nil
	}
	return scalar[string]{to, "text", parse, func(s string) string { return s }}
}

// userIDs is a range of user ids.
func userIDs(to *firecracker.UIDs) value {
	return scalar[firecracker.UIDs]{to, "text", firecracker.ParseUIDs, firecracker.UIDs.String}
}

func boolean(to *bool) value {
	parse := func(s string) (bool, error) {
		switch s {
		case "true", "1":
			return true, nil
		case "false", "0":
			return false, nil
		}
		return false, fmt.Errorf("%q is neither true nor false", s)
	}
	return scalar[bool]{to, "bool", parse, strconv.FormatBool}
}

func integer(to *int) value { return integerFrom(1, to) }

// integerFrom is a whole number that may be as small as least.
func integerFrom(least int, to *int) value {
	parse := func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least {
			return 0, fmt.Errorf("%q is not a whole number from %d up", s, least)
		}
		return n, nil
	}
	return scalar[int]{to, "integer", parse, strconv.Itoa}
}

func number(to *float64) value {
	parse := func(s string) (float64, error) {
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || !(n > 0) || math.IsInf(n, 0) {
			return 0, fmt.Errorf("%q is not a number above 0, such as 1.5", s)
		}
		return n, nil
	}
	return scalar[float64]{to, "number", parse, func(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }}
}

func duration(to *time.Duration) value {
	parse := func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return 0, fmt.Errorf("%q is not a length of time, such as 30m or 1h30m", s)
		}
		return d, nil
	}
	return scalar[time.Duration]{to, "duration", parse, formatDuration}
}

// formatDuration leaves out the zeros that Go's own form ends in: 30m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func size(to *int64) value {
	parse := func(s string) (int64, error) {
		n, err := humanize.ParseBytes(s)
		if err != nil || n > math.MaxInt64 {
			return 0, fmt.Errorf("%q is not a size, such as 1.5GiB or 512MiB", s)
		}
		return int64(n), nil
	}
	return scalar[int64]{to, "size", parse, func(n int64) string {
		return strings.ReplaceAll(humanize.IBytes(uint64(n)), " ", "") //nolint:gosec // never negative
	}}
}

// lister is a list: more can be added to it.
type lister interface{ add(text string) error }

// listValue is a list: separated by commas in a flag or a variable, a YAML
// list in the file.
type listValue[T ~string] struct{ to *[]T }

func list[T ~string](to *[]T) value { return listValue[T]{to} }

func (v listValue[T]) Set(text string) error {
	*v.to = nil
	return v.add(text)
}

func (v listValue[T]) add(text string) error { //nolint:unparam // as lister has it
	for part := range strings.SplitSeq(text, ",") {
		if part = strings.TrimSpace(part); part != "" {
			*v.to = append(*v.to, T(part))
		}
	}
	return nil
}

func (v listValue[T]) setAll(items []string) {
	*v.to = nil
	for _, i := range items {
		*v.to = append(*v.to, T(i))
	}
}

func (v listValue[T]) String() string {
	out := make([]string, len(*v.to))
	for i, t := range *v.to {
		out[i] = fmt.Sprint(t) // a secret type redacts itself
	}
	return strings.Join(out, ",")
}
func (v listValue[T]) Type() string { return "list" }
