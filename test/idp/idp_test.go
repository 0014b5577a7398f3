package idp_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

func TestSignInAndUse(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		status, page, _ := x.send("GET", x.page+"?"+x.query.Encode(), "", "")
		r, g, b := x.p.Band()
		for _, want := range []string{
			"<title>Test sign-in: " + string(x.p) + "</title>", "autofocus", `type="password"`, `type="submit"`,
			fmt.Sprintf("#%02x%02x%02x", r, g, b), "你好", "مرحبا", "🔑",
		} {
			if status != 200 || !strings.Contains(page, want) {
				t.Errorf("%d: the page lacks %q", status, want)
			}
		}
		access, refresh := x.signIn()
		x.works(access, true)
		x.works(refresh, false)
		x.works("nonsense", false)
		x.events(idp.PageServed, idp.SignedIn, idp.TokensIssued, idp.PromptAnswered, idp.APIRefused, idp.APIRefused)
		for _, tok := range []string{access, refresh} {
			if !slices.Contains(x.s.IssuedTokens(), tok) {
				t.Error("a token is not among those that were issued")
			}
		}
	})
}

func TestSignInIsRefused(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		for _, tc := range [][2]string{{testEmail, "wrong"}, {testEmail, ""}, {"no-at-sign", idp.DefaultPassword}, {"@x", idp.DefaultPassword}, {"", idp.DefaultPassword}} {
			if status, back := x.submit(tc[0], tc[1]); status != http.StatusUnauthorized || back != nil {
				t.Errorf("%v: %d %v", tc, status, back)
			}
		}
		if _, err := idp.SignIn(t.Context(), x.c, x.page+"?"+x.query.Encode(), testEmail, "wrong"); !errors.Is(err, idp.ErrSignIn) {
			t.Errorf("SignIn: %v", err)
		}
	})
}

func TestAuthorizeChecksItsParameters(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		good := x.query.Get("redirect_uri")
		path := good[strings.LastIndex(good, "567")+3:]
		if x.p == idp.Codex {
			path = "/auth/callback"
		}
		changes := map[string]url.Values{
			"another client": {"client_id": {"evil"}}, "no client": {"client_id": {""}},
			"a token flow": {"response_type": {"token"}}, "no state": {"state": {""}}, "a short state": {"state": {"1234567"}},
			"two states": {"state": {"12345678", "23456789"}}, "no scope": {"scope": {""}},
			"no redirect": {"redirect_uri": {""}}, "redirect elsewhere": {"redirect_uri": {"http://evil.example:80" + path}},
			"redirect by https": {"redirect_uri": {"https://localhost:80" + path}}, "redirect without a port": {"redirect_uri": {"http://localhost" + path}},
			"redirect to another path": {"redirect_uri": {"http://localhost:80/other"}}, "redirect with a query": {"redirect_uri": {good + "?a=b"}},
			"redirect with a user": {"redirect_uri": {"http://localhost@evil.example:80" + path}}, "redirect to a lookalike": {"redirect_uri": {"http://localhost.evil.example:80" + path}},
			"redirect in the LAN": {"redirect_uri": {"http://192.168.0.1:80" + path}},
			"a plain challenge":   {"code_challenge": {strings.Repeat("a", 43)}, "code_challenge_method": {"plain"}},
		}
		if x.p != idp.Gemini {
			changes["no challenge"] = url.Values{"code_challenge": {""}}
			changes["a short challenge"] = url.Values{"code_challenge": {"abc"}}
		}
		for name, change := range changes {
			q := url.Values{}
			for k, v := range x.query {
				q[k] = v
			}
			for k, v := range change {
				q[k] = v
			}
			for _, method := range []string{"GET", "POST"} {
				status, _, to := x.send(method, x.page+"?"+q.Encode(), "application/x-www-form-urlencoded", "email=a%40b&password="+idp.DefaultPassword)
				if status != http.StatusBadRequest || to != "" {
					t.Errorf("%s, %s: %d to %q", name, method, status, to)
				}
			}
		}
		x.query.Set("redirect_uri", "http://[::1]:80"+path)
		x.code()
	})
}

