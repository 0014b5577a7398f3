package egress

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/anteroom/anteroom/internal/hostname"
)

// target is a destination that passed all checks that need no network.
type target struct {
	host string     // lower case; an address in its usual form, without brackets
	addr netip.Addr // valid if host is an address
	port uint16
}

// hostport is the target as it is written in a request.
func (t target) hostport() string {
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// parseTarget parses "host:port", or "host" if defaultPort is not 0, and
// refuses what cannot be a public destination. It accepts one spelling per
// destination: no other form of a number, no trailing dot, no user
// information, nothing in brackets but an IPv6 address.
func parseTarget(authority string, defaultPort uint16) (target, error) {
	host, portText, err := splitAuthority(authority)
	if err != nil {
		return target{}, err
	}
	t := target{port: defaultPort}
	if portText != "" {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || strconv.FormatUint(n, 10) != portText {
			return target{}, refusal(BadTarget, "the port is not a number")
		}
		t.port = uint16(n)
	}
	if t.port == 0 {
		return target{}, refusal(BadTarget, "there is no port")
	}
	if t.port != 80 && t.port != 443 {
		return target{}, refusal(PortRefused, "neither 80 nor 443")
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		return t.asIPv6(strings.TrimSuffix(inner, "]"))
	}
	t.host = strings.ToLower(host)
	if err := checkLabels(t.host); err != nil {
		return target{}, err
	}
	if hostname.EndsInNumber(t.host) {
		a, err := netip.ParseAddr(t.host)
		if err != nil || !a.Is4() {
			return target{}, refusal(AddressRefused, "an unusual spelling of an address")
		}
		if !publicAddr(a) {
			return target{}, refusal(AddressRefused, "not a public address")
		}
		t.addr = a
		return t, nil
	}
	if err := checkName(t.host); err != nil {
		return target{}, err
	}
	return t, nil
}

// splitAuthority splits at the one colon that separates host and port. The
// port is empty only if there is no colon.
func splitAuthority(s string) (host, port string, err error) {
	bad := refusal(BadTarget, "the destination is not host:port")
	if rest, ok := strings.CutPrefix(s, "["); ok {
		inner, after, found := strings.Cut(rest, "]")
		if !found {
			return "", "", bad
		}
		if after == "" {
			return "[" + inner + "]", "", nil
		}
		port, found = strings.CutPrefix(after, ":")
		if !found || port == "" {
			return "", "", bad
		}
		return "[" + inner + "]", port, nil
	}
	host, port, found := strings.Cut(s, ":")
	if host == "" || found && port == "" || strings.ContainsAny(port, ":[]") {
		return "", "", bad
	}
	return host, port, nil
}

func (t target) asIPv6(s string) (target, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() {
		return target{}, refusal(BadTarget, "what is in brackets is not an IPv6 address")
	}
	if a.Is4In6() || !publicAddr(a) {
		return target{}, refusal(AddressRefused, "not a public address, or an unusual spelling of one")
	}
	t.addr, t.host = a, a.String()
	return t, nil
}

// checkLabels checks the letters of a name.
func checkLabels(name string) error {
	if err := hostname.CheckLabels(name); err != nil {
		return &Error{Code: BadTarget, Err: err}
	}
	return nil
}

// checkName refuses names that are not in the public DNS.
func checkName(name string) error {
	if err := hostname.CheckPublic(name); err != nil {
		return &Error{Code: NameRefused, Err: err}
	}
	return nil
}

// maxLoggedName is the longest name that a log line tells of a request that was
// refused. No name that can be reached is longer.
const maxLoggedName = 253

// claimed is where a request says that it wants to go, for the log of one that
// is refused: as much of its target as can be told apart, unchecked. The name
// is short and made only of what names and addresses are made of; user
// information is no part of it, and where that cannot be told from the name
// there is none. The port is 0 if none can be read.
func claimed(asked string) (name string, port uint16) {
	authority, port := authorityOf(asked)
	name = authority
	if i := strings.LastIndexByte(authority, ':'); i > strings.LastIndexByte(authority, ']') {
		name, port = authority[:i], 0
		if n, err := strconv.ParseUint(authority[i+1:], 10, 16); err == nil {
			port = uint16(n)
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		name = strings.TrimSuffix(inner, "]")
	}
	if a, err := netip.ParseAddr(name); err == nil {
		return a.WithZone("").String(), port
	}
	// With a colon in it, it may be a user and a password.
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		return "", port
	}
	return strings.Clone(strings.ToLower(name[:min(len(name), maxLoggedName)])), port
}

// authorityOf finds "host:port" in the target of a request, in absolute form or
// that of CONNECT, without user information, and the port that is meant where
// there is none in it.
func authorityOf(asked string) (authority string, port uint16) {
	scheme, rest, absolute := strings.Cut(asked, "://")
	switch {
	case !absolute:
		rest = asked[strings.LastIndexByte(asked, '@')+1:]
	case strings.EqualFold(scheme, "http"):
		port = 80
	case strings.EqualFold(scheme, "https"):
		port = 443
	default:
		return "", 0
	}
	authority = rest
	if i := strings.IndexAny(rest, `/?#\`); i >= 0 {
		authority = rest[:i]
		if strings.Contains(rest[i:], "@") && strings.ContainsAny(authority, ":@") {
			return "", 0 // the slash may be of a password
		}
	}
	return authority[strings.LastIndexByte(authority, '@')+1:], port
}
