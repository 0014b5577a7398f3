package idp_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/test/idp"
)

// tool plays the part of one command-line tool against the provider.
type tool struct {
	t      *testing.T
	s      *idp.Server
	c      *http.Client
	p      idp.Provider
	page   string     // the sign-in page
	query  url.Values // with which it is opened
	token  string     // the token endpoint
	form   bool       // the token request is a form, not JSON
	verify string     // PKCE
}

const testVerifier = "a-verifier-that-is-long-enough-for-rfc-7636-section-4.1"

func start(t *testing.T, cfg idp.Config) (*idp.Server, *http.Client) {
	t.Helper()
	s, err := idp.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var user string
	for user = range cfg.ProxyUsers {
		break
	}
	c, err := s.Client(user)
	if err != nil {
		t.Fatal(err)
	}
	// A tool's loopback address: nobody listens there, the redirect is read.
	c.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		if r.URL.Scheme == "http" {
			return http.ErrUseLastResponse
		}
		return nil
	}
	t.Cleanup(func() {
		c.CloseIdleConnections()
		s.Close()
	})
	return s, c
}

func newTool(t *testing.T, s *idp.Server, c *http.Client, p idp.Provider) *tool {
	t.Helper()
	sum := sha256.Sum256([]byte(testVerifier))
	x := &tool{t: t, s: s, c: c, p: p, verify: testVerifier, query: url.Values{
		"response_type": {"code"}, "state": {"state-1234567890"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}}
	switch p {
	case idp.Claude:
		x.page, x.token = "https://claude.com/cai/oauth/authorize", "https://platform.claude.com/v1/oauth/token"
		x.query.Set("client_id", "9d1c250a-e61b-44d9-88ed-5944d1962f5e")
		x.query.Set("redirect_uri", "http://localhost:34567/callback")
		x.query.Set("scope", "user:profile user:inference")
	case idp.Codex:
		x.page, x.token, x.form = "https://auth.openai.com/oauth/authorize", "https://auth.openai.com/oauth/token", true
		x.query.Set("client_id", "app_EMoamEEZ73f0CkXaXp7hrann")
		x.query.Set("redirect_uri", "http://127.0.0.1:1455/auth/callback")
		x.query.Set("scope", "openid profile email offline_access")
	case idp.Gemini:
		x.page, x.token, x.form, x.verify = "https://accounts.google.com/o/oauth2/v2/auth", "https://oauth2.googleapis.com/token", true, ""
		x.query.Set("client_id", "681255809395-test")
		x.query.Set("redirect_uri", "http://127.0.0.1:4567/oauth2callback")
		x.query.Set("scope", "https://www.googleapis.com/auth/cloud-platform")
		x.query.Del("code_challenge")
		x.query.Del("code_challenge_method")
	}
	return x
}

// send sends a request and returns the status, the answer and where it leads.
func (x *tool) send(method, to, kind, body string, header ...string) (status int, text, location string) {
	x.t.Helper()
	req, err := http.NewRequestWithContext(x.t.Context(), method, to, strings.NewReader(body))
	if err != nil {
		x.t.Fatal(err)
	}
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := x.c.Do(req)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header.Get("Location")
}

// submit sends the sign-in form and returns what the loopback address gets.
func (x *tool) submit(email, password string) (status int, callback url.Values) {
	x.t.Helper()
	form := url.Values{"email": {email}, "password": {password}}.Encode()
	status, _, to := x.send("POST", x.page+"?"+x.query.Encode(), "application/x-www-form-urlencoded", form)
	if to == "" {
		return status, nil
	}
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, x.query.Get("redirect_uri")+"?") {
		x.t.Fatalf("the form leads to %q", to)
	}
	return status, u.Query()
}

// code signs in and returns the code.
func (x *tool) code() string {
	x.t.Helper()
	status, back := x.submit(testEmail, idp.DefaultPassword)
	if status != http.StatusFound || back.Get("state") != x.query.Get("state") || back.Get("code") == "" {
		x.t.Fatalf("%d, %v", status, back)
	}
	return back.Get("code")
}

