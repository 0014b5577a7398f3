package provider

import (
	"strings"
	"testing"
)

// anyTool knows of no secrets of its vendor's.
var anyTool = (&File{}).Redactor()

func TestRedact(t *testing.T) {
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
		{"by the end of its name", `{"primaryApiKey":"hush","OPENAI_API_KEY":null}`, "hush", `"OPENAI_API_KEY":null`},
		{"in the environment", "OPENAI_API_KEY=hush DEBUG=1", "hush", "DEBUG=1"},
		{"code and state to paste", "paste abcdefghijklmnop1#qrstuvwxyzabcdef now", "qrstuvwxyzabcdef", "now"},
		{"long word", "x 0123456789abcdef0123456789abcdef y", "0123456789abcdef0123456789abcdef", "y"},
		{"long word without digits", "x AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGhIjKlMnOp y", "AbCdEf", "x "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := anyTool(tc.line)
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
		if got := anyTool(plain); got != plain {
			t.Errorf("%q became %q", plain, got)
		}
	}
}

// What a vendor's secrets look like is in its provider file only.
func TestRedactAsTheFileSays(t *testing.T) {
	s, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, secrets := range map[string][]string{
		"claude": {"sk-ant-oat01-AbCdEf12"},
		"codex":  {"rt_AbCdEf123456", "ac_AbCdEf123456", "sk-proj-AbCdEf12"},
		"gemini": {"ya29.a0AfB_byCd", "4/0AbCdEf123456AbCdEf12", "1//0gABCDEFGHIJKLMNOPQR", "GOCSPX-AbCdEf12"},
	} {
		f, err := s.Get(name)
		if err != nil {
			t.Fatal(err)
		}
		redact := f.Redactor()
		for _, secret := range secrets {
			line := "got " + secret + " back"
			if got := redact(line); got != "got "+redacted+" back" {
				t.Errorf("%s: %q", name, got)
			}
			if got := anyTool(line); got != line {
				t.Errorf("%s is not in its provider file alone: %q", name, got)
			}
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("https://a:b@c/?code=%26&state=x#id_token=y")
	f.Add(`{"token":"`)
	f.Fuzz(func(t *testing.T, line string) {
		const secret = "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.c2lnbmF0dXJl"
		if got := anyTool(line + " " + secret + " "); strings.Contains(got, secret) {
			t.Fatalf("kept: %s", got)
		}
	})
}
