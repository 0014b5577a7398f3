package egress

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
)

func TestParseUpstream(t *testing.T) {
	for _, tc := range []struct {
		in, addr, user, pass string
	}{
		{in: "http://proxy.example:8080", addr: "proxy.example:8080"},
		{in: "HTTP://Proxy.Example:8080/", addr: "proxy.example:8080"},
		{in: "http://127.0.0.1:3128", addr: "127.0.0.1:3128"},
		{in: "http://[::1]:3128", addr: "[::1]:3128"},
		{in: "http://localhost:1", addr: "localhost:1"},
		{in: "http://user:pass@proxy.example:8080", addr: "proxy.example:8080", user: "user", pass: "pass"},
		{in: "http://user@proxy.example:8080", addr: "proxy.example:8080", user: "user"},
		{in: "http://user:@proxy.example:8080", addr: "proxy.example:8080", user: "user"},
		{in: "http://u%40x:p%40ss%3A%2F%3F%25%23@proxy.example:8080", addr: "proxy.example:8080", user: "u@x", pass: "p@ss:/?%#"},
		{in: "http://u:a+b%20c@proxy.example:8080", addr: "proxy.example:8080", user: "u", pass: "a+b c"},
		{in: "http://u:%2540@proxy.example:8080", addr: "proxy.example:8080", user: "u", pass: "%40"},
		{in: "http://user-sessid=1&x;y,z!*'()$:pw@proxy.example:8080", addr: "proxy.example:8080", user: "user-sessid=1&x;y,z!*'()$", pass: "pw"},
		{in: "https://u:p@proxy.example:443", addr: "proxy.example:443", user: "u", pass: "p"},
		{in: "socks5://u:p@proxy.example:1080", addr: "proxy.example:1080", user: "u", pass: "p"},
		{in: "SOCKS5://[2001:DB8::1]:1080", addr: "[2001:db8::1]:1080"},
		{in: "http://u:%C3%A4@proxy.example:8080", addr: "proxy.example:8080", user: "u", pass: "ä"},
	} {
		all, err := ParseUpstream(UpstreamURL(tc.in))
		if err != nil || len(all) != 1 {
			t.Errorf("%q: %v, %v", tc.in, all, err)
			continue
		}
		u := all[0]
		if scheme, _, _ := strings.Cut(strings.ToLower(tc.in), ":"); u.direct || u.scheme != scheme || u.Addr() != tc.addr || u.user != tc.user || u.pass != tc.pass || u.auth != (tc.user != "") {
			t.Errorf("%q: %s %s %q %q", tc.in, u.scheme, u.Addr(), u.user, u.pass)
		}
		if tc.user != "" {
			want := "Basic " + base64.StdEncoding.EncodeToString([]byte(tc.user+":"+tc.pass))
			if got := u.authorization(); got != want {
				t.Errorf("%q: the header is %q, want %q", tc.in, got, want)
			}
		}
	}
	if u, err := ParseUpstream(Direct); err != nil || len(u) != 1 || !u[0].direct {
		t.Errorf("direct: %+v, %v", u, err)
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	const hush = "hush"
	for _, in := range []string{
		"", "Direct", "proxy.example:8080", "ftp://u:hush@proxy.example:1", "socks4://u:hush@proxy.example:1", "socks5h://u:hush@proxy.example:1",
		"socks5://u:hush" + strings.Repeat("h", 255) + "@proxy.example:1", "http://u:hush@proxy.example:9-1", "http://u:hush@proxy.example:1-10001",
		"http://u:hush@proxy.example:1-", "http://u:hush@proxy.example:-1", "http://u:hush@proxy.example:1-2-3", "http://u:hush@proxy.example:1-65536",
		"http://", "http:///", "http://u:hush@", "http://u:hush@proxy.example", "http://u:hush@proxy.example:",
		"http://u:hush@proxy.example:0", "http://u:hush@proxy.example:65536", "http://u:hush@proxy.example:+1", "http://u:hush@proxy.example:080",
		"http://u:hush@proxy.example:80/path", "http://u:hush@proxy.example:80?q", "http://u:hush@proxy.example:80#f",
		"http://u:hu@sh@proxy.example:80", "http://u:hush/x@proxy.example:80", "http://u:hush?x@proxy.example:80", "http://u:hush#x@proxy.example:80",
		"http://u:hush:x@proxy.example:80", "http://u:hush%@proxy.example:80", "http://u:hush%4@proxy.example:80", "http://u:hush%zz@proxy.example:80",
		"http://:hush@proxy.example:80", "http://u%3Ax:hush@proxy.example:80", "http://u:hush%0d%0aX:%20y@proxy.example:80", "http://u:hush%00@proxy.example:80",
		"http://u:hush@pro xy:80", "http://u:hush@pr\r\noxy:80", "http://u:hush@[fe80::1%25eth0:80", "http://u:hush@ä.example:80", "http://u:hush x@proxy.example:80",
	} {
		u, err := ParseUpstream(UpstreamURL(in))
		if !errors.Is(err, ErrConfig) {
			t.Errorf("%q: got %v and %v, want ErrConfig", in, u, err)
			continue
		}
		if strings.Contains(err.Error(), hush) {
			t.Errorf("%q: the error holds the password: %v", in, err)
		}
	}
}

func TestParseUpstreams(t *testing.T) {
	all, err := ParseUpstreams([]UpstreamURL{"http://u:p@h:10001-10100", "socks5://u:p@h:9", "https://i:10001"})
	if err != nil || len(all) != 102 {
		t.Fatalf("%d, %v", len(all), err)
	}
	for i, u := range all[:100] {
		if want := fmt.Sprintf("h:%d", 10001+i); u.Addr() != want || u.pass != "p" {
			t.Errorf("number %d is %s, want %s", i, u.Addr(), want)
		}
	}
	for name, bad := range map[string][]UpstreamURL{
		"none":               {},
		"direct beside":      {Direct, "http://h:1"},
		"direct twice":       {Direct, Direct},
		"a port twice":       {"http://h:1-5", "socks5://h:5"},
		"one that is wrong":  {"http://h:1", "http://u:hush@h"},
		"too many of them":   {"http://h:1-10000", "http://i:1"},
		"an empty one":       {""},
		"in another writing": {"http://H:1", "http://h:1/"},
	} {
		if _, err := ParseUpstreams(bad); !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUpstreamRedacts(t *testing.T) {
	const raw = UpstreamURL("http://ann:hush@proxy.example:8080")
	u := mustUpstream(t, string(raw))
	type config struct {
		A UpstreamURL
		B Upstream
		C *Upstream
		D []UpstreamURL
	}
	cfg := config{raw, u, &u, []UpstreamURL{raw}}
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		fmt.Fprintf(&out, format+"\n", cfg)
		fmt.Fprintf(&out, format+format+"\n", raw, u)
	}
	if err := json.NewEncoder(&out).Encode(cfg); err != nil {
		t.Fatal(err)
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("x", "url", raw, "up", u, "ptr", &u, "cfg", cfg)
	}
	for _, secret := range []string{"hush", "ann", base64.StdEncoding.EncodeToString([]byte("ann:hush"))} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is printed:\n%s", secret, out.String())
		}
	}
	if got := fmt.Sprintf("%v %v %v", Direct, Upstream{direct: true}, Upstream{}); got != "direct direct none" {
		t.Errorf("got %q", got)
	}
}

