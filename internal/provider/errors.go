package provider

import (
	"errors"
	"fmt"
)

// Errors that callers tell apart.
var (
	// ErrUnknown: no provider file has that name or alias.
	ErrUnknown = errors.New("provider: unknown")
	// ErrInvalidFile is the sentinel of every FileError.
	ErrInvalidFile = errors.New("provider: invalid provider file")
	// ErrCredential: the content of a credential file is not what its provider
	// file says. Errors that wrap it name pointers, never values.
	ErrCredential = errors.New("provider: not a valid credential file")
	// ErrNoValue: a Value leads nowhere.
	ErrNoValue = errors.New("provider: no value there")
)

// FileError says what is wrong with a provider file, and where.
type FileError struct {
	File   string // the file's name as given, or the provider's name where there is no file
	Line   int    // counted from 1; 0 if unknown
	Field  string // such as "url.hosts[0]"; empty if the whole file is meant
	Reason string // one sentence without a capital and a full stop
}

func (e *FileError) Error() string {
	where := e.File
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.Field != "" {
		return fmt.Sprintf("%s: %s: %s", where, e.Field, e.Reason)
	}
	return fmt.Sprintf("%s: %s", where, e.Reason)
}

// Is makes errors.Is(err, ErrInvalidFile) true.
func (e *FileError) Is(target error) bool { return target == ErrInvalidFile }
