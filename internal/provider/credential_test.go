package provider

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func embeddedFile(t testing.TB, name string) *File {
	t.Helper()
	s, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func jwt(claims string) string {
	e := base64.RawURLEncoding.EncodeToString
	return e([]byte(`{"alg":"none"}`)) + "." + e([]byte(claims)) + ".c2ln"
}

const claudeFile = `{"claudeAiOauth":{"accessToken":"a","refreshToken":"r","expiresAt":1800000000000,"refreshTokenExpiresAt":1900000000000,"scopes":["user:inference"],"subscriptionType":null}}`

func codexFile(exp int64, refreshed string) string {
	return fmt.Sprintf(`{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{"id_token":%q,"access_token":%q,"refresh_token":"r","account_id":"x"},"last_refresh":%q}`,
		jwt(`{"email":"ann@example.com"}`), jwt(fmt.Sprintf(`{"exp":%d}`, exp)), refreshed)
}

func TestCheckFile(t *testing.T) {
	schema := Credential{
		Name: "creds", NonEmpty: []string{"/a/b", "/l/0"},
		Types: map[string]string{"/a": "object", "/a/b": "string", "/n": "number", "/t~1~0": "boolean"},
	}
	deep := func(n int) string {
		return `{"a":{"b":"x"},"l":[1],"d":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}`
	}
	for _, tc := range []struct{ name, content, fault string }{
		{"good", `{"a":{"b":"x"},"l":[1]}`, ""},
		{"good with more", `{"a":{"b":"x"},"l":[{"c":1}],"n":1,"t/~":true,"z":null}`, ""},
		{"null counts as absent", `{"a":{"b":"x"},"l":[1],"n":null}`, ""},
		{"as deep as allowed", deep(maxDepth - 1), ""},
		{"too deep", deep(maxDepth), "nested"},
		{"far too deep", deep(5000), "nested"},
		{"empty file", ``, "bytes"},
		{"too large", `{"a":{"b":"` + strings.Repeat("x", MaxCredentialBytes) + `"},"l":[1]}`, "bytes"},
		{"not JSON", `{"a":`, "valid JSON"},
		{"two values", `{"a":{"b":"x"},"l":[1]}{}`, "valid JSON"},
		{"not UTF-8", "{\"a\":{\"b\":\"\xff\"},\"l\":[1]}", "UTF-8"},
		{"key twice", `{"a":{"b":"x","b":"y"},"l":[1]}`, "twice"},
		{"key twice, escaped", `{"a":{"b":"x","\u0062":"y"},"l":[1]}`, "twice"},
		{"missing", `{"a":{},"l":[1]}`, "/a/b is missing"},
		{"blank", `{"a":{"b":""},"l":[1]}`, "/a/b is missing"},
		{"zero", `{"a":{"b":"x"},"l":[0]}`, "/l/0 is missing"},
		{"not in the array", `{"a":{"b":"x"},"l":[]}`, "/l/0 is missing"},
		{"wrong type", `{"a":{"b":"x"},"l":[1],"n":"1"}`, "/n must be"},
		{"wrong type, escaped name", `{"a":{"b":"x"},"l":[1],"t/~":"yes"}`, "must be"},
		{"a number for a text", `{"a":{"b":7},"l":[1]}`, "/a/b must be"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := CheckFile(schema, []byte(tc.content))
			if tc.fault == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			if !errors.Is(err, ErrCredential) || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("got %v", err)
			}
		})
	}
	opaque := Credential{Name: "db", Format: "opaque"}
	if err := CheckFile(opaque, []byte{0, 0xff}); err != nil {
		t.Errorf("opaque: %v", err)
	}
	if err := CheckFile(opaque, make([]byte, MaxCredentialBytes+1)); !errors.Is(err, ErrCredential) {
		t.Errorf("large opaque: %v", err)
	}
}

// Errors reach logs: they must not hold what is in the file.
func TestCheckFileErrorsHoldNoContent(t *testing.T) {
	const secret = "topsecretvalue"
	c := Credential{Name: "creds", NonEmpty: []string{"/a"}, Types: map[string]string{"/b": "number"}}
	for _, content := range []string{secret, `{"a":` + secret, `{"a":1,"b":"` + secret + `"}`, `{"` + secret + `":1}`, `{"` + secret + `":1,"` + secret + `":1}`} {
		if err := CheckFile(c, []byte(content)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%v", err)
		}
	}
}

