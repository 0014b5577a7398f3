package ways

import (
	"context"
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/store"
)

// Code says why a way is shut.
type Code string

// The codes.
const (
	NoPort       Code = "no_port"           // none is left
	Quarantined  Code = "port_quarantined"  // the user's port is out of use until an administrator says otherwise
	Unconfigured Code = "port_not_known"    // the user's port is not in the configuration any more
	Changed      Code = "exit_changed"      // another exit address than the pinned one
	Blocked      Code = "provider_blocked"  // the upstream refuses a host that the provider needs
	Unverified   Code = "exit_not_verified" // the exit address could not be seen
	Failed       Code = "upstream_failed"   // the upstream does not work
	Shut         Code = "shut"              // it was shut in between
	Internal     Code = "internal"          // the database failed
)

// Error says why a way is shut. Its text is for the log; Sentence is for the
// person.
type Error struct {
	Code Code
	Port store.PortKey // zero if none
	Name string        // with Blocked: the host that was refused
	Err  error         // may be nil
}

func (e *Error) Error() string {
	text := "way out: " + string(e.Code)
	if e.Port != (store.PortKey{}) {
		text += " (" + e.Port.String() + ")"
	}
	if e.Name != "" {
		text += ": " + e.Name
	}
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary says whether it may mend by itself.
func (e *Error) Temporary() bool {
	switch e.Code {
	case Unverified, Failed, Shut, Internal:
		return true
	}
	return false
}

// Sentence says more than the code, in plain words and without internals; it
// may be empty.
func (e *Error) Sentence() string {
	switch e.Code {
	case Blocked:
		return fmt.Sprintf("Refused was %s.", e.Name)
	case Changed, Quarantined:
		if e.Err != nil {
			return e.Err.Error()
		}
	}
	return ""
}

// asError makes an error of this package's kind of any.
func asError(err error) *Error {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Code: Failed, Err: err}
	}
	return &Error{Code: Internal, Err: err}
}
