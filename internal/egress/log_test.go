package egress

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

func TestClaimed(t *testing.T) {
	const secret = "hush"
	for asked, want := range map[string]struct {
		name string
		port uint16
	}{
		"example.com:25":                           {"example.com", 25},
		"EXAMPLE.com:443":                          {"example.com", 443},
		"example.com.:443":                         {"example.com.", 443},
		"localhost:80":                             {"localhost", 80},
		"169.254.169.254:80":                       {"169.254.169.254", 80},
		"0xa9fea9fe:80":                            {"0xa9fea9fe", 80},
		"[::ffff:169.254.169.254]:80":              {"::ffff:169.254.169.254", 80},
		"[fe80::1%25eth0]:80":                      {"fe80::1", 80},
		"2606:4700::1111:443":                      {"2606:4700::1111", 443},
		"[example.com]:443":                        {"example.com", 443},
		"http://example.com:8080/path?q=" + secret: {"example.com", 8080},
		"http://10.0.0.1/":                         {"10.0.0.1", 80},
		"HTTP://Metadata/latest":                   {"metadata", 80},
		"http://10.0.0.1/@" + secret:               {"10.0.0.1", 80},
		"http://10.0.0.1?" + secret:                {"10.0.0.1", 80},
		"https://example.com/" + secret:            {"example.com", 443},

		// no port that can be read
		"example.com":           {"example.com", 0},
		"example.com:":          {"example.com", 0},
		"example.com:0x1bb":     {"example.com", 0},
		"example.com:65979":     {"example.com", 0},
		"example.com:" + secret: {"example.com", 0},

		// user information
		secret + "@example.com:443":                         {"example.com", 443},
		secret + ":" + secret + "@example.com:443":          {"example.com", 443},
		"example.com:443@10.0.0.1:443":                      {"10.0.0.1", 443},
		"u:" + secret + "/@:" + secret + "@example.com:443": {"example.com", 443},
		"u:a://" + secret + "@example.com:443":              {"", 0},
		"http://" + secret + ":" + secret + "@example.com/": {"example.com", 80},
		"http://u:" + secret + "/x@example.com/":            {"", 0},
		"http://u:x@" + secret + "/x@example.com/":          {"", 0},
		"http://u:x@" + secret + "?x@example.com/":          {"", 0},
		"http://u:x@" + secret + "#@example.com/":           {"", 0},
		"u:" + secret + ":443":                              {"", 443},
		"u:" + secret + "%40example.com:443":                {"", 443},
		"u%3A" + secret + "%40example.com:443":              {"", 443},
		"[u:" + secret + "]:443":                            {"", 443},
		"[u:" + secret + "%40example.com]:443":              {"", 443},
		"[[2606:4700::1111]]:443":                           {"", 443},

		// what is no name, and nothing at all
		"ex\u00e4mple.com:443":                {"", 443},
		"a\x1b[31mb:443":                      {"", 443},
		"a\nb:443":                            {"", 443},
		"a\x00b:443":                          {"", 443},
		"":                                    {"", 0},
		"*":                                   {"", 0},
		"/" + secret:                          {"", 0},
		":443":                                {"", 443},
		"ftp://u:" + secret + "@example.com/": {"", 0},
		strings.Repeat("a", 9999) + ":25":     {strings.Repeat("a", maxLoggedName), 25},
	} {
		name, port := claimed(asked)
		if name != want.name || port != want.port {
			t.Errorf("%.80q: %q and %d, want %q and %d", asked, name, port, want.name, want.port)
		}
		if strings.Contains(name, secret) {
			t.Errorf("%q: the name has the secret in it: %q", asked, name)
		}
	}
}

// What is told of a target is bounded, plain, and no other than what is read of
// one that is accepted.
func FuzzClaimed(f *testing.F) {
	for _, s := range []string{"example.com:443", "[::1]:80", "u:p@h:80", "http://u:p@h:1/", "http://u:p/@h", "a:b:c:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, port := claimed(s)
		if len(name) > maxLoggedName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.:") != "" {
			t.Fatalf("%q: the name %q", s, name)
		}
		if got, err := parseTarget(s, 0); err == nil && !got.addr.Is6() && (name != got.host || port != got.port) {
			t.Fatalf("%q: %q and %d, but it is %+v", s, name, port, got)
		}
		if before, after, ok := strings.Cut(s, "@"); ok && !strings.Contains(after, "@") && !strings.Contains(s, "://") && len(name) > len(after) {
			t.Fatalf("%q: the name %q is of %q", s, name, before)
		}
	})
}

