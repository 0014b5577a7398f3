package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestStartSession(t *testing.T) {
	r := newRig(t, nil)
	a := r.do("POST", "/api/v1/sessions", `{"provider":"claude_code","locale":"sv-SE","languages":["sv-SE","sv","e\"n"],"time_zone":"Europe/Stockholm","width":99999,"height":700}`, bearer(r.alice.token))
	var s Session
	if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a.header.Get("Location") != "/api/v1/sessions/"+s.ID || s.Provider != "claude" || s.State != SessionStateRequested || s.Message == "" || s.Reason != nil || s.ViewerURL == "" {
		t.Errorf("the session is %s, at %s", a.body, a.header.Get("Location"))
	}
	want := guestapi.View{Locale: "sv_SE.UTF-8", Languages: "sv-SE,sv", TimeZone: "Europe/Stockholm", Width: maxWidth, Height: 700}
	if r.uc.view != want {
		t.Errorf("the view is %+v, want %+v", r.uc.view, want)
	}
}

func TestIdempotencyKey(t *testing.T) {
	r := newRig(t, nil)
	start := func(p person, provider, key string) answer {
		return r.do("POST", "/api/v1/sessions", `{"provider":"`+provider+`"}`, bearer(p.token), header("Idempotency-Key", key))
	}
	first, again := start(r.alice, "claude", "k1"), start(r.alice, "claude_code", "k1")
	if first.status != http.StatusCreated || again.status != http.StatusOK || first.body != again.body {
		t.Errorf("first %d %s, again %d %s", first.status, first.body, again.status, again.body)
	}
	if other := start(r.bob, "claude", "k1"); other.status != http.StatusCreated || other.body == first.body {
		t.Errorf("another user's key is the same: %d %s", other.status, other.body)
	}
	r.problem(start(r.alice, "codex", "k1"), ProblemCodeIdempotencyMismatch)
	r.problem(start(r.alice, "claude", strings.Repeat("k", 129)), ProblemCodeInvalidRequest)
	r.problem(start(r.alice, "claude", "nyckel-å"), ProblemCodeInvalidRequest)
	two := func(q *http.Request) { q.Header["Idempotency-Key"] = []string{"a", "b"} }
	r.problem(r.do("POST", "/api/v1/sessions", `{"provider":"claude"}`, bearer(r.alice.token), two), ProblemCodeInvalidRequest)
}

func TestBadBodies(t *testing.T) {
	r := newRig(t, nil)
	deep := `{"provider":` + strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth) + `}`
	tests := []struct {
		name, body string
		want       ProblemCode
		detail     string // what the sentence must have
	}{
		{"unknown provider", `{"provider":"nope"}`, ProblemCodeProviderUnknown, "claude, codex"},
		{"no provider", `{}`, ProblemCodeProviderUnknown, ""},
		{"not JSON", `{"provider":`, ProblemCodeInvalidJSON, "not JSON"},
		{"syntax", `{"provider" "x"}`, ProblemCodeInvalidJSON, "byte"},
		{"unknown field", `{"provider":"claude","admin":true}`, ProblemCodeInvalidJSON, "admin"},
		{"wrong type", `{"provider":7}`, ProblemCodeInvalidJSON, "provider"},
		{"a list", `["claude"]`, ProblemCodeInvalidJSON, ""},
		{"two values", `{"provider":"claude"}{"provider":"codex"}`, ProblemCodeInvalidJSON, "follows"},
		{"trailing garbage", `{"provider":"claude"} x`, ProblemCodeInvalidJSON, "follows"},
		{"too deep", deep, ProblemCodeInvalidJSON, "deep"},
		{"spaces", "   ", ProblemCodeInvalidJSON, "empty"},
		{"not UTF-8", "{\"\xff\xfe\":1}", ProblemCodeInvalidJSON, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rr := *r
			rr.T = t
			a := rr.do("POST", "/api/v1/sessions", tt.body, bearer(r.alice.token))
			rr.problem(a, tt.want)
			if !strings.Contains(a.body, tt.detail) {
				t.Errorf("%s does not say %q", a.body, tt.detail)
			}
		})
	}
	for _, ct := range []string{"", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"} {
		r.problem(r.do("POST", "/api/v1/sessions", `{"provider":"claude"}`, bearer(r.alice.token), header("Content-Type", ct)), ProblemCodeUnsupportedMediaType)
	}
}

