package egress

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Direct is the UpstreamURL that means: no proxy, straight to the internet.
const Direct UpstreamURL = "direct"

// redacted stands for a secret wherever one is printed.
const redacted = "[redacted]"

// UpstreamURL is how a way out is written in a configuration: Direct, or
// "http://user:password@host:port". It is a secret: every way to print, log or
// encode it redacts.
type UpstreamURL string

func (u UpstreamURL) redact() string {
	if u == Direct || u == "" {
		return string(u)
	}
	return redacted
}

// String redacts.
func (u UpstreamURL) String() string { return u.redact() }

// GoString redacts.
func (u UpstreamURL) GoString() string { return strconv.Quote(u.redact()) }

// LogValue redacts.
func (u UpstreamURL) LogValue() slog.Value { return slog.StringValue(u.redact()) }

// MarshalText redacts, in JSON and YAML too.
func (u UpstreamURL) MarshalText() ([]byte, error) { return []byte(u.redact()), nil }

// Upstream is a way out. The zero value is none: it is refused wherever it is
// used. Upstreams can be compared. Printing one redacts its credentials.
type Upstream struct {
	direct bool
	addr   string // host:port of the forward proxy
	user   string
	pass   string
	auth   bool // there are credentials
}

// String names the way out without its credentials.
func (u Upstream) String() string {
	switch {
	case u.direct:
		return string(Direct)
	case u.addr == "":
		return "none"
	case u.auth:
		return "http://" + redacted + "@" + u.addr
	}
	return "http://" + u.addr
}

// GoString redacts.
func (u Upstream) GoString() string { return strconv.Quote(u.String()) }

// LogValue redacts.
func (u Upstream) LogValue() slog.Value { return slog.StringValue(u.String()) }

// authorization is the value of Proxy-Authorization, empty without
// credentials (RFC 7617).
func (u Upstream) authorization() string {
	if !u.auth {
		return ""
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(u.user+":"+u.pass))
}

// ParseUpstream parses an UpstreamURL. User name and password are
// percent-decoded, and nothing else is done to them: any byte can be written.
// Its errors hold no part of the URL.
func ParseUpstream(raw UpstreamURL) (Upstream, error) {
	bad := func(why string) (Upstream, error) {
		return Upstream{}, fmt.Errorf(`%w: the upstream must be "direct" or "http://user:password@host:port": %s`, ErrConfig, why)
	}
	if raw == Direct {
		return Upstream{direct: true}, nil
	}
	const scheme = "http://"
	s := string(raw)
	if len(s) < len(scheme) || !strings.EqualFold(s[:len(scheme)], scheme) {
		return bad("it does not begin with http://")
	}
	s = strings.TrimSuffix(s[len(scheme):], "/")
	var u Upstream
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		var err error
		if u, err = parseUserinfo(s[:at]); err != nil {
			return bad(err.Error())
		}
		s = s[at+1:]
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return bad("after the credentials there must be host and port, and nothing else")
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != portText {
		return bad("the port is not a number from 1 to 65535")
	}
	host = strings.ToLower(host)
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.String()
	} else if checkLabels(host) != nil {
		return bad("the host is neither a name nor an address")
	}
	u.addr = net.JoinHostPort(host, portText)
	return u, nil
}

// parseUserinfo parses "user" or "user:password". Characters that end a part
// of a URL must be percent-encoded: otherwise it is not certain which part of
// a mistyped URL is the password.
func parseUserinfo(s string) (Upstream, error) {
	if strings.ContainsAny(s, "@/?#[] \\") {
		return Upstream{}, fmt.Errorf("in user name and password @ / ? # must be percent-encoded (%%40 %%2F %%3F %%23)")
	}
	name, password, _ := strings.Cut(s, ":")
	if strings.Contains(password, ":") {
		return Upstream{}, fmt.Errorf("in user name and password : must be percent-encoded (%%3A)")
	}
	// PathUnescape, because for user information + is +.
	user, err1 := url.PathUnescape(name)
	pass, err2 := url.PathUnescape(password)
	switch {
	case err1 != nil || err2 != nil:
		return Upstream{}, fmt.Errorf("a %% in user name or password is not followed by two hexadecimal digits (write %%25)")
	case user == "":
		return Upstream{}, fmt.Errorf("the user name is empty")
	case strings.Contains(user, ":"):
		return Upstream{}, fmt.Errorf("a user name cannot hold a colon")
	case strings.ContainsAny(user+pass, "\r\n\x00"):
		return Upstream{}, fmt.Errorf("user name and password cannot hold line breaks")
	}
	return Upstream{auth: true, user: user, pass: pass}, nil
}