func TestCodeIsGoodOnce(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		code := x.code()
		_, answer := x.redeem(code, nil)
		access, refresh := answer["access_token"].(string), answer["refresh_token"].(string)
		if status, answer := x.redeem(code, nil); status != http.StatusBadRequest {
			t.Errorf("%d %v", status, answer)
		}
		x.works(access, false) // whoever stole the code has nothing either
		if status, _ := x.refresh(refresh); status == http.StatusOK {
			t.Error("the refresh token of a stolen code works")
		}
	})
}

func TestRedeemChecks(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		for field, value := range map[string]string{
			"code": "nonsense", "client_id": "evil", "redirect_uri": "http://localhost:1/callback", "code_verifier": strings.Repeat("b", 50), "grant_type": "password",
		} {
			if status, answer := x.redeem(x.code(), map[string]string{field: value}); status != http.StatusBadRequest || answer["access_token"] != nil {
				t.Errorf("another %s: %d %v", field, status, answer)
			}
		}
		switch x.p {
		case idp.Claude:
			if status, _ := x.redeem(x.code(), map[string]string{"state": "another-state"}); status != http.StatusBadRequest {
				t.Errorf("another state: %d", status)
			}
		case idp.Gemini:
			if status, _ := x.redeem(x.code(), map[string]string{"client_secret": ""}); status != http.StatusBadRequest {
				t.Errorf("no client secret: %d", status)
			}
		}
		// A wrong try uses the code up.
		code := x.code()
		x.redeem(code, map[string]string{"redirect_uri": "http://localhost:1/x"})
		if status, _ := x.redeem(code, nil); status != http.StatusBadRequest {
			t.Errorf("a code after a wrong try: %d", status)
		}
		// A code of one provider is nothing to another.
		for _, p := range idp.Providers() {
			if p != x.p {
				if status, _ := newTool(t, x.s, x.c, p).redeem(x.code(), nil); status == http.StatusOK {
					t.Errorf("%s takes a code of %s", p, x.p)
				}
			}
		}
	})
}

func TestRefresh(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		access, refresh := x.signIn()
		x.s.ExpireAccess(x.p)
		x.works(access, false)
		status, answer := x.refresh(refresh)
		if status != http.StatusOK {
			t.Fatalf("%d %v", status, answer)
		}
		access = answer["access_token"].(string)
		x.works(access, true)

		if x.p == idp.Gemini { // does not rotate: copies coexist
			if answer["refresh_token"] != nil || answer["id_token"] != nil {
				t.Errorf("%v", answer)
			}
			if status, _ := x.refresh(refresh); status != http.StatusOK {
				t.Errorf("%d", status)
			}
			return
		}
		next := answer["refresh_token"].(string)
		if next == refresh {
			t.Error("the refresh token did not change")
		}
		status, answer = x.refresh(refresh) // the older copy comes back
		want := `400 {"error":"invalid_grant"`
		if x.p == idp.Codex {
			want = `401 {"error":{"code":"refresh_token_reused"`
		}
		raw, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%d %s", status, raw); !strings.HasPrefix(got, want) {
			t.Errorf("%s, want %s", got, want)
		}
		x.works(access, false)
		if status, _ := x.refresh(next); status == http.StatusOK {
			t.Error("the family is alive")
		}
		if !slices.ContainsFunc(x.s.Events(), idp.Of(x.p, idp.RefreshReused)) {
			t.Error("no event")
		}
	})
}

func TestRevoke(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		to := map[idp.Provider]string{
			idp.Claude: "https://platform.claude.com/v1/oauth/token/revoke", idp.Codex: "https://auth.openai.com/oauth/revoke", idp.Gemini: "https://oauth2.googleapis.com/revoke",
		}[x.p]
		access, refresh := x.signIn()
		if status, _, _ := x.send("POST", to, "application/json", `{"token":"nonsense"}`); status != http.StatusOK {
			t.Errorf("%d", status)
		}
		x.works(access, true)
		if status, _, _ := x.send("POST", to, "application/json", `{"token":"`+refresh+`"}`); status != http.StatusOK {
			t.Errorf("%d", status)
		}
		x.works(access, false)
	})
}

