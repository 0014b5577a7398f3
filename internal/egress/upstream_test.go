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
		{in: "http://u:%C3%A4@proxy.example:8080", addr: "proxy.example:8080", user: "u", pass: "ä"},
	} {
		u, err := ParseUpstream(UpstreamURL(tc.in))
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
			continue
		}
		if u.direct || u.addr != tc.addr || u.user != tc.user || u.pass != tc.pass || u.auth != (tc.user != "") {
			t.Errorf("%q: %s %q %q", tc.in, u.addr, u.user, u.pass)
		}
		if tc.user != "" {
			want := "Basic " + base64.StdEncoding.EncodeToString([]byte(tc.user+":"+tc.pass))
			if got := u.authorization(); got != want {
				t.Errorf("%q: the header is %q, want %q", tc.in, got, want)
			}
		}
	}
	if u, err := ParseUpstream(Direct); err != nil || !u.direct {
		t.Errorf("direct: %+v, %v", u, err)
	}
}

func TestParseUpstreamRefuses(t *testing.T) {
	const hush = "hush"
	for _, in := range []string{
		"", "Direct", "proxy.example:8080", "https://u:hush@proxy.example:1", "socks5://u:hush@proxy.example:1",
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

func TestUpstreamRedacts(t *testing.T) {
	const raw = UpstreamURL("http://ann:hush@proxy.example:8080")
	u, err := ParseUpstream(raw)
	if err != nil {
		t.Fatal(err)
	}
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
	for _, s := range []string{"direct", "http://u:p@h:1", "http://u%40:p%3A@h:1/", "http://[::1]:2", "http://u:p@h@i:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseUpstream(UpstreamURL(s))
		if err != nil {
			return
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
		if strings.ContainsAny(u.addr, "@/?# \r\n") {
			t.Fatalf("%q: the address %q", s, u.addr)
		}
		if strings.ContainsAny(u.authorization(), "\r\n") {
			t.Fatalf("%q: the header %q", s, u.authorization())
		}
	})
}
