//go:build linux

package guest

import (
	"errors"
	"net/url"
	"strings"
)

// errURL says that an address must not be opened.
var errURL = errors.New("address refused")

// checkLoginURL says whether a tool may have address opened: https, literally
// one of hosts, no user info, the default port, at most maxURLBytes of
// printable ASCII. The comparison is with the text itself and not with what a
// parser makes of it, so that Chromium's parser cannot see another host in it.
func checkLoginURL(address string, hosts []string) error {
	if len(address) > maxURLBytes {
		return errURL
	}
	for i := range len(address) {
		if c := address[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return errURL
		}
	}
	rest, ok := strings.CutPrefix(address, "https://")
	if !ok {
		return errURL
	}
	authority := rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		authority = rest[:end]
	}
	authority = strings.TrimSuffix(authority, ":443")
	for _, h := range hosts {
		if authority == h {
			_, err := url.Parse(address)
			if err != nil {
				return errURL
			}
			return nil
		}
	}
	return errURL
}

// hostForPeople names the host of a refused address as far as it can be shown;
// never the rest of it, which may hold secrets.
func hostForPeople(address string) string {
	const unknown = "an address that cannot be read"
	u, err := url.Parse(address[:min(len(address), maxURLBytes)])
	if err != nil {
		return unknown
	}
	host := u.Hostname()
	if host == "" {
		if u.Scheme != "" && len(u.Scheme) < 32 {
			return "an address of the kind " + u.Scheme + ":"
		}
		return unknown
	}
	if len(host) > 100 || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return unknown
	}
	if u.Scheme != "https" {
		return u.Scheme + "://" + host
	}
	return host
}
