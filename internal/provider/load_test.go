package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// minimal is a file that keeps every rule; the tests break one each.
const minimal = `name: tool
aliases: [the_tool]
title: Tool
vendor: Example
terms: https://example.com/terms
version: "1.0"
login:
  argv: [tool, login]
  flow: loopback
  timeout: 10m
  exits_on_success: true
url:
  hooks: [xdg-open]
  hosts: [login.example.com]
files:
  - name: creds
    path: .tool/creds.json
    required: true
    secret: true
    non_empty: [/token]
target:
  private_dirs:
    - path: .tool
      keep: [data]
expiry:
  path: .tool/creds.json
  pointer: /expires
  unit: s
hosts:
  - login.example.com
`

func TestEmbeddedFilesAreValid(t *testing.T) {
	s, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"claude": "claude", "claude_code": "claude", "codex": "codex", "gemini": "gemini",
	} {
		f, err := s.Get(name)
		if err != nil || f.Name != want {
			t.Errorf("Get(%q) = %v, %v", name, f, err)
		}
	}
	if _, err := s.Get("nobody"); !errors.Is(err, ErrUnknown) {
		t.Errorf("unknown name: %v", err)
	}
	if n := len(s.All()); n != 3 {
		t.Errorf("%d embedded providers", n)
	}
	if len(s.Replaced()) != 0 {
		t.Errorf("replaced %v", s.Replaced())
	}
}

// Where the tools keep their files is theirs to say: this is what they do.
func TestHomeEnv(t *testing.T) {
	s, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]map[string]string{
		"claude": {"CLAUDE_CONFIG_DIR": "", ".claude/.credentials.json": ".credentials.json", ".claude.json": ".claude.json"},
		"codex":  {"CODEX_HOME": "", ".codex/auth.json": "auth.json"},
		"gemini": {"GEMINI_CLI_HOME": "", ".gemini/oauth_creds.json": ".gemini/oauth_creds.json", ".gemini/settings.json": ".gemini/settings.json"},
	} {
		f, err := s.Get(name)
		if err != nil || f.HomeEnv == nil {
			t.Fatalf("%s: %v", name, err)
		}
		for from, to := range want {
			if to == "" {
				if f.HomeEnv.Name != from {
					t.Errorf("%s: %s", name, f.HomeEnv.Name)
				}
				continue
			}
			if got, ok := f.HomeEnv.Path(from); !ok || got != to {
				t.Errorf("%s: %s is moved to %q, %v", name, from, got, ok)
			}
		}
		if name != "gemini" {
			if got, ok := f.HomeEnv.Path(".bashrc"); ok {
				t.Errorf("%s: .bashrc is moved to %q", name, got)
			}
		}
	}
}