func TestProfiles(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		access, _ := x.signIn()
		for to, want := range map[idp.Provider]map[string]string{
			idp.Claude: {
				"GET https://api.anthropic.com/api/oauth/profile":          `"email":"` + testEmail,
				"GET https://api.anthropic.com/api/oauth/claude_cli/roles": `"organization_role"`,
				"POST https://api.anthropic.com/v1/messages/count_tokens":  `"input_tokens"`,
			},
			idp.Codex: {
				"GET https://chatgpt.com/backend-api/wham/accounts/check": `"workspace_backend_origin":"https://chatgpt.com"`,
				"GET https://chatgpt.com/backend-api/codex/models":        `"models"`,
			},
			idp.Gemini: {
				"GET https://www.googleapis.com/oauth2/v2/userinfo":                       `"email":"` + testEmail,
				"POST https://cloudcode-pa.googleapis.com/v1internal:loadCodeAssist":      `"currentTier"`,
				"POST https://cloudcode-pa.googleapis.com/v1internal:onboardUser":         `"done":true`,
				"POST https://cloudcode-pa.googleapis.com/v1internal:retrieveUserQuota":   `"buckets"`,
				"POST https://cloudcode-pa.googleapis.com/v1internal:countTokens":         `"totalTokens"`,
				"POST https://cloudcode-pa.googleapis.com/v1internal:listExperiments":     `"flags"`,
				"POST https://cloudcode-pa.googleapis.com/v1internal:generateContent":     idp.Gemini.Answer(),
				"POST https://oauth2.googleapis.com/tokeninfo?access_token=" + access:     `"email":"` + testEmail,
				"GET https://oauth2.googleapis.com/tokeninfo?access_token=" + access + "": `"scope"`,
			},
		}[x.p] {
			method, to, _ := strings.Cut(to, " ")
			status, text, _ := x.send(method, to, "application/json", "{}", "Authorization", "Bearer "+access)
			if status != 200 || !strings.Contains(text, want) {
				t.Errorf("%s: %d %s", to, status, text)
			}
			to, _, _ = strings.Cut(to, "?")
			if status, _, _ := x.send(method, to, "application/json", "{}"); status != 401 && status != 400 {
				t.Errorf("%s without a token: %d", to, status)
			}
		}
	})
}

func TestCodexClaims(t *testing.T) {
	s, c := start(t, idp.Config{})
	x := newTool(t, s, c, idp.Codex)
	_, answer := x.redeem(x.code(), nil)
	for _, name := range []string{"id_token", "access_token"} {
		parts := strings.Split(answer[name].(string), ".")
		if len(parts) != 3 {
			t.Fatalf("%s is no JWT", name)
		}
		raw, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err != nil {
			t.Fatal(err)
		}
		var claims struct {
			Exp   int64  `json:"exp"`
			Email string `json:"email"`
			Auth  struct {
				Account string `json:"chatgpt_account_id"`
				Plan    string `json:"chatgpt_plan_type"`
			} `json:"https://api.openai.com/auth"`
		}
		if err := json.Unmarshal(raw, &claims); err != nil || claims.Exp <= time.Now().Unix() || claims.Email != testEmail || claims.Auth.Account == "" || claims.Auth.Plan == "" {
			t.Errorf("%s: %s, %v", name, raw, err)
		}
	}
	if status, _ := x.ask(map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": "x"}, nil); status != 400 {
		t.Errorf("the token exchange: %d", status)
	}
}

