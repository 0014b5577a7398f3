package httpapi

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/ways"
)

func setCookie(t *testing.T, a answer) *http.Cookie {
	t.Helper()
	cookies := (&http.Response{Header: a.header}).Cookies()
	if len(cookies) != 1 {
		t.Fatalf("%d cookies in %v", len(cookies), a.header)
	}
	return cookies[0]
}

func TestLoginOnLoopback(t *testing.T) {
	r := newRig(t, nil)
	code := r.secret(r.alice.user, store.TokenLink, time.Minute)
	a := r.do("POST", "/api/v1/login", `{"code":"`+code+`"}`)
	if a.status != http.StatusOK || !strings.Contains(a.body, `"name":"alice"`) {
		t.Fatalf("%d %s", a.status, a.body)
	}
	c := setCookie(t, a)
	if c.Name != cookiePlain || !c.HttpOnly || c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge < 3600 {
		t.Errorf("the cookie is %v", c)
	}
	r.problem(r.do("POST", "/api/v1/login", `{"code":"`+code+`"}`), ProblemCodeLinkInvalid)
	if a := r.do("GET", "/api/v1/me", "", header("Cookie", cookiePlain+"="+c.Value)); a.status != http.StatusOK {
		t.Errorf("with the cookie: %d %s", a.status, a.body)
	}
	for _, s := range []string{code, c.Value} {
		if strings.Contains(r.log.String(), s) {
			t.Error("a secret is in the log")
		}
	}
}

func TestLoginRefuses(t *testing.T) {
	r := newRig(t, nil)
	for body, want := range map[string]ProblemCode{
		`{"code":"wrong"}`:                 ProblemCodeLinkInvalid,
		`{"code":"` + r.alice.token + `"}`: ProblemCodeLinkInvalid, // a token of another kind
		`{"code":""}`:                      ProblemCodeInvalidRequest,
		`{"code":"` + strings.Repeat("x", maxSecret+1) + `"}`: ProblemCodeInvalidRequest,
		`{}`:        ProblemCodeInvalidRequest,
		`{"key":1}`: ProblemCodeInvalidJSON,
	} {
		r.problem(r.do("POST", "/api/v1/login", body), want)
	}
	expired := r.secret(r.alice.user, store.TokenLink, -time.Minute)
	r.problem(r.do("POST", "/api/v1/login", `{"code":"`+expired+`"}`), ProblemCodeLinkInvalid)
}

func TestLoginNeedsHTTPSElsewhere(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts = []string{"anteroom.example"} })
	code := r.secret(r.alice.user, store.TokenLink, time.Minute)
	body := `{"code":"` + code + `"}`
	r.problem(r.do("POST", "/api/v1/login", body, host("anteroom.example")), ProblemCodeHTTPSRequired)
	// A header that anybody can send changes nothing without a proxy.
	r.problem(r.do("POST", "/api/v1/login", body, host("anteroom.example"), header("X-Forwarded-Proto", "https")), ProblemCodeHTTPSRequired)
	// Nor does a cookie that leaked over plain http open anything.
	cookie := r.secret(r.alice.user, store.TokenCookie, time.Hour)
	for _, name := range []string{cookiePlain, cookieSecure} {
		r.problem(r.do("GET", "/api/v1/me", "", host("anteroom.example"), header("Cookie", name+"="+cookie)), ProblemCodeUnauthenticated)
	}
	if a := r.do("POST", "/api/v1/login", body); a.status != http.StatusOK { // the code was not used up
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestLoginBehindProxy(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts, c.BehindProxy = []string{"anteroom.example"}, true })
	code := r.secret(r.alice.user, store.TokenLink, time.Minute)
	proxied := func(q *http.Request) {
		q.Host = "anteroom.example"
		q.Header.Set("X-Forwarded-Proto", "https")
	}
	a := r.do("POST", "/api/v1/login", `{"code":"`+code+`"}`, proxied)
	c := setCookie(t, a)
	if c.Name != cookieSecure || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("the cookie is %v", c)
	}
	if a.header.Get("Strict-Transport-Security") == "" {
		t.Error("no Strict-Transport-Security")
	}
	if a := r.do("GET", "/api/v1/me", "", proxied, header("Cookie", c.Name+"="+c.Value)); a.status != http.StatusOK {
		t.Errorf("with the cookie: %d %s", a.status, a.body)
	}
}