func TestBodyOverOneMiB(t *testing.T) {
	r := newRig(t, nil)
	big := `{"provider":"` + strings.Repeat("x", maxBody) + `"}`
	r.problem(r.do("POST", "/api/v1/sessions", big, bearer(r.alice.token)), ProblemCodeBodyTooLarge)
	// The same without a length, and where no body is wanted at all.
	chunked := func(q *http.Request) { q.Body, q.ContentLength = io.NopCloser(strings.NewReader(big)), -1 }
	r.problem(r.do("POST", "/api/v1/sessions", "x", bearer(r.alice.token), chunked), ProblemCodeBodyTooLarge)
	r.problem(r.do("POST", "/api/v1/login", "x", chunked), ProblemCodeBodyTooLarge)
	r.problem(r.do("POST", "/api/v1/machines", big, bearer(r.alice.token)), ProblemCodeBodyTooLarge)
	if fits := `{"provider":"claude"` + strings.Repeat(" ", maxBody-21) + `}`; len(fits) != maxBody {
		t.Fatal("wrong test")
	} else if a := r.do("POST", "/api/v1/sessions", fits, bearer(r.alice.token)); a.status != http.StatusCreated {
		t.Errorf("1 MiB exactly: %d %s", a.status, a.body)
	}
}

func TestHeadersTooLong(t *testing.T) {
	r := newRig(t, nil)
	if a := r.do("GET", "/api/v1/me", "", header("X-Long", strings.Repeat("x", 64<<10))); a.status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%d", a.status)
	}
	if s := r.server.HTTPServer(); s.ReadHeaderTimeout != 5*time.Second || s.MaxHeaderBytes != 16<<10 || s.IdleTimeout == 0 {
		t.Errorf("limits are %v %v %v", s.ReadHeaderTimeout, s.MaxHeaderBytes, s.IdleTimeout)
	}
}

func TestBadParameters(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{
		"/api/v1/sessions?limit=0", "/api/v1/sessions?limit=201", "/api/v1/sessions?limit=x", "/api/v1/sessions?limit=1&limit=2",
		"/api/v1/sessions?before=%00", "/api/v1/sessions?before=" + strings.Repeat("a", 65),
		"/api/v1/events?after=-1", "/api/v1/events?after=x", "/api/v1/events?after=99999999999999999999",
		"/api/v1/machines/" + r.alice.machine + "/terminal?cols=0", "/api/v1/machines/" + r.alice.machine + "/terminal?rows=1001",
	} {
		a := r.do("GET", path, "", bearer(r.alice.token))
		r.problem(a, ProblemCodeInvalidRequest)
		if strings.Contains(a.body, "strconv") || strings.Contains(a.body, "unmarshal") {
			t.Errorf("%s: internals in %s", path, a.body)
		}
	}
	for _, id := range []string{"-1", "x", "1 ", "1.0"} {
		if id == "1 " { // net/http trims it
			continue
		}
		r.problem(r.do("GET", "/api/v1/events", "", bearer(r.alice.token), header("Last-Event-ID", id)), ProblemCodeInvalidRequest)
	}
}

func TestSessionPages(t *testing.T) {
	r := newRig(t, nil)
	for range 4 {
		if a := r.do("POST", "/api/v1/sessions", `{"provider":"codex"}`, bearer(r.alice.token)); a.status != http.StatusCreated {
			t.Fatal(a.body)
		}
	}
	seen := make(map[string]bool)
	before := ""
	for pages := 1; ; pages++ {
		var page SessionList
		a := r.do("GET", "/api/v1/sessions?limit=2"+before, "", bearer(r.alice.token))
		if err := json.Unmarshal([]byte(a.body), &page); err != nil {
			t.Fatal(err)
		}
		for _, s := range page.Sessions {
			if seen[s.ID] {
				t.Errorf("%s twice", s.ID)
			}
			seen[s.ID] = true
		}
		if page.Next == nil {
			if pages != 3 {
				t.Errorf("%d pages", pages)
			}
			break
		}
		before = "&before=" + *page.Next
	}
	if len(seen) != 5 {
		t.Errorf("%d sessions", len(seen))
	}
}