func TestDeviceFlow(t *testing.T) {
	s, c := start(t, idp.Config{})
	x := newTool(t, s, c, idp.Codex)
	const api = "https://auth.openai.com/api/accounts/deviceauth/"
	if status, _, _ := x.send("POST", api+"usercode", "application/json", `{"client_id":"evil"}`); status != 400 {
		t.Errorf("another client: %d", status)
	}
	_, text, _ := x.send("POST", api+"usercode", "application/json", `{"client_id":"`+x.query.Get("client_id")+`"}`)
	var d struct {
		ID      string `json:"device_auth_id"`
		Code    string `json:"user_code"`
		Expires string `json:"expires_at"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil || d.ID == "" || d.Code == "" {
		t.Fatalf("%s, %v", text, err)
	}
	poll := func() (int, string) {
		t.Helper()
		status, text, _ := x.send("POST", api+"token", "application/json", fmt.Sprintf(`{"device_auth_id":%q,"user_code":%q}`, d.ID, d.Code))
		return status, text
	}
	if status, _ := poll(); status != http.StatusForbidden {
		t.Errorf("before the sign-in: %d", status)
	}
	signIn := func(code string) int {
		t.Helper()
		form := url.Values{"user_code": {code}, "email": {testEmail}, "password": {idp.DefaultPassword}}.Encode()
		status, _, _ := x.send("POST", "https://auth.openai.com/codex/device", "application/x-www-form-urlencoded", form)
		return status
	}
	if status, page, _ := x.send("GET", "https://auth.openai.com/codex/device", "", ""); status != 200 || !strings.Contains(page, `name="user_code"`) {
		t.Errorf("the page: %d", status)
	}
	if status := signIn("XXXX-XXXX"); status != http.StatusUnauthorized {
		t.Errorf("a wrong code: %d", status)
	}
	if status := signIn(strings.ToLower(d.Code)); status != http.StatusOK {
		t.Fatalf("%d", status)
	}
	if status := signIn(d.Code); status != http.StatusUnauthorized {
		t.Errorf("a used code: %d", status)
	}
	status, text := poll()
	var got struct {
		Code     string `json:"authorization_code"`
		Verifier string `json:"code_verifier"`
	}
	if err := json.Unmarshal([]byte(text), &got); status != 200 || err != nil {
		t.Fatalf("%d %s %v", status, text, err)
	}
	if status, _ := poll(); status != http.StatusNotFound {
		t.Errorf("the second answer: %d", status)
	}
	status, answer := x.redeem(got.Code, map[string]string{"code_verifier": got.Verifier, "redirect_uri": "https://auth.openai.com/deviceauth/callback"})
	if status != 200 {
		t.Fatalf("%d %v", status, answer)
	}
	x.works(answer["access_token"].(string), true)
}

func TestPasteFlow(t *testing.T) {
	for p, manual := range map[idp.Provider]string{idp.Claude: "https://platform.claude.com/oauth/code/callback", idp.Gemini: "https://codeassist.google.com/authcode"} {
		s, c := start(t, idp.Config{})
		x := newTool(t, s, c, p)
		x.query.Set("redirect_uri", manual)
		if p == idp.Gemini { // this flow of gemini's has PKCE
			q := newTool(t, s, c, idp.Claude).query
			x.query.Set("code_challenge", q.Get("code_challenge"))
			x.query.Set("code_challenge_method", "S256")
		}
		form := url.Values{"email": {testEmail}, "password": {idp.DefaultPassword}}.Encode()
		_, page, _ := x.send("POST", x.page+"?"+x.query.Encode(), "application/x-www-form-urlencoded", form)
		_, rest, ok := strings.Cut(page, `id="code">`)
		shown, _, _ := strings.Cut(rest, "<")
		code, state, _ := strings.Cut(shown, "#")
		if !ok || p == idp.Claude && state != x.query.Get("state") {
			t.Fatalf("%s shows %q", p, shown)
		}
		if status, answer := x.redeem(code, map[string]string{"code_verifier": testVerifier}); status != 200 {
			t.Errorf("%s: %d %v", p, status, answer)
		}
	}
}
