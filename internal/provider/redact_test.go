package provider

import (
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	token := "sk-ant-oat01-AbCdEf123456_-AbCdEf123456"
	for _, tc := range []struct{ name, line, secret, keeps string }{
		{"authorize address", "visit https://claude.com/cai/oauth/authorize?code=true&client_id=9d1c250a-e61b-44d9-88ed-5944d1962f5e&code_challenge=yVIBDWJf&state=pyfB_Zz2", "pyfB_Zz2", "https://claude.com/cai/oauth/authorize"},
		{"its challenge", "https://claude.com/x?code_challenge=yVIBDWJf&scope=a", "yVIBDWJf", "&scope=a"},
		{"its client", "https://x.example/?client_id=9d1c250a-e61b-44d9-88ed-5944d1962f5e&state=q1", "q1", "9d1c250a-e61b-44d9-88ed-5944d1962f5e"},
		{"callback", "GET /auth/callback?code=ac_1&state=s3cr HTTP/1.1", "s3cr", "HTTP/1.1"},
		{"its code", "GET /auth/callback?code=ac_1&state=s3cr HTTP/1.1", "ac_1", "/auth/callback"},
		{"success page", "http://localhost:1455/success?id_token=abc.def&needs_setup=false", "abc.def", "needs_setup=false"},
		{"encoded in another", "https://x.example/?next=https%3A%2F%2Fy%2F%3Fcode%3Dhush%26z%3D1", "hush", "z%3D1"},
		{"value with encoded bytes", "https://x.example/?state=ab%2Bcd%3D&x=1", "cd%3D", "&x=1"},
		{"fragment", "https://x.example/#access_token=hush&x=1", "hush", "x=1"},
		{"form", "code=hush&grant_type=authorization_code", "hush", "grant_type=authorization_code"},
		{"user info", "proxy http://ann:hush@proxy.example:3128 failed", "hush", "proxy.example:3128 failed"},
		{"JSON", `{"access_token":"hush","token_type":"Bearer"}`, "hush", `"token_type":"Bearer"`},
		{"escaped JSON", `body: "{\"refresh_token\":\"hush\",\"x\":1}"`, "hush", `\"x\":1`},
		{"camel case", `{"refreshToken": "hush", "scopes": ["a"]}`, "hush", "scopes"},
		{"header", "Authorization: Bearer abcdefghijklmnop", "abcdefghijklmnop", "Authorization"},
		{"JWT", "got " + jwt(`{"a":1}`) + " back", jwt(`{"a":1}`), "back"},
		{"vendor prefix", "key " + token + " ok", token, "ok"},
		{"Google", "ya29.a0AfB_byCdefghijk and 1//0gABCDEFGHIJKLMNOPQRSTUV", "0gABCDEFGHIJKLMNOPQRSTUV", "and"},
		{"code and state to paste", "paste abcdefghijklmnop1#qrstuvwxyzabcdef now", "qrstuvwxyzabcdef", "now"},
		{"long word", "x 0123456789abcdef0123456789abcdef y", "0123456789abcdef0123456789abcdef", "y"},
		{"long word without digits", "x AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjKlMnOp y", "AbCdEf", "x "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Redact(tc.line)
			if strings.Contains(got, tc.secret) {
				t.Errorf("the secret is still there: %s", got)
			}
			if !strings.Contains(got, tc.keeps) || !strings.Contains(got, redacted) {
				t.Errorf("not readable any more: %s", got)
			}
		})
	}
	for _, plain := range []string{
		"Opening browser to sign in…", "Login successful.", "Paste code here if prompted > ",
		"Starting local login server on http://localhost:1455.", "Error: code EACCES in state running",
		"/home/person/.npm/lib/node_modules/@google/gemini-cli/bundle/gemini.js:1:2", "basic configuration",
		"request 9d1c250a-e61b-44d9-88ed-5944d1962f5e failed", "user@example.com", "the-quick-brown-fox-jumps-over-the-lazy-dog",
	} {
		if got := Redact(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("https://a:b@c/?code=%26&state=x#id_token=y")
	f.Add(`{"token":"`)
	f.Fuzz(func(t *testing.T, line string) {
		const secret = "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2lnbmF0dXJl"
		if got := Redact(line + " " + secret + " "); strings.Contains(got, secret) {
			t.Fatalf("kept: %s", got)
		}
	})
}
