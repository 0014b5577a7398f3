package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// Header is the header that names the Code of an answer that this proxy gave
// by itself. It is removed from every answer that comes from elsewhere.
const Header = "Anteroom-Egress"

// Code is the stable name of a decision.
type Code string

// The decisions. All but Allowed refuse, or end what was allowed.
const (
	Allowed             Code = "allowed"
	BadRequest          Code = "bad_request"           // not a request that a proxy may pass on
	HeaderTooLarge      Code = "header_too_large"      // more than MaxHeaderBytes
	BadTarget           Code = "bad_target"            // the destination does not parse
	PortRefused         Code = "port_refused"          // not 80 or 443
	NameRefused         Code = "name_refused"          // a name that is not public
	NameDenied          Code = "name_denied"           // a rule forbids it
	AddressRefused      Code = "address_refused"       // an address that is not public
	TooMany             Code = "too_many_connections"  // more than MaxConns
	NoUpstream          Code = "no_upstream"           // there is no way out for this user
	TooMuch             Code = "too_many_bytes"        // more than MaxBytes; the connection was ended
	TooLong             Code = "too_long"              // more than TotalTimeout; the connection was ended
	WayShut             Code = "way_shut"              // the user's way out was shut in between
	ResolveFailed       Code = "resolve_failed"        // the name has no address
	ConnectFailed       Code = "connect_failed"        // the destination was not reached
	Timeout             Code = "timeout"               // it took too long
	UpstreamUnreachable Code = "upstream_unreachable"  // the upstream was not reached
	UpstreamAuth        Code = "upstream_auth"         // the upstream wants other credentials
	UpstreamRefused     Code = "upstream_refused"      // the upstream said no
	UpstreamProtocol    Code = "upstream_bad_response" // the upstream answered something else
	UpstreamResting     Code = "upstream_resting"      // it has failed and is left alone for a while
)

// Error is a refusal or failure with its code. Its text is for the host's
// logs; a guest gets the code and a fixed sentence only.
type Error struct {
	Code Code
	Err  error // may be nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return "egress: " + string(e.Code)
	}
	return fmt.Sprintf("egress: %s: %v", e.Code, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func refusal(c Code, format string, args ...any) *Error {
	return &Error{Code: c, Err: fmt.Errorf(format, args...)}
}

// CodeOf returns the code of an error: Allowed for nil, ConnectFailed for one
// that has none.
func CodeOf(err error) Code {
	if err == nil {
		return Allowed
	}
	return codeOf(err, ConnectFailed)
}

// codeOf returns the code of err, or fallback, with deadlines told apart.
func codeOf(err error, fallback Code) Code {
	var e *Error
	var ne net.Error
	switch {
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return Timeout
	}
	return fallback
}

// answer is the status and the sentence that a guest gets for a code.
func (c Code) answer() (status int, sentence string) {
	switch c {
	case BadRequest:
		return http.StatusBadRequest, "This is not a request that the proxy can pass on."
	case HeaderTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge, "The request's header is too large."
	case BadTarget:
		return http.StatusBadRequest, "The destination is not a host name and port."
	case PortRefused:
		return http.StatusForbidden, "Only ports 80 and 443 can be reached from here."
	case NameDenied:
		return http.StatusForbidden, "A rule of this server forbids that destination."
	case NameRefused, AddressRefused:
		return http.StatusForbidden, "Only public addresses can be reached from here."
	case TooMany:
		return http.StatusServiceUnavailable, "There are too many connections. Close some and try again."
	case ResolveFailed:
		return http.StatusBadGateway, "The destination's name has no address."
	case ConnectFailed:
		return http.StatusBadGateway, "The destination could not be reached."
	case Timeout:
		return http.StatusGatewayTimeout, "The destination did not answer in time."
	}
	return http.StatusBadGateway, "The way out to the internet does not work at the moment."
}