// A file travels to the machine as JSON and must mean the same there.
func TestFileSurvivesJSON(t *testing.T) {
	s, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.All() {
		b, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var back File
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(f, &back) {
			t.Errorf("%s: changed on its way through JSON", f.Name)
		}
		if err := back.Validate(); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

func TestParseRefusals(t *testing.T) {
	for _, tc := range []struct {
		name, old, new string
		line           int
		field, reason  string
	}{
		{"unknown field", "title: Tool", "titel: Tool", 3, "", "unknown field"},
		{"unknown nested field", "  hooks:", "  hook:", 13, "", "unknown field"},
		{"wrong type", "aliases: [the_tool]", "aliases: 7", 2, "", "was used where"},
		{"duplicate key", "vendor: Example", "title: Example", 4, "", "already defined"},
		{"bad name", "name: tool", "name: Tool", 1, "name", "a-z"},
		{"alias twice", "[the_tool]", "[the_tool, the_tool]", 2, "aliases[1]", "twice"},
		{"title missing", "title: Tool", "title: ''", 3, "title", "missing"},
		{"title with a control", "title: Tool", `title: "To\x1bol"`, 3, "title", "cannot be shown"},
		{"title that turns around", "title: Tool", `title: "To\u202eol"`, 3, "title", "cannot be shown"},
		{"terms over http", "https://example.com/terms", "http://example.com", 5, "terms", "https"},
		{"argv with a directory", "[tool, login]", "[/bin/tool]", 8, "login.argv[0]", "without a directory"},
		{"no argv", "[tool, login]", "[]", 8, "login.argv", "1 to"},
		{"flow", "flow: loopback", "flow: magic", 9, "login.flow", "must be"},
		{"paste", "flow: loopback", "flow: paste", 9, "login.flow", "not supported"},
		{"device without a code", "flow: loopback", "flow: device", 13, "url.code_pattern", "needs it"},
		{"timeout", "timeout: 10m", "timeout: soon", 10, "login.timeout", "duration"},
		{"timeout too long", "timeout: 10m", "timeout: 2h", 10, "login.timeout", "between"},
		{"dialogue", "  flow: loopback", "  dialogue: chat\n  flow: loopback", 9, "login.dialogue", "must be"},
		{"script without text", "  flow: loopback", "  dialogue: script\n  flow: loopback", 8, "login.stdin", "must have"},
		{"acp without a method", "  flow: loopback", "  dialogue: acp\n  flow: loopback", 8, "login.acp_method", "missing"},
		{"reserved variable", "  flow: loopback", "  env:\n    LD_PRELOAD: x\n  flow: loopback", 10, "login.env.LD_PRELOAD", "machine itself"},
		{"hook that is a program", "[xdg-open]", "[bash]", 13, "url.hooks[0]", "taken"},
		{"hook with a path", "[xdg-open]", "[../x]", 13, "url.hooks[0]", "taken"},
		{"no way to the address", "  hooks: [xdg-open]", "  hooks: []", 13, "url", "hooks or a pattern"},
		{"pattern broken", "  hooks: [xdg-open]", "  pattern: '(a'", 13, "url.pattern", "regular expression"},
		{"pattern with two groups", "  hooks: [xdg-open]", "  pattern: '(a)(b)'", 13, "url.pattern", "one group"},
		{"host in capitals", "hosts: [login.example.com]", "hosts: [Login.example.com]", 14, "url.hosts[0]", "DNS"},
		{"host with a port", "hosts: [login.example.com]", "hosts: ['login.example.com:443']", 14, "url.hosts[0]", "DNS"},
		{"host as an address", "hosts: [login.example.com]", "hosts: [192.168.0.1]", 14, "url.hosts[0]", "DNS"},
		{"host in disguise", "hosts: [login.example.com]", "hosts: ['0x7f.1']", 14, "url.hosts[0]", "DNS"},
		{"host with a final dot", "hosts: [login.example.com]", "hosts: [login.example.com.]", 14, "url.hosts[0]", "DNS"},
		{"host not reachable", "hosts: [login.example.com]", "hosts: [other.example.com]", 14, "url.hosts[0]", "not in hosts"},
		{"path upward", ".tool/creds.json", ".tool/../../x", 17, "files[0].path", "clean"},
		{"path absolute", ".tool/creds.json", "/etc/shadow", 17, "files[0].path", "clean"},
		{"path in Anteroom's", ".tool/creds.json", ".local/share/anteroom/x", 17, "files[0].path", "clean"},
		{"secret on disk", ".tool/creds.json", ".other/creds.json", 17, "files[0].path", "private_dirs"},
		{"secret in a kept directory", ".tool/creds.json", ".tool/data/creds.json", 17, "files[0].path", "private_dirs"},
		{"nothing required", "required: true", "required: false", 16, "files", "both required and secret"},
		{"pointer", "[/token]", "[token]", 20, "files[0].non_empty[0]", "JSON pointer"},
		{"pointer escape", "[/token]", "[/to~2ken]", 20, "files[0].non_empty[0]", "JSON pointer"},
		{"type", "    non_empty: [/token]", "    types: {/token: text}", 20, "files[0].types", "must be"},
		{"format", "    non_empty: [/token]", "    format: xml", 20, "files[0].format", "must be"},
		{"opaque with a schema", "    secret: true", "    secret: true\n    format: opaque", 20, "files[0].format", "neither"},
		{"keep deeper", "keep: [data]", "keep: [a/b]", 24, "target.private_dirs[0].keep[0]", "subdirectory"},
		{"private directory is home", "- path: .tool\n", "- path: .\n", 17, "files[0].path", "private_dirs"},
		{"unit", "unit: s", "unit: weeks", 28, "expiry.unit", "must be"},
		{"expiry outside", "  path: .tool/creds.json\n  pointer", "  path: .tool/x.json\n  pointer", 26, "expiry.path", "one of files"},
		{"redaction that is none", "expiry:", "redact: ['(']\nexpiry:", 25, "redact[0]", "regular expression"},
		{"redaction of nothing", "expiry:", "redact: ['x', 'y*']\nexpiry:", 25, "redact[1]", "nothing"},
		{"home variable of the machine's", "expiry:", "home_env: {name: HOME, replaces: .tool}\nexpiry:", 25, "home_env.name", "machine itself"},
		{"home variable that is set", "expiry:", "  env: {TOOL_HOME: x}\nhome_env: {name: TOOL_HOME, replaces: .tool}\nexpiry:", 26, "home_env.name", "target.env"},
		{"home variable for nothing", "expiry:", "home_env: {name: TOOL_HOME, replaces: .other}\nexpiry:", 25, "home_env", "does not move .tool/creds.json"},
		{"home variable of a path upward", "expiry:", "home_env: {name: TOOL_HOME, replaces: ..}\nexpiry:", 25, "home_env.replaces", "clean"},
		{"home variable of a deep file", "expiry:", "home_env: {name: TOOL_HOME, replaces: .tool, also: [a/b]}\nexpiry:", 25, "home_env.also[0]", "name of a file"},
		{"home variable that moves two to one place", "expiry:", "  seed: [{path: creds.json}]\nhome_env: {name: TOOL_HOME, replaces: .tool, also: [creds.json]}\nexpiry:", 26, "home_env", "where .tool/creds.json is"},
		{"second document", "hosts:\n  - login.example.com\n", "hosts:\n  - login.example.com\n---\na: 1\n", 32, "", "more than one"},
		{"anchor", "title: Tool", "title: &a Tool", 3, "", "anchors"},
		{"alias", "title: Tool\nvendor: Example", "title: &a Tool\nvendor: *a", 3, "", "anchors"},
		{"tag", "title: Tool", "title: !!str Tool", 3, "", "anchors"},
		{"not YAML", "title: Tool", "title: [", 0, "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(minimal, tc.old, tc.new, 1)
			if text == minimal {
				t.Fatal("the test changes nothing")
			}
			_, err := Parse("tool.yaml", []byte(text))
			var fe *FileError
			if !errors.As(err, &fe) || !errors.Is(err, ErrInvalidFile) {
				t.Fatalf("got %v", err)
			}
			if fe.File != "tool.yaml" || tc.line > 0 && fe.Line != tc.line || fe.Field != tc.field && tc.line > 0 || !strings.Contains(fe.Reason, tc.reason) {
				t.Errorf("got line %d, field %q: %v", fe.Line, fe.Field, err)
			}
			if strings.ContainsAny(fe.Error(), "\n") {
				t.Errorf("more than one line: %q", fe.Error())
			}
		})
	}
	if _, err := Parse("tool.yaml", []byte(minimal)); err != nil {
		t.Errorf("the unchanged file: %v", err)
	}
}

func TestParseLimits(t *testing.T) {
	for name, content := range map[string]string{
		"empty":         "",
		"comment only":  "# nothing\n",
		"null":          "null\n",
		"a list":        "- a\n",
		"large":         minimal + strings.Repeat("# x\n", maxFileBytes/4),
		"deep brackets": strings.Repeat("[", 5000),
		"deep dashes":   strings.Repeat("- ", 5000),
		"deep indent":   strings.Repeat(" ", 5000) + "a: 1",
	} {
		if _, err := Parse("x.yaml", []byte(content)); !errors.Is(err, ErrInvalidFile) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadDirectory(t *testing.T) {
	t.Run("adds and replaces", func(t *testing.T) {
		dir := t.TempDir()
		writeFile(t, dir, "tool.yaml", minimal)
		writeFile(t, dir, "notes.txt", "not a provider")
		writeFile(t, dir, ".hidden.yaml", "not a provider")
		own, err := embedded.ReadFile("files/codex.yaml")
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, dir, "codex.yaml", strings.Replace(string(own), "title: Codex", "title: Our Codex", 1))
		s, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if f, err := s.Get("codex"); err != nil || f.Title != "Our Codex" {
			t.Errorf("codex: %v %v", f, err)
		}
		if _, err := s.Get("the_tool"); err != nil {
			t.Error(err)
		}
		var out bytes.Buffer
		slog.New(slog.NewTextHandler(&out, nil)).Info("providers loaded", "providers", s)
		if got := out.String(); !strings.Contains(got, "providers.replaced=codex") || !strings.Contains(got, "tool") {
			t.Errorf("log: %s", got)
		}
	})
	for _, tc := range []struct{ name, file, content, want string }{
		{"wrong file name", "other.yaml", minimal, "tool.yaml"},
		{"alias taken", "tool.yaml", strings.Replace(minimal, "the_tool", "claude", 1), `"claude" already means`},
		{"private directory taken", "tool.yaml", strings.NewReplacer(".tool", ".codex/x").Replace(minimal), "overlaps"},
		{"broken", "tool.yaml", "name: [", "tool.yaml:1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeFile(t, dir, tc.file, tc.content)
			_, err := Load(dir)
			var fe *FileError
			if !errors.As(err, &fe) || fe.File != path && !strings.Contains(fe.File, "embedded") || fe.Line == 0 || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, name := range []string{"tool.yml", "tool.YAML"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := writeFile(t, dir, name, minimal)
			_, err := Load(dir)
			var fe *FileError
			if !errors.As(err, &fe) || fe.File != path || !strings.Contains(fe.Reason, ".yaml") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("no such directory", func(t *testing.T) {
		if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a directory called like a file", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "x.yaml"), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); !errors.Is(err, ErrInvalidFile) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("too many", func(t *testing.T) {
		dir := t.TempDir()
		for i := range maxFiles + 1 {
			n := "tool" + string(rune('a'+i%26)) + string(rune('a'+i/26))
			writeFile(t, dir, n+".yaml", strings.NewReplacer("name: tool", "name: "+n, "the_tool", n+"_x", ".tool", "."+n).Replace(minimal))
		}
		if _, err := Load(dir); !errors.Is(err, ErrInvalidFile) {
			t.Errorf("got %v", err)
		}
	})
}

func TestSkips(t *testing.T) {
	d := PrivateDir{Skip: []string{"*.lock", "tmp*", "*sqlite*", "exact"}}
	for name, want := range map[string]bool{
		"auth.lock": true, "lock": false, "tmpfile": true, "my.tmp": false,
		"state_5.sqlite-wal": true, "exact": true, "exactly": false, "config.toml": false,
	} {
		if got := d.Skips(name); got != want {
			t.Errorf("Skips(%q) = %v", name, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	names, err := embedded.ReadDir("files")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		b, err := embedded.ReadFile("files/" + n.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(minimal))
	f.Add([]byte("a: &a [*a, *a]\n<<: *a\n"))
	f.Add([]byte("!!map {a: !!str b}\n--- \n..."))
	f.Fuzz(func(t *testing.T, content []byte) {
		file, err := Parse("fuzz.yaml", content)
		if err != nil {
			if !errors.Is(err, ErrInvalidFile) {
				t.Fatalf("not a FileError: %v", err)
			}
			return
		}
		if err := file.Validate(); err != nil {
			t.Fatalf("accepted, but not valid: %v", err)
		}
		b, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		var back File
		if err := json.Unmarshal(b, &back); err != nil || back.Validate() != nil {
			t.Fatalf("does not travel: %v %v", err, back.Validate())
		}
	})
}