// TestEveryLineIsWhole: whatever is decided, the line of the log says of whom,
// where to, how much, how long and what.
func TestEveryLineIsWhole(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 443, echo)
	s.at("private.example.com", "10.0.0.1", 443, echo)
	s.names["dead.example.com"] = []string{"93.184.216.99"}
	full := strings.Repeat("a", MaxHeaderBytes)
	const head, get = " HTTP/1.1\r\n\r\n", "GET http://u:hush@"
	for _, tc := range []struct {
		request string
		code    Code
		name    string
		port    int
		cfg     Config
		via     *Upstream
	}{
		{request: "CONNECT example.com:443" + head, code: Allowed, name: "example.com", port: 443},
		{request: "CONNECT u:hush@10.0.0.1:443" + head, code: BadTarget, name: "10.0.0.1", port: 443},
		{request: get + "example.com:8080/" + head, code: BadTarget, name: "example.com", port: 8080},
		{request: "CONNECT ex\u00e4mple.com:443" + head, code: BadTarget, port: 443},
		{request: "CONNECT example.com:443/#" + head, code: BadTarget, name: "example.com", port: 443},
		{request: "TRACE http://example.com/" + head, code: BadRequest, name: "example.com", port: 80},
		{request: "GET /hush" + head, code: BadRequest},
		{request: "CONNECT example.com:443 HTTP/1.1\r\nHost: a\r\nHost: hush\r\n\r\n", code: BadRequest, name: "example.com", port: 443},
		{request: "CONNECT example.com:443 HTTP/1.1\r\nX: " + full + "\r\n\r\n", code: HeaderTooLarge, name: "example.com", port: 443},
		{request: "CONNECT " + full + head, code: HeaderTooLarge, name: full[:maxLoggedName]},
		{request: "CONNECT example.com:25" + head, code: PortRefused, name: "example.com", port: 25},
		{request: "GET http://example.com:22/hush" + head, code: PortRefused, name: "example.com", port: 22},
		{request: "CONNECT metadata.google.internal:80" + head, code: NameRefused, name: "metadata.google.internal", port: 80},
		{request: "CONNECT 169.254.169.254:80" + head, code: AddressRefused, name: "169.254.169.254", port: 80},
		{request: "GET http://[::1]/hush" + head, code: AddressRefused, name: "::1", port: 80},
		{request: "CONNECT private.example.com:443" + head, code: AddressRefused, name: "private.example.com", port: 443},
		{request: "CONNECT example.com:443" + head, code: NameDenied, name: "example.com", port: 443, cfg: Config{Rules: Rules{Deny: Names{"example.com"}}}},
		{request: "CONNECT example.com:443" + head, code: NoUpstream, name: "example.com", port: 443, via: &Upstream{}},
		{request: "CONNECT none.example.com:443" + head, code: ResolveFailed, name: "none.example.com", port: 443},
		{request: "CONNECT dead.example.com:443" + head, code: ConnectFailed, name: "dead.example.com", port: 443},
		{request: "GET http://example.com/" + head, code: ConnectFailed, name: "example.com", port: 80},
		{request: "CONNECT example.com:443" + head, code: UpstreamUnreachable, name: "example.com", port: 443, via: &Upstream{scheme: schemeHTTP, host: "127.0.0.1", port: 9}},
	} {
		t.Run(string(tc.code)+" "+tc.request[:min(len(tc.request), 50)], func(t *testing.T) {
			l := &logs{}
			tc.cfg.Logger = slog.New(slog.NewJSONHandler(l, nil))
			p, err := newProxy(tc.cfg, s.network())
			if err != nil {
				t.Fatal(err)
			}
			if tc.via == nil {
				tc.via = &Upstream{direct: true}
			}
			p.Open(testIdentity.UserID, *tc.via)
			r := newRig(t, p, l)
			c := r.open()
			c.send(tc.request)
			if resp, body := c.answer(http.MethodConnect); tc.code != Allowed && resp.Header.Get(Header) != string(tc.code) {
				t.Errorf("it is answered %s, %s", resp.Header.Get(Header), body)
			}
			_ = c.Close()
			_ = r.Proxy.Close()
			wantLine(t, l.String(), map[string]any{
				"msg": "egress", "user": "u1", "session": "s1", "machine": "m1",
				"name": tc.name, "port": float64(tc.port), "decision": string(tc.code),
			})
		})
	}
}

// wantLine checks that the log is one line with the given attributes, with what
// was moved and how long that took, and without secrets.
func wantLine(t *testing.T, log string, want map[string]any) {
	t.Helper()
	var lines []map[string]any
	for d := json.NewDecoder(strings.NewReader(log)); d.More(); {
		var one map[string]any
		if err := d.Decode(&one); err != nil {
			t.Fatalf("%v:\n%s", err, log)
		}
		if one["msg"] == "egress" {
			lines = append(lines, one)
		}
	}
	if len(lines) != 1 {
		t.Fatalf("there are %d lines:\n%s", len(lines), log)
	}
	for name, value := range want {
		if lines[0][name] != value {
			t.Errorf("%s is %v, want %v", name, lines[0][name], value)
		}
	}
	for _, name := range []string{"upstream", "bytes_up", "bytes_down", "duration"} {
		if _, ok := lines[0][name]; !ok {
			t.Errorf("there is no %s:\n%s", name, log)
		}
	}
	if strings.Contains(log, "hush") {
		t.Errorf("the log holds what it must not:\n%s", log)
	}
}