// ask sends a token request, with some fields changed.
func (x *tool) ask(fields, change map[string]string) (status int, answer map[string]any) {
	x.t.Helper()
	fields = maps.Clone(fields)
	maps.Copy(fields, change)
	var text string
	if x.form && fields["grant_type"] == "authorization_code" || x.p == idp.Gemini {
		q := make(url.Values)
		for k, v := range fields {
			q.Set(k, v)
		}
		status, text, _ = x.send("POST", x.token, "application/x-www-form-urlencoded", q.Encode())
	} else {
		raw, err := json.Marshal(fields)
		if err != nil {
			x.t.Fatal(err)
		}
		status, text, _ = x.send("POST", x.token, "application/json", string(raw))
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		x.t.Fatalf("%d %q: %v", status, text, err)
	}
	return status, answer
}

func (x *tool) redeem(code string, change map[string]string) (int, map[string]any) {
	x.t.Helper()
	fields := map[string]string{
		"grant_type": "authorization_code", "code": code, "redirect_uri": x.query.Get("redirect_uri"), "client_id": x.query.Get("client_id"),
	}
	switch x.p {
	case idp.Claude:
		fields["state"], fields["code_verifier"] = x.query.Get("state"), x.verify
	case idp.Codex:
		fields["code_verifier"] = x.verify
	case idp.Gemini:
		fields["client_secret"] = "not checked"
	}
	return x.ask(fields, change)
}

func (x *tool) refresh(token string) (int, map[string]any) {
	x.t.Helper()
	return x.ask(map[string]string{
		"grant_type": "refresh_token", "refresh_token": token, "client_id": x.query.Get("client_id"), "client_secret": "not checked",
	}, nil)
}

// signIn does all of it and returns the tokens.
func (x *tool) signIn() (access, refresh string) {
	x.t.Helper()
	status, answer := x.redeem(x.code(), nil)
	if status != http.StatusOK {
		x.t.Fatalf("%d %v", status, answer)
	}
	return answer["access_token"].(string), answer["refresh_token"].(string)
}

// prompt asks the provider's API something.
func (x *tool) prompt(access string) (status int, text string) {
	x.t.Helper()
	to, body := "https://api.anthropic.com/v1/messages", `{"model":"m","stream":true}`
	switch x.p {
	case idp.Codex:
		to, body = "https://chatgpt.com/backend-api/codex/responses", `{"model":"m"}`
	case idp.Gemini:
		to, body = "https://cloudcode-pa.googleapis.com/v1internal:streamGenerateContent?alt=sse", `{}`
	}
	status, text, _ = x.send("POST", to, "application/json", body, "Authorization", "Bearer "+access)
	return status, text
}

// works fails the test unless the token opens the API, or does not.
func (x *tool) works(access string, want bool) {
	x.t.Helper()
	status, text := x.prompt(access)
	if got := status == http.StatusOK && strings.Contains(text, x.p.Answer()); got != want || !want && status != http.StatusUnauthorized {
		x.t.Errorf("%s: the API answers %d %q; it should work: %v", x.p, status, text, want)
	}
}

// each runs a test for every provider.
func each(t *testing.T, test func(t *testing.T, x *tool)) {
	for _, p := range idp.Providers() {
		t.Run(string(p), func(t *testing.T) {
			s, c := start(t, idp.Config{})
			test(t, newTool(t, s, c, p))
		})
	}
}

func (x *tool) events(kinds ...idp.EventKind) {
	x.t.Helper()
	var got []idp.EventKind
	for _, e := range x.s.Events() {
		got = append(got, e.Kind)
		if e.Provider != x.p {
			x.t.Errorf("an event of %q: %+v", e.Provider, e)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(kinds) {
		x.t.Errorf("events %v, want %v", got, kinds)
	}
}