// What net/url takes as well must mean the same to it.
func FuzzParseUpstream(f *testing.F) {
	for _, s := range []string{"direct", "http://u:p@h:1", "http://u%40:p%3A@h:1/", "http://[::1]:2", "http://u:p@h@i:1", "socks5://u:p@h:1-9", "https://h:65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := ParseUpstream(UpstreamURL(s))
		if err != nil {
			return
		}
		u := all[0]
		if len(all) > 1 {
			s = strings.Replace(s, fmt.Sprintf(":%d-%d", u.port, all[len(all)-1].port), fmt.Sprintf(":%d", u.port), 1)
		}
		if u.direct {
			if s != string(Direct) {
				t.Fatalf("%q is direct", s)
			}
			return
		}
		ref, err := url.Parse(s)
		if err != nil {
			return // it takes fewer characters in a password, such as "
		}
		pass, _ := ref.User.Password()
		if ref.User.Username() != u.user || pass != u.pass {
			t.Fatalf("%q: %q %q, net/url reads %q %q", s, u.user, u.pass, ref.User.Username(), pass)
		}
		if strings.ContainsAny(u.Addr(), "@/?# \r\n") {
			t.Fatalf("%q: the address %q", s, u.Addr())
		}
		if strings.ContainsAny(u.authorization(), "\r\n") {
			t.Fatalf("%q: the header %q", s, u.authorization())
		}
	})
}