func TestRealShapes(t *testing.T) {
	for _, tc := range []struct {
		provider, account string
		files             Content
		more              map[string]string
		expires           time.Time
	}{
		{"claude", "ann@example.com", Content{"credentials.json": []byte(claudeFile)},
			map[string]string{".claude.json": `{"oauthAccount":{"emailAddress":"ann@example.com"}}`}, time.UnixMilli(1900000000000)},
		{"codex", "ann@example.com", Content{"auth.json": []byte(codexFile(1800000000, "2026-01-02T03:04:05.678Z"))}, nil, time.Unix(1800000000, 0)},
		{"gemini", "ann@example.com", Content{
			"oauth_creds.json":     []byte(`{"access_token":"a","refresh_token":"r","scope":"s","token_type":"Bearer","id_token":"i","expiry_date":1800000000000}`),
			"google_accounts.json": []byte(`{"active":"ann@example.com","old":[]}`),
		}, nil, time.UnixMilli(1800000000000)},
	} {
		t.Run(tc.provider, func(t *testing.T) {
			f := embeddedFile(t, tc.provider)
			if err := f.Check(tc.files); err != nil {
				t.Fatal(err)
			}
			if got := f.Expires(tc.files); !got.Equal(tc.expires) {
				t.Errorf("expires %v, want %v", got, tc.expires)
			}
			label, err := ReadLabel(f.Account, func(path string) ([]byte, error) {
				if c, ok := tc.more[path]; ok {
					return []byte(c), nil
				}
				return f.reader(tc.files)(path)
			})
			if err != nil || label != tc.account {
				t.Errorf("account %q, %v", label, err)
			}
		})
	}
	f := embeddedFile(t, "claude")
	// What claude leaves behind when its refresh token was used elsewhere.
	blank := `{"claudeAiOauth":{"accessToken":"","refreshToken":"","expiresAt":0,"scopes":["user:inference"]}}`
	if err := f.Check(Content{"credentials.json": []byte(blank)}); !errors.Is(err, ErrCredential) {
		t.Errorf("blanked file: %v", err)
	}
	noEnd := strings.Replace(claudeFile, `"refreshTokenExpiresAt":1900000000000`, `"refreshTokenExpiresAt":null`, 1)
	if got := f.Expires(Content{"credentials.json": []byte(noEnd)}); !got.Equal(time.UnixMilli(1800000000000)) {
		t.Errorf("without the refresh token's end: %v", got)
	}
	if err := f.Check(Content{"credentials.json": []byte(claudeFile), "other": []byte("{}")}); !errors.Is(err, ErrCredential) {
		t.Errorf("a file that nobody named: %v", err)
	}
	if err := f.Check(nil); !errors.Is(err, ErrCredential) {
		t.Errorf("nothing: %v", err)
	}
}