func TestErrorsOfTheUseCases(t *testing.T) {
	r := newRig(t, nil)
	for _, tt := range []struct {
		err  error
		want ProblemCode
	}{
		{store.ErrNotFound, ProblemCodeNotFound},
		{fmt.Errorf("x: %w", provider.ErrUnknown), ProblemCodeProviderUnknown},
		{&session.ConflictError{}, ProblemCodeConflict},
		{fmt.Errorf("x: %w", session.ErrNotReady), ProblemCodeNotReady},
		{fmt.Errorf("x: %w", store.ErrReplaced), ProblemCodeConflict},
		{fmt.Errorf("x: %w", store.ErrTooMany), ProblemCodeTooManySessions},
		{fmt.Errorf("x: %w", store.ErrQueueFull), ProblemCodeQueueFull},
		{fmt.Errorf("x: %w", machine.ErrGone), ProblemCodeMachineGone},
		{machine.ErrNoMemory, ProblemCodeNoMemory},
		{machine.ErrDiskFull, ProblemCodeDiskFull},
		{store.ErrDiskFull, ProblemCodeDiskFull},
		{errors.New("dial tcp 10.0.0.1: SECRET"), ProblemCodeInternal},
	} {
		t.Run(tt.err.Error(), func(t *testing.T) {
			rr := *r
			rr.T = t
			r.uc.failWith(tt.err)
			defer r.uc.failWith(nil)
			a := rr.do("POST", "/api/v1/sessions", `{"provider":"claude"}`, bearer(r.alice.token))
			rr.problem(a, tt.want)
			if strings.Contains(a.body, "SECRET") {
				t.Error("internals in the answer")
			}
		})
	}
	if !strings.Contains(r.log.String(), "SECRET") {
		t.Error("the internal error is not in the log")
	}
}

// panicky panics where it is asked for the providers.
type panicky struct{ *fake }

func (panicky) Providers() []*provider.File { panic("SECRET") }