func TestLoginOverTLS(t *testing.T) {
	r := startRig(t, nil)
	r.http.StartTLS()
	c := r.browser(r.alice)
	if a := r.send(c, "GET", "/api/v1/me", ""); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	u := mustURL(t, r.http.URL)
	if got := c.Jar.Cookies(u); len(got) != 1 || got[0].Name != cookieSecure {
		t.Errorf("the cookies are %v", got)
	}
}

func TestLogout(t *testing.T) {
	r := newRig(t, nil)
	one, two := r.browser(r.alice), r.browser(r.alice)
	old := one.Jar.Cookies(mustURL(t, r.http.URL))[0]
	if a := r.send(one, "POST", "/api/v1/logout", ""); a.status != http.StatusNoContent {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if got := one.Jar.Cookies(mustURL(t, r.http.URL)); len(got) != 0 {
		t.Errorf("the browser keeps %v", got)
	}
	r.problem(r.do("GET", "/api/v1/me", "", header("Cookie", old.Name+"="+old.Value)), ProblemCodeUnauthenticated)
	if a := r.send(two, "GET", "/api/v1/me", ""); a.status != http.StatusOK {
		t.Errorf("the other browser was signed out: %d", a.status)
	}
	// An API token is not a page: signing out leaves it.
	if a := r.do("POST", "/api/v1/logout", "", bearer(r.alice.token)); a.status != http.StatusNoContent {
		t.Fatalf("%d", a.status)
	}
	if a := r.do("GET", "/api/v1/me", "", bearer(r.alice.token)); a.status != http.StatusOK {
		t.Errorf("the API token is gone: %d", a.status)
	}
}

func TestLoginRateLimit(t *testing.T) {
	clock := &testClock{now: time.Now()}
	r := newRig(t, func(c *Config) { c.Clock = clock.Now; c.BehindProxy = true })
	from := func(ip string) edit { return header("X-Forwarded-For", "10.9.9.9, "+ip) }
	for range maxFailures {
		r.problem(r.do("POST", "/api/v1/login", `{"code":"wrong"}`, from("203.0.113.7")), ProblemCodeLinkInvalid)
	}
	code := r.secret(r.alice.user, store.TokenLink, time.Hour)
	good := `{"code":"` + code + `"}`
	a := r.do("POST", "/api/v1/login", good, from("203.0.113.7"))
	r.problem(a, ProblemCodeTooManyRequests)
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.problem(r.do("POST", "/api/v1/login", `{"code":"wrong"}`, from("203.0.113.8")), ProblemCodeLinkInvalid) // others are not held up
	clock.add(failureWindow)
	if a := r.do("POST", "/api/v1/login", good, from("203.0.113.7")); a.status != http.StatusOK {
		t.Errorf("after the window: %d %s", a.status, a.body)
	}
}

func TestAttemptsStayBounded(t *testing.T) {
	clock := &testClock{now: time.Now()}
	a := newAttempts(clock.Now)
	for i := range 3 * maxFailureKeys {
		a.failed(string(rune('a'+i%26)) + time.Duration(i).String())
	}
	if n := len(a.seen); n > maxFailureKeys+1 {
		t.Errorf("%d clients are remembered", n)
	}
	if a.allowed("a new one") {
		t.Error("a flood of clients is not slowed")
	}
	clock.add(failureWindow)
	if !a.allowed("a new one") {
		t.Error("the flood is over, and new clients are still refused")
	}
}

type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A page of another site, and one of another port on this machine, can make
// the browser send the cookie; neither may do anything with it.
func TestCrossOriginWrites(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts = []string{"anteroom.example"} })
	c := r.browser(r.alice)
	path := "/api/v1/sessions/" + string(r.alice.session)
	for name, edits := range map[string][]edit{
		"cross-site":          {header("Sec-Fetch-Site", "cross-site")},
		"same-site":           {header("Sec-Fetch-Site", "same-site"), header("Origin", "http://127.0.0.1:1")},
		"old browser, origin": {header("Origin", "https://evil.example")},
		"null origin":         {header("Origin", "null")},
	} {
		t.Run(name, func(t *testing.T) {
			rr := *r
			rr.T = t
			rr.problem(rr.send(c, "DELETE", path, "", edits...), ProblemCodeCrossOrigin)
			rr.problem(rr.send(c, "POST", "/api/v1/sessions", `{"provider":"claude"}`, edits...), ProblemCodeCrossOrigin)
			rr.problem(rr.send(c, "POST", "/api/v1/login", `{"code":"x"}`, edits...), ProblemCodeCrossOrigin)
			rr.problem(rr.send(c, "POST", "/api/v1/logout", "", edits...), ProblemCodeCrossOrigin)
		})
	}
	if !r.uc.has(string(r.alice.session)) {
		t.Fatal("the session was cancelled")
	}
	for name, edits := range map[string][]edit{
		"same origin":       {header("Sec-Fetch-Site", "same-origin"), header("Origin", r.http.URL)},
		"configured origin": {header("Sec-Fetch-Site", "cross-site"), header("Origin", "https://anteroom.example")},
		"no browser":        nil,
	} {
		if a := r.send(c, "POST", "/api/v1/sessions", `{"provider":"claude"}`, edits...); a.status != http.StatusCreated {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	a := r.do("GET", "/api/v1/sessions", "", bearer(r.alice.token), header("Origin", "https://evil.example"))
	for name := range a.header {
		if strings.HasPrefix(name, "Access-Control-") {
			t.Errorf("%s lets others read", name)
		}
	}
}

// A name of an attacker's that resolves to this machine is not this server.
func TestHostHeader(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts = []string{"Anteroom.Example"} })
	for h, ok := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8080": true, "127.9.9.9": true, "localhost:1": true, "LOCALHOST": true,
		"[::1]": true, "[::1]:8080": true, "[::ffff:127.0.0.1]:80": true,
		"anteroom.example": true, "ANTEROOM.example:443": true,
		"evil.example": false, "localhost.evil.example": false, "evil.example:8080": false, "0.0.0.0": false,
		"192.168.1.1": false, "anteroom.example.": false, "anteroom.example:x": false, "127.1": false, "2130706433": false,
	} {
		t.Run(h, func(t *testing.T) {
			rr := *r
			rr.T = t
			for _, path := range []string{"/api/v1/me", "/"} {
				a := rr.do("GET", path, "", host(h), bearer(r.alice.token))
				if ok && a.status != http.StatusOK {
					t.Errorf("%s: %d %s", path, a.status, a.body)
				}
				if !ok && a.status != http.StatusBadRequest { // net/http itself refuses some
					rr.problem(a, ProblemCodeHostRefused)
				}
			}
			if a := rr.do("GET", "/healthz", "", host(h)); a.status != http.StatusOK && a.status != http.StatusBadRequest {
				t.Errorf("a health check: %d", a.status)
			}
		})
	}
}

func TestConfiguredHosts(t *testing.T) {
	for _, bad := range []string{"", "https://x.example", "x.example:443", "x y", "*.example", "x/y", strings.Repeat("a", 254)} {
		if _, err := New(Config{UseCases: newFake(), Outward: &ways.Ways{}, Auth: noAuth{}, Hosts: []string{bad}}); err == nil {
			t.Errorf("%q is taken as a host", bad)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a server without anything behind it")
	}
}

type noAuth struct{ Auth }
