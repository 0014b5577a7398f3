//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

func TestCheckLoginURL(t *testing.T) {
	hosts := []string{"login.example.com", "id.example.com"}
	for address, ok := range map[string]bool{
		"https://login.example.com/a?b=c#d":                                true,
		"https://id.example.com":                                           true,
		"https://login.example.com?x=https://evil.example":                 true,
		"https://login.example.com:443/":                                   true,
		"https://login.example.com/" + strings.Repeat("a", maxURLBytes-26): true,
		"https://login.example.com/" + strings.Repeat("a", maxURLBytes-25): false,
		"":                                     false,
		"login.example.com":                    false,
		"http://login.example.com/":            false,
		"HTTPS://login.example.com/":           false,
		"https:/login.example.com/":            false,
		"https:login.example.com/":             false,
		"https:///login.example.com/":          false,
		" https://login.example.com/":          false,
		"https://login.example.com/ x":         false,
		"https://login.example.com\t/":         false,
		"https://login.example.com/\n":         false,
		"https://login.example.com/\x00":       false,
		"https://login.example.com/é":          false,
		"https://login.example.com./":          false,
		"https://login.example.com:8443/":      false,
		"https://login.example.com:/":          false,
		"https://LOGIN.example.com/":           false,
		"https://login.example.com.evil.net/":  false,
		"https://evillogin.example.com/":       false,
		"https://sub.login.example.com/":       false,
		"https://login.example.com@evil.net/":  false,
		"https://u@login.example.com/":         false,
		"https://u:p@login.example.com/":       false,
		"https://@login.example.com/":          false,
		`https://login.example.com\@evil.net/`: false,
		`https://evil.net\login.example.com/`:  false,
		"https://login.example.com%2eevil.net": false,
		"https://%6cogin.example.com/":         false,
		"https://login。example。com/":           false,
		"https://[::1]/":                       false,
		"https://127.0.0.1/":                   false,
		"file:///etc/passwd":                   false,
		"javascript:alert(1)":                  false,
		"data:text/html,x":                     false,
		"--flag=https://login.example.com/":    false,
		"https://login.example.com/%zz":        false,
	} {
		if err := checkLoginURL(address, hosts); (err == nil) != ok || err != nil && !errors.Is(err, errURL) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestHostForPeople(t *testing.T) {
	for address, want := range map[string]string{
		"https://evil.example/?code=hush":   "evil.example",
		"https://u:hush@evil.example:8443/": "evil.example",
		"http://evil.example/":              "http://evil.example",
		"file:///etc/hush":                  "an address of the kind file:",
		"javascript:hush":                   "an address of the kind javascript:",
		"::hush":                            "an address that cannot be read",
		"":                                  "an address that cannot be read",
		"https://" + strings.Repeat("a", 200) + "/": "an address that cannot be read",
		"https://\u202eevil.example/":               "an address that cannot be read",
	} {
		if got := hostForPeople(address); got != want {
			t.Errorf("%q: %q", address, got)
		}
	}
}

func FuzzCheckLoginURL(f *testing.F) {
	f.Add("https://login.example.com/a?b=c")
	f.Add(`https://login.example.com\@evil.net:443/`)
	f.Fuzz(func(t *testing.T, address string) {
		if h := hostForPeople(address); len(h) > 150 || strings.ContainsFunc(h, unicode.IsControl) {
			t.Fatalf("shown: %q", h)
		}
		if checkLoginURL(address, []string{"login.example.com"}) != nil {
			return
		}
		rest, ok := strings.CutPrefix(address, "https://login.example.com")
		if !ok || len(address) > maxURLBytes || rest != "" && !strings.ContainsAny(rest[:1], "/?#:") || strings.HasPrefix(rest, ":") && !strings.HasPrefix(rest, ":443") {
			t.Fatalf("accepted %q", address)
		}
	})
}

func TestHookServer(t *testing.T) {
	socket := filepath.Join(openTempDir(t), "hook.sock")
	if err := os.WriteFile(socket, []byte("stale"), 0o600); err != nil {
		t.Fatal(err)
	}
	u := testUser(t)
	h, err := listenHooks(socket, u)
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	var st unix.Stat_t
	if err := unix.Lstat(socket, &st); err != nil || int(st.Uid) != u.UID || st.Mode&0o777 != 0o600 {
		t.Errorf("socket: %o of %d, %v", st.Mode, st.Uid, err)
	}
	t.Setenv(hookSocketVar, socket)
	code := make(chan int, 1)
	go func() { code <- HookMain([]string{"/run/anteroom/hooks/xdg-open", "--new", "https://a.example/"}) }()
	if got := <-h.urls; got != "https://a.example/" {
		t.Errorf("got %q", got)
	}
	if c := <-code; c != 0 {
		t.Errorf("exit code %d", c)
	}
	for _, args := range [][]string{nil, {"xdg-open"}, {"xdg-open", "--version"}, {"/x/xdg-settings", "get", "default-web-browser"}} {
		if c := HookMain(args); c != 1 {
			t.Errorf("%q: exit code %d", args, c)
		}
	}
	// Callers that say nothing, or hang up, are no news; close does not wait for
	// them.
	for range 3 {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
	}
	h.close()
	if c := HookMain([]string{"xdg-open", "https://a.example/"}); c != 1 {
		t.Errorf("after close: exit code %d", c)
	}
}

// After so many calls a hook server listens no more.
func TestHookServerHasHadEnough(t *testing.T) {
	socket := filepath.Join(openTempDir(t), "hook.sock")
	h, err := listenHooks(socket, testUser(t))
	if err != nil {
		t.Fatal(err)
	}
	defer h.close()
	sent := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && i <= maxHookCalls; i++ {
			err = sendHook(socket, "https://a.example/")
		}
		sent <- err
	}()
	for n := 0; ; n++ {
		select {
		case <-h.urls:
		case err := <-sent:
			if err == nil || n != maxHookCalls {
				t.Errorf("%d calls, then %v", n, err)
			}
			return
		}
	}
}

func TestInstallHooks(t *testing.T) {
	dir := filepath.Join(openTempDir(t), "hooks")
	for range 2 { // again over what is there
		set, err := installHooks(dir, "/bin/agent", []string{"BROWSER", "xdg-open"}, []string{"PATH=/usr/bin"})
		if err != nil {
			t.Fatal(err)
		}
		if set["PATH"] != dir+":/usr/bin" || set["BROWSER"] != filepath.Join(dir, browserVarHook) || len(set) != 2 {
			t.Errorf("%v", set)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("%v %v", entries, err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || to != "/bin/agent" {
			t.Errorf("%s: %s %v", e.Name(), to, err)
		}
	}
}

func TestReadLines(t *testing.T) {
	for in, want := range map[string]string{
		"":                    "",
		"a":                   "a+",
		"a\nb\r\nc\r\r\n\nd":  "a+b+c+d+",
		"12345678\n123456789": "12345678+12345678-",
	} {
		var got strings.Builder
		readLines(strings.NewReader(in), 8, func(l string, whole bool) {
			got.WriteString(l + map[bool]string{true: "+", false: "-"}[whole])
		})
		if got.String() != want {
			t.Errorf("%q: %q", in, got.String())
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"  \x1b[1;31mred\x1b[0m text ":                  "red text",
		"\x1b]8;;https://x.example\x07link\x1b]8;;\x07": "link",
		"\x1b]0;title\x1b\\after":                       "after",
		"a\tb\x07\x00c":                                 "a bc",
		"\xff\xfeok":                                    "�ok",
		"left\u202eright":                               "leftright",
		"\x1b[?25l":                                     "",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func FuzzPlain(f *testing.F) {
	f.Add("\x1b[1m\x1b]0;x\x07\x9b31m")
	f.Fuzz(func(t *testing.T, in string) {
		out := plain(in)
		if !utf8.ValidString(out) || strings.ContainsFunc(out, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Fatalf("%q", out)
		}
	})
}

func TestLineLog(t *testing.T) {
	l := lineLog{redact: (&provider.File{}).Redactor()}
	long := strings.Repeat("ü", maxLogLine)
	for i := range 100 {
		if !l.add(fmt.Sprintf("%d %s", i, long)) {
			t.Fatal("not kept")
		}
	}
	size := 0
	for _, line := range l.lines {
		size += len(line)
		if len(line) > maxLogLine || !utf8.ValidString(line) {
			t.Fatalf("a line of %d bytes", len(line))
		}
	}
	if size > guestapi.MaxLogBytes || l.from+len(l.lines) != 100 || !strings.HasPrefix(l.lines[0], fmt.Sprint(l.from)) {
		t.Errorf("%d bytes, from %d, %d lines", size, l.from, len(l.lines))
	}
	for i := 100; i < maxLogLines; i++ {
		l.add("x")
	}
	if !l.add("one more") || l.add("and more") {
		t.Error("the end is not told once")
	}
}

// acpTool plays the tool's side: it answers each line that it is sent with the
// next of its own.
func acpTool(t *testing.T, answers ...string) (sent []string, other []string, result error) {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	got := make(chan []string)
	go func() {
		var lines []string
		readLines(inR, 1<<20, func(l string, _ bool) {
			lines = append(lines, l)
			if len(answers) > 0 {
				_, _ = io.WriteString(outW, answers[0]+"\n")
				answers = answers[1:]
			}
			if len(answers) == 0 {
				_ = outW.Close()
			}
		})
		got <- lines
	}()
	calls := 0
	acpLogin(inW, outR, "oauth-personal", func(l string) { other = append(other, l) }, func(err error) { calls++; result = err })
	_ = inW.Close()
	if calls != 1 {
		t.Errorf("done was called %d times", calls)
	}
	return <-got, other, result
}

func TestACP(t *testing.T) {
	const hello, done = `{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}`, `{"jsonrpc":"2.0","id":2,"result":{}}`
	for _, tc := range []struct {
		name    string
		answers []string
		ok      bool
		sent    int
		other   string
	}{
		{"signs in", []string{hello, done}, true, 2, ""},
		{"talks as well", []string{"hi\n" + `{"jsonrpc":"2.0","method":"session/update","params":{}}` + "\n" + hello, done}, true, 2, "hi"},
		{"asks for a file", []string{hello, `{"jsonrpc":"2.0","id":"x","method":"fs/read_text_file","params":{"path":"/etc/shadow"}}`, done}, true, 3, ""},
		{"refuses", []string{hello, `{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"no account"}}`}, false, 2, "no account"},
		{"answers what was not asked", []string{hello, `{"jsonrpc":"2.0","id":7,"result":{}}`}, false, 2, ""},
		{"answers before it is asked", []string{done}, false, 1, ""},
		{"ends", []string{""}, false, 1, ""},
		{"speaks another protocol", []string{`{"id":1,"result":{}}`}, false, 1, `{"id":1,"result":{}}`},
		{"a line without end", []string{`{"jsonrpc":"2.0","id":1,"result":"` + strings.Repeat("x", maxACPLine) + `"}`}, false, 1, "jsonrpc"},
		{"talks without end", []string{strings.Repeat(`{"jsonrpc":"2.0","method":"x"}`+"\n", maxACPMessages+1) + hello}, false, 1, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sent, other, err := acpTool(t, tc.answers...)
			if (err == nil) != tc.ok || err != nil && !errors.Is(err, errACP) {
				t.Errorf("result %v", err)
			}
			if len(sent) != tc.sent || !strings.Contains(strings.Join(other, "\n"), tc.other) {
				t.Errorf("sent %q, other %q", sent, other)
			}
			if !strings.Contains(sent[0], `"method":"initialize"`) || tc.sent == 3 && !strings.Contains(sent[2], "-32601") {
				t.Errorf("sent %q", sent)
			}
		})
	}
}

func FuzzACP(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n" + `{"jsonrpc":"2.0","id":2,"result":{}}`))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"x"}` + "\n{\n[]"))
	f.Fuzz(func(t *testing.T, out []byte) {
		calls := 0
		acpLogin(io.Discard, strings.NewReader(string(out)), "m", func(string) {}, func(error) { calls++ })
		if calls != 1 {
			t.Fatalf("done was called %d times", calls)
		}
	})
}

func TestReadFileRefusals(t *testing.T) {
	u := testUser(t)
	outside := openTempDir(t)
	put(t, u, "good", "content")
	put(t, u, "dir/sub/good", "deep")
	put(t, u, "large", strings.Repeat("x", 101))
	for link, to := range map[string]string{"link": "good", "dirlink": "dir", "dir/out": outside, "loop": "loop"} {
		if err := os.Symlink(to, filepath.Join(u.Home, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(u.Home, "fifo"), 0o644); err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("unix", filepath.Join(u.Home, "socket")); err != nil {
		t.Fatal(err)
	} else {
		defer func() { _ = l.Close() }()
	}
	for path, want := range map[string]error{
		"good": nil, "dir/sub/good": nil, "none": os.ErrNotExist, "none/at/all": os.ErrNotExist, "dir/sub/good/x": errNotPlain,
		"link": errNotPlain, "dirlink/sub/good": errNotPlain, "dir/out/x": errNotPlain, "loop": errNotPlain,
		"large": errNotPlain, "dir": errNotPlain, "fifo": errNotPlain, "socket": errNotPlain,
		"../home/good": errNotPlain, "dir/../good": errNotPlain, "dir//good": errNotPlain,
	} {
		if _, err := readFile(u.Home, path, u, 100); !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if os.Getuid() == 0 {
		if err := os.WriteFile(filepath.Join(u.Home, "roots"), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := readFile(u.Home, "roots", u, 100); !errors.Is(err, errNotPlain) {
			t.Errorf("another user's file: %v", err)
		}
	}
	moved := u.Home + "-link"
	if err := os.Symlink(u.Home, moved); err != nil {
		t.Fatal(err)
	}
	if _, err := readFile(moved, "good", u, 100); err == nil {
		t.Error("a home that is a link")
	}
}