func TestPanic(t *testing.T) {
	r := newRig(t, func(c *Config) { c.UseCases = panicky{c.UseCases.(*fake)} })
	a := r.do("GET", "/api/v1/providers", "", bearer(r.alice.token))
	r.problem(a, ProblemCodeInternal)
	if strings.Contains(a.body, "SECRET") || !strings.Contains(r.log.String(), "SECRET") {
		t.Errorf("the panic belongs in the log, not in %s", a.body)
	}
	if a := r.do("GET", "/api/v1/me", "", bearer(r.alice.token)); a.status != http.StatusOK {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestUnknownAddressesAndMethods(t *testing.T) {
	r := newRig(t, nil)
	r.problem(r.do("GET", "/api/v1/nothing", "", bearer(r.alice.token)), ProblemCodeNotFound)
	r.problem(r.do("GET", "/api/v2/sessions", "", bearer(r.alice.token)), ProblemCodeNotFound)
	a := r.do("PUT", "/api/v1/sessions", "", bearer(r.alice.token))
	r.problem(a, ProblemCodeMethodNotAllowed)
	if a.header.Get("Allow") != "GET, POST" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
	r.problem(r.do("POST", "/healthz", ""), ProblemCodeMethodNotAllowed)
	r.problem(r.do("DELETE", "/", ""), ProblemCodeMethodNotAllowed)
}

func TestHealth(t *testing.T) {
	ready := errors.New("SECRET reason")
	r := newRig(t, func(c *Config) {
		c.Ready = func(context.Context) error { return ready }
	})
	if a := r.do("GET", "/healthz", ""); a.status != http.StatusOK {
		t.Errorf("healthz: %d", a.status)
	}
	a := r.do("GET", "/readyz", "")
	r.problem(a, ProblemCodeNotReady)
	if strings.Contains(a.body, "SECRET") {
		t.Error("internals in the answer")
	}
	for err, want := range map[error]string{
		fmt.Errorf("SECRET: %w", session.ErrNotReady): "not taken over",
		fmt.Errorf("%w: SECRET", ErrMachines):         "cannot make machines",
	} {
		ready = err
		a := r.do("GET", "/readyz", "")
		r.problem(a, ProblemCodeNotReady)
		if !strings.Contains(a.body, want) || strings.Contains(a.body, "SECRET") {
			t.Errorf("%v: %s", err, a.body)
		}
	}
	ready = nil
	if a := r.do("GET", "/readyz", ""); a.status != http.StatusOK {
		t.Errorf("readyz: %d", a.status)
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MetricsPublic = true })
	r.do("GET", "/api/v1/sessions/"+string(r.alice.session), "", bearer(r.alice.token))
	r.do("GET", "/some/made-up/address", "")
	r.do("BREW", "/api/v1/me", "", bearer(r.alice.token))
	a := r.do("GET", "/metrics", "")
	want := `anteroom_http_requests_total{method="GET",route="/api/v1/sessions/{id}",status="200"} 1`
	if a.status != http.StatusOK || !strings.Contains(a.body, want) {
		t.Errorf("%d, without %s:\n%s", a.status, want, a.body)
	}
	for _, no := range []string{string(r.alice.session), "made-up", "BREW"} {
		if strings.Contains(a.body, no) {
			t.Errorf("a client can make series: %s", no)
		}
	}
}

func TestPageAndItsHeaders(t *testing.T) {
	r := newRig(t, nil)
	for _, path := range []string{"/", "/sessions/abc", "/index.html"} {
		a := r.do("GET", path, "")
		if a.status != http.StatusOK || !strings.Contains(a.body, "the page") || a.header.Get("Cache-Control") != "no-cache" {
			t.Errorf("%s: %d %q %v", path, a.status, a.body, a.header)
		}
		csp := a.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self';", "style-src 'self';", "connect-src 'self' ws://127.0.0.1:", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("the policy %q has no %s", csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") {
			t.Errorf("the policy %q", csp)
		}
		for h, want := range map[string]string{"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Resource-Policy": "same-origin"} {
			if a.header.Get(h) != want {
				t.Errorf("%s is %q", h, a.header.Get(h))
			}
		}
	}
}

// slowHeaders would hold a connection for ever.
func TestSlowHeaders(t *testing.T) {
	r := startRig(t, nil)
	r.http.Config.ReadHeaderTimeout = 50 * time.Millisecond // the real one is checked above
	r.http.Start()
	conn, err := net.Dial("tcp", r.http.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: ")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(limit))
	got, err := io.ReadAll(conn)
	if err != nil || bytes.Contains(got, []byte("200 OK")) {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPosixLocale(t *testing.T) {
	for in, want := range map[string]string{
		"sv-SE": "sv_SE.UTF-8", "en-us": "en_US.UTF-8", "zh-Hant-TW": "zh_TW.UTF-8", "sv": "", "es-419": "", "en-u-ca": "",
		"": "", "../x": "", "en-US; rm": "", "C.UTF-8": "", strings.Repeat("a", 40): "",
	} {
		if got := posixLocale(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

// FuzzDecodeStrict: no body panics, and what is accepted is one JSON object
// whose view keeps to the limits.
func FuzzDecodeStrict(f *testing.F) {
	f.Add([]byte(`{"provider":"claude","locale":"sv-SE","languages":["a"],"time_zone":"A/B","width":1,"height":-5}`))
	f.Add([]byte(`{"provider":"\ud800"}`))
	f.Add([]byte(`[[[[[[[[[[[`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var b StartSession
		if decodeStrict(body, &b) != nil {
			return
		}
		if !json.Valid(body) {
			t.Fatalf("accepted %q", body)
		}
		v := view(b)
		if v.Width < 0 || v.Width > maxWidth || v.Height < 0 || v.Height > maxHeight || len(v.Locale) > 16 || len(v.Languages) > 36*maxLanguages || len(v.TimeZone) > 64 {
			t.Fatalf("the view is %+v", v)
		}
		for _, c := range v.Locale + v.Languages + v.TimeZone {
			if c < '+' || c > 'z' {
				t.Fatalf("the view is %+v", v)
			}
		}
	})
}