func TestValues(t *testing.T) {
	files := map[string]string{
		"v.json": `{"s":1700000000,"ms":1700000000000,"big":1e300,"old":1,"neg":-5,"text":"hello","iso":"2026-01-02T03:04:05Z","bad":"soon",
			"empty":"","ctl":"a\u001bb","long":"` + strings.Repeat("x", 300) + `","jwt":"` + jwt(`{"exp":1700000000,"email":"a@b.c","o":{"x":1}}`) + `","nojwt":"a.b","half":"a.!.c","deepjwt":"` + jwt(strings.Repeat("[", 99)+strings.Repeat("]", 99)) + `"}`,
	}
	read := func(path string) ([]byte, error) {
		if c, ok := files[path]; ok {
			return []byte(c), nil
		}
		return nil, os.ErrNotExist
	}
	at := time.Unix(1700000000, 0)
	for _, tc := range []struct {
		v    Value
		want time.Time
	}{
		{Value{Pointer: "/s", Unit: "s"}, at},
		{Value{Pointer: "/ms", Unit: "ms"}, at},
		{Value{Pointer: "/iso", Unit: "rfc3339"}, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{Value{Pointer: "/jwt", JWT: "exp", Unit: "s"}, at},
		{Value{Pointer: "/none", Unit: "s", Or: &Value{Path: "v.json", Pointer: "/s", Unit: "s"}}, at},
		{Value{Pointer: "/bad", Unit: "s", Or: &Value{Path: "v.json", Pointer: "/ms", Unit: "ms"}}, at},
		{Value{Pointer: "/ms", Unit: "s"}, time.Time{}}, // the year 55840
		{Value{Pointer: "/big", Unit: "ms"}, time.Time{}},
		{Value{Pointer: "/old", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/neg", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/bad", Unit: "rfc3339"}, time.Time{}},
		{Value{Pointer: "/text", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/jwt", JWT: "iat", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/nojwt", JWT: "exp", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/half", JWT: "exp", Unit: "s"}, time.Time{}},
		{Value{Pointer: "/deepjwt", JWT: "exp", Unit: "s"}, time.Time{}},
		{Value{Path: "gone.json", Pointer: "/s", Unit: "s"}, time.Time{}},
	} {
		if tc.v.Path == "" {
			tc.v.Path = "v.json"
		}
		got, err := ReadTime(&tc.v, read)
		if !got.Equal(tc.want) || (err == nil) == tc.want.IsZero() || err != nil && !errors.Is(err, ErrNoValue) {
			t.Errorf("%+v: %v, %v", tc.v, got, err)
		}
	}
	for pointer, want := range map[string]string{"/text": "hello", "/empty": "", "/ctl": "", "/long": "", "/s": "", "/none": ""} {
		got, err := ReadLabel(&Value{Path: "v.json", Pointer: pointer}, read)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", pointer, got, err)
		}
	}
	if _, err := ReadLabel(nil, read); !errors.Is(err, ErrNoValue) {
		t.Errorf("no value: %v", err)
	}
	if got, err := ReadLabel(&Value{Path: "v.json", Pointer: "/jwt", JWT: "email"}, read); got != "a@b.c" {
		t.Errorf("claim: %q, %v", got, err)
	}
}

func TestFresher(t *testing.T) {
	f := embeddedFile(t, "codex")
	set := func(refreshed string) Content { return Content{"auth.json": []byte(codexFile(1800000000, refreshed))} }
	for _, tc := range []struct {
		name      string
		old, next Content
		want      bool
	}{
		{"later", set("2026-01-01T00:00:00Z"), set("2026-01-01T00:00:00.1Z"), true},
		{"the same", set("2026-01-01T00:00:00Z"), set("2026-01-01T00:00:00Z"), false},
		{"earlier", set("2026-01-02T00:00:00Z"), set("2026-01-01T00:00:00Z"), false},
		{"earlier by the clock, later by the zone", set("2026-01-01T23:00:00+02:00"), set("2026-01-01T22:00:00Z"), true},
		{"instead of a broken one", Content{"auth.json": []byte("{}")}, set("2026-01-01T00:00:00Z"), true},
		{"instead of none", nil, set("2026-01-01T00:00:00Z"), true},
		{"a broken one", set("2026-01-01T00:00:00Z"), Content{"auth.json": []byte("{}")}, false},
		{"none", set("2026-01-01T00:00:00Z"), nil, false},
	} {
		if got := Fresher(f, tc.old, tc.next); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

func FuzzCheckFile(f *testing.F) {
	f.Add([]byte(claudeFile))
	f.Add([]byte(codexFile(1800000000, "2026-01-02T03:04:05Z")))
	f.Add([]byte(`{"access_token":"a","refresh_token":"r","expiry_date":1.8e12}`))
	f.Add([]byte(`{"a":[{"b":[[]]}],"a":1}`))
	set, err := Load("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		for _, p := range set.All() {
			for i := range p.Files {
				c := &p.Files[i]
				err := CheckFile(*c, content)
				if err != nil && !errors.Is(err, ErrCredential) {
					t.Fatalf("wrong kind of error: %v", err)
				}
				if err == nil && (!json.Valid(content) || len(content) > MaxCredentialBytes) {
					t.Fatal("accepted what is not JSON, or too large")
				}
			}
			read := func(string) ([]byte, error) { return content, nil }
			if s, err := ReadLabel(p.Account, read); err == nil && (len(s) > maxLabel || !printable(s)) {
				t.Fatalf("label %q", s)
			}
			if at, err := ReadTime(p.Expiry, read); err == nil && (at.Before(firstTime) || at.After(lastTime)) {
				t.Fatalf("time %v", at)
			}
		}
	})
}
