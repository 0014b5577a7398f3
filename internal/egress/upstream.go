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

// MaxPorts is how many upstream ports a configuration may have.
const MaxPorts = 10_000

// redacted stands for a secret wherever one is printed.
const redacted = "[redacted]"

// UpstreamURL is how ways out are written in a configuration: Direct, or
// "scheme://user:password@host:port", where scheme is http (HTTP CONNECT),
// https (the same over TLS to the proxy) or socks5, and port may be a range
// such as 10001-10100, each of which is a way out of its own. It is a secret:
// every way to print, log or encode it redacts.
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

// The schemes of upstreams.
const (
	schemeHTTP  = "http"
	schemeHTTPS = "https"
	schemeSOCKS = "socks5"
)

// Upstream is a way out. The zero value is none: it is refused wherever it is
// used. Upstreams can be compared. Printing one redacts its credentials.
type Upstream struct {
	direct bool
	scheme string
	host   string
	port   uint16
	user   string
	pass   string
	auth   bool // there are credentials
}

// IsDirect says whether it leads straight to the internet.
func (u Upstream) IsDirect() bool { return u.direct }

// Host and Port are where the proxy is; empty and 0 for Direct.
func (u Upstream) Host() string { return u.host }

// Port is the proxy's.
func (u Upstream) Port() int { return int(u.port) }

// Addr names the way out without credentials: host:port, "direct", or "" for
// none. No two upstreams of a configuration have the same.
func (u Upstream) Addr() string {
	switch {
	case u.direct:
		return string(Direct)
	case u.host == "":
		return ""
	}
	return net.JoinHostPort(u.host, strconv.Itoa(int(u.port)))
}

// String names the way out without its credentials.
func (u Upstream) String() string {
	switch {
	case u.direct:
		return string(Direct)
	case u.host == "":
		return "none"
	case u.auth:
		return u.scheme + "://" + redacted + "@" + u.Addr()
	}
	return u.scheme + "://" + u.Addr()
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

// ParseUpstreams reads a configuration's ways out: Direct alone, or one or more
// proxies, of whose ports there are at most MaxPorts and none twice. Its errors
// are ErrConfig and hold no part of a URL.
func ParseUpstreams(raw []UpstreamURL) ([]Upstream, error) {
	var all []Upstream
	for i, r := range raw {
		some, err := ParseUpstream(r)
		if err != nil {
			if len(raw) > 1 {
				err = fmt.Errorf("number %d: %w", i+1, err)
			}
			return nil, err
		}
		if all = append(all, some...); len(all) > MaxPorts {
			return nil, fmt.Errorf("%w: more than %d ports", ErrConfig, MaxPorts)
		}
	}
	seen := make(map[string]bool, len(all))
	for _, u := range all {
		switch {
		case u.direct && len(all) > 1:
			return nil, fmt.Errorf("%w: %q cannot stand beside other upstreams: it would be a way around them", ErrConfig, Direct)
		case seen[u.Addr()]:
			return nil, fmt.Errorf("%w: the port %s is there twice", ErrConfig, u.Addr())
		}
		seen[u.Addr()] = true
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: there is no upstream; write %q to go out without a proxy", ErrConfig, Direct)
	}
	return all, nil
}

// ParseUpstream parses one UpstreamURL, which is several ways out where it has
// a range of ports. User name and password are percent-decoded, and nothing
// else is done to them: any byte can be written. Its errors hold no part of
// the URL.
func ParseUpstream(raw UpstreamURL) ([]Upstream, error) {
	bad := func(why string) ([]Upstream, error) {
		return nil, fmt.Errorf(`%w: an upstream must be "direct" or "http://user:password@host:port" (or https, or socks5; the port may be a range): %s`, ErrConfig, why)
	}
	if raw == Direct {
		return []Upstream{{direct: true}}, nil
	}
	scheme, s, found := strings.Cut(string(raw), "://")
	if scheme = strings.ToLower(scheme); !found || scheme != schemeHTTP && scheme != schemeHTTPS && scheme != schemeSOCKS {
		return bad("it does not begin with http://, https:// or socks5://")
	}
	s = strings.TrimSuffix(s, "/")
	u := Upstream{}
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		var err error
		if u, err = parseUserinfo(s[:at]); err != nil {
			return bad(err.Error())
		}
		s = s[at+1:]
	}
	u.scheme = scheme
	if scheme == schemeSOCKS && (len(u.user) > 255 || len(u.pass) > 255) {
		return bad("SOCKS takes at most 255 bytes of user name and of password")
	}
	host, ports, err := net.SplitHostPort(s)
	if err != nil {
		return bad("after the credentials there must be host and port, and nothing else")
	}
	u.host = strings.ToLower(host)
	if a, err := netip.ParseAddr(u.host); err == nil {
		u.host = a.String()
	} else if checkLabels(u.host) != nil {
		return bad("the host is neither a name nor an address")
	}
	first, last, err := parsePorts(ports)
	if err != nil {
		return bad(err.Error())
	}
	all := make([]Upstream, 0, last-first+1)
	for port := first; port <= last; port++ {
		u.port = uint16(port) //nolint:gosec // parsePorts has seen to it
		all = append(all, u)
	}
	return all, nil
}

// parsePorts parses "port" or "first-last".
func parsePorts(s string) (first, last int, err error) {
	from, to, isRange := strings.Cut(s, "-")
	if first, err = parsePort(from); err != nil || !isRange {
		return first, first, err
	}
	if last, err = parsePort(to); err != nil {
		return 0, 0, err
	}
	if last < first || last-first >= MaxPorts {
		return 0, 0, fmt.Errorf("the range of ports must go upwards and have at most %d", MaxPorts)
	}
	return first, last, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("the port is not a number from 1 to 65535")
	}
	return int(n), nil
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
