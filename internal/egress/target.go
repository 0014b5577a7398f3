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
		return target{}, refusal(PortRefused, "port %d", t.port)
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
