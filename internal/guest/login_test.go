//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
)

const page = "https://login.example.com/authorize?state=hushhush"

// writeFiles is what a fake tool does when the person has signed in.
const writeFiles = `mkdir -p ~/.tool && umask 077 &&
echo '{"token":"t0ken","expires":1900000000}' > ~/.tool/creds.json.new && mv ~/.tool/creds.json.new ~/.tool/creds.json &&
echo '{"email":"ann@example.com"}' > ~/.tool/account.json
`

// loginTest is a sign-in with a fake tool. opened gets the pages; answer, if
// not nil, is what opening one comes to.
type loginTest struct {
	user   User
	login  *Login
	opened chan string
	logs   *bytes.Buffer
}

func startTest(t *testing.T, script string, change func(*LoginConfig)) *loginTest {
	t.Helper()
	lt := &loginTest{user: testUser(t), opened: make(chan string, 16), logs: &bytes.Buffer{}}
	bin := openTempDir(t)
	program(t, bin, "tool", script)
	run := openTempDir(t)
	cfg := LoginConfig{
		File: toolFile(t, nil), SessionID: "s1", User: lt.user,
		Env:      []string{"PATH=" + bin + ":/usr/bin:/bin", "LANG=C.UTF-8", "GORACE=atexit_sleep_ms=0"},
		CABundle: "/etc/ca.pem",
		HookDir:  filepath.Join(run, "hooks"), HookSocket: filepath.Join(run, "hook.sock"), HookProgram: hookProgram,
		Open:      func(_ context.Context, url string) error { lt.opened <- url; return nil },
		Logger:    slog.New(slog.NewTextHandler(lt.logs, nil)),
		Poll:      10 * time.Millisecond,
		StopGrace: 300 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if lt.login, err = StartLogin(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lt.login.Stop)
	return lt
}

// until returns the first status that passes, or fails the test.
func (lt *loginTest) until(t *testing.T, what string, ok func(guestapi.AuthStatus) bool) guestapi.AuthStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	s := lt.login.Status(ctx, 0, 0)
	for !ok(s) {
		if ctx.Err() != nil || s.Phase == guestapi.PhaseFailed || s.Phase == guestapi.PhaseCaptured {
			t.Fatalf("waiting until %s: %+v", what, s)
		}
		s = lt.login.Status(ctx, s.Seq, 30*time.Second)
	}
	return s
}

// end returns the last status.
func (lt *loginTest) end(t *testing.T) guestapi.AuthStatus {
	t.Helper()
	s := lt.until(t, "the end", func(s guestapi.AuthStatus) bool {
		return s.Phase == guestapi.PhaseFailed || s.Phase == guestapi.PhaseCaptured
	})
	<-lt.login.done
	return s
}

func (lt *loginTest) fails(t *testing.T, reason session.Reason, detail string) guestapi.AuthStatus {
	t.Helper()
	s := lt.end(t)
	if s.Phase != guestapi.PhaseFailed || s.Reason != string(reason) || !strings.Contains(s.Detail, detail) {
		t.Errorf("ended %+v", s)
	}
	if _, err := lt.login.Credentials(); !errors.Is(err, ErrNotCaptured) {
		t.Errorf("credentials of a failed sign-in: %v", err)
	}
	return s
}

func (lt *loginTest) captures(t *testing.T) guestapi.Credentials {
	t.Helper()
	if s := lt.end(t); s.Phase != guestapi.PhaseCaptured {
		t.Fatalf("ended %+v\n%s", s, lt.logs)
	}
	c, err := lt.login.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Files) != 2 || c.Files[0].Name != "creds" || string(c.Files[0].Content) != `{"token":"t0ken","expires":1900000000}`+"\n" {
		t.Errorf("captured %s %s", c.Files, c.Files[0].Content)
	}
	if c.Account != "ann@example.com" || !c.ExpiresAt.Equal(time.Unix(1900000000, 0)) || c.SessionID != "s1" || c.Provider != "tool" {
		t.Errorf("captured %+v", c)
	}
	return c
}

func TestLoginThroughEachHook(t *testing.T) {
	for name, call := range map[string]string{
		"BROWSER":        `"$BROWSER" "` + page + `"`,
		"xdg-open":       `xdg-open "` + page + `"`,
		"x-www-browser":  `x-www-browser "` + page + `"`,
		"in the back":    `xdg-open "` + page + `" & wait`,
		"with an option": `xdg-open --new-window "` + page + `"`,
		"as codex does":  `if xdg-settings get default-web-browser; then exit 9; fi; x-www-browser "` + page + `"`,
	} {
		t.Run(name, func(t *testing.T) {
			lt := startTest(t, `echo "uid $(id -u) home $HOME ca $TOOL_CA"`+"\n"+call+` || exit 7
`+writeFiles, nil)
			if got := <-lt.opened; got != page {
				t.Errorf("opened %q", got)
			}
			lt.captures(t)
			s := lt.login.Status(t.Context(), 0, 0)
			want := fmt.Sprintf("uid %d home %s ca /etc/ca.pem", lt.user.UID, lt.user.Home)
			if len(s.Log) == 0 || s.Log[0] != want || s.ExitCode == nil || *s.ExitCode != 0 {
				t.Errorf("status %+v, want log %q", s, want)
			}
			select {
			case again := <-lt.opened:
				t.Errorf("opened twice: %q", again)
			default:
			}
		})
	}
}

// The page shows as opened before the tool has finished, and the log is
// redacted.
func TestLoginPhases(t *testing.T) {
	lt := startTest(t, `echo "visit `+page+`"
xdg-open "`+page+`"
while [ ! -e ~/go ]; do read -t 0.02 x < /dev/null; sleep 0.02; done
`+writeFiles, nil)
	s := lt.until(t, "the page is open", func(s guestapi.AuthStatus) bool { return s.Phase == guestapi.PhaseOpened })
	if got := strings.Join(s.Log, "\n"); strings.Contains(got, "hushhush") || !strings.Contains(got, "visit https://login.example.com/authorize?state=[redacted]") {
		t.Errorf("log %q", got)
	}
	if _, err := lt.login.Credentials(); !errors.Is(err, ErrNotCaptured) {
		t.Errorf("credentials too early: %v", err)
	}
	put(t, lt.user, "go", "")
	lt.captures(t)
}

func TestLoginAddressInOutput(t *testing.T) {
	withPattern := func(c *LoginConfig) {
		c.File.URL.Pattern = `(https://login\.example\.com/\S+)`
		c.PatternGrace = time.Millisecond
	}
	t.Run("is taken where no hook is called", func(t *testing.T) {
		lt := startTest(t, "printf 'go to \\033[1m"+page+"\\033[0m now\\n'\n"+`sleep 0.2
`+writeFiles, withPattern)
		if got := <-lt.opened; got != page {
			t.Errorf("opened %q", got)
		}
		lt.captures(t)
	})
	t.Run("is held to the hosts", func(t *testing.T) {
		lt := startTest(t, "echo https://evil.example/x; exec sleep 60", func(c *LoginConfig) {
			withPattern(c)
			c.File.URL.Pattern = `(https://\S+)`
		})
		lt.fails(t, session.ReasonLoginURL, "evil.example")
	})
	t.Run("with a terminal, as long as it is", func(t *testing.T) {
		long := page + "&x=" + strings.Repeat("y", 3000)
		lt := startTest(t, "test -t 0 && test -t 1 && test -t 2 || exit 8\necho '"+long+"'; sleep 0.2\n"+writeFiles, func(c *LoginConfig) {
			withPattern(c)
			c.File.Login.TTY = true
		})
		if got := <-lt.opened; got != long {
			t.Errorf("opened %q", got)
		}
		lt.captures(t)
	})
}

func TestLoginDeviceCode(t *testing.T) {
	lt := startTest(t, `xdg-open "`+page+`"; echo "Your code: ABCD-1234"
while [ ! -e ~/go ]; do sleep 0.02; done
`+writeFiles, func(c *LoginConfig) {
		c.File.Login.Flow, c.File.URL.CodePattern = "device", `code: ([A-Z0-9-]+)`
	})
	s := lt.until(t, "the code is there", func(s guestapi.AuthStatus) bool { return s.UserCode == "ABCD-1234" })
	if log := strings.Join(s.Log, "\n"); strings.Contains(log, "1234") || !strings.Contains(log, "Your code") {
		t.Errorf("log %q", log)
	}
	put(t, lt.user, "go", "")
	lt.captures(t)
}

func TestLoginScript(t *testing.T) {
	for _, tty := range []bool{false, true} {
		lt := startTest(t, `read -r answer; [ "$answer" = yes ] || exit 9
`+writeFiles, func(c *LoginConfig) {
			c.File.Login.Dialogue, c.File.Login.Stdin, c.File.Login.TTY = "script", "yes\n", tty
		})
		lt.captures(t)
	}
}

// A tool that goes on after it has written its files is stopped, and asked
// politely first.
func TestLoginToolThatDoesNotExit(t *testing.T) {
	lt := startTest(t, `trap 'echo polite; exit 0' TERM
`+writeFiles+`
while :; do sleep 0.02; done`, func(c *LoginConfig) {
		c.File.Login.ExitsOnSuccess = false
		c.Settle = 30 * time.Millisecond
		c.StopGrace = 20 * time.Second
	})
	lt.captures(t)
	if s := lt.login.Status(t.Context(), 0, 0); len(s.Log) == 0 || s.Log[len(s.Log)-1] != "polite" {
		t.Errorf("log %q", s.Log)
	}
}

func TestLoginFailures(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		change       func(*LoginConfig)
		reason       session.Reason
		detail       string
		exit         int // -1: none
	}{
		{"exits early", "echo sorry >&2; exit 3", nil, session.ReasonLoginExited, "exit code 3", 3},
		{"exits 0 without files", "exit 0", nil, session.ReasonLoginExited, "without having signed in", 0},
		{"is killed", "kill -KILL $$", nil, session.ReasonLoginExited, "exit code 137", 137},
		{"writes garbage", "mkdir ~/.tool; echo '{' > ~/.tool/creds.json", nil, session.ReasonCaptureInvalid, "", 0},
		{"writes an empty token", `mkdir ~/.tool; echo '{"token":""}' > ~/.tool/creds.json`, nil, session.ReasonCaptureInvalid, "", 0},
		{"writes too much", "mkdir ~/.tool; head -c 100000 /dev/zero > ~/.tool/creds.json", nil, session.ReasonCaptureInvalid, "", 0},
		{"leaves a link", "mkdir ~/.tool; ln -s /etc/passwd ~/.tool/creds.json", nil, session.ReasonCaptureInvalid, "", 0},
		{"leaves a link to a good file", `mkdir ~/.tool; echo '{"token":"x"}' > ~/x; ln -s ~/x ~/.tool/creds.json`, nil, session.ReasonCaptureInvalid, "", 0},
		{"leaves a directory link", `mkdir ~/d; echo '{"token":"x"}' > ~/d/creds.json; ln -s ~/d ~/.tool`, nil, session.ReasonCaptureInvalid, "", 0},
		{"leaves a FIFO", "mkdir ~/.tool; mkfifo ~/.tool/creds.json", nil, session.ReasonCaptureInvalid, "", 0},
		{"leaves a directory", "mkdir -p ~/.tool/creds.json", nil, session.ReasonCaptureInvalid, "", 0},
		{"asks for another host", "xdg-open https://evil.example/a?code=1; exec sleep 60", nil, session.ReasonLoginURL, "evil.example", -1},
		{"asks for a file", "xdg-open file:///etc/passwd; exec sleep 60", nil, session.ReasonLoginURL, "file:", -1},
		{"asks for too long an address", "xdg-open https://login.example.com/$(head -c 20000 /dev/zero | tr '\\0' a); exec sleep 60", nil, session.ReasonLoginURL, "login.example.com", -1},
		{"never asks", "exec sleep 60", func(c *LoginConfig) { c.PageTimeout = 30 * time.Millisecond }, session.ReasonLoginTimeout, "", -1},
		{"is not there", "", func(c *LoginConfig) { c.File.Login.Argv = []string{"no-such-tool"} }, session.ReasonToolMissing, "", -1},
		{"finds the browser broken", `xdg-open "` + page + `"; exec sleep 60`, func(c *LoginConfig) {
			c.Open = func(context.Context, string) error { return errors.New("no browser") }
		}, session.ReasonInternal, "browser", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startTest(t, tc.script, tc.change).fails(t, tc.reason, tc.detail)
			if (s.ExitCode == nil) != (tc.exit < 0) || s.ExitCode != nil && *s.ExitCode != tc.exit {
				t.Errorf("exit code %v", s.ExitCode)
			}
		})
	}
}

func TestLoginSecondPageOfAnotherHostIsNotOpened(t *testing.T) {
	lt := startTest(t, `xdg-open "`+page+`"; xdg-open https://docs.example.org/?code=hush; xdg-open "`+page+`&again=1"
`+writeFiles, nil)
	lt.captures(t)
	if first, second := <-lt.opened, <-lt.opened; first != page || second != page+"&again=1" || len(lt.opened) != 0 {
		t.Errorf("opened %q %q and %d more", first, second, len(lt.opened))
	}
	if log := strings.Join(lt.login.Status(t.Context(), 0, 0).Log, "\n"); !strings.Contains(log, "docs.example.org") || strings.Contains(log, "hush") {
		t.Errorf("log %q", log)
	}
}

// A tool may flood the hooks and its output: the sign-in goes on, within its
// limits.
func TestLoginFloods(t *testing.T) {
	lt := startTest(t, `for i in 1 2 3; do (for j in $(seq 30); do xdg-open "`+page+`&n=$i$j" 2>/dev/null; done) & done; wait
seq 100000
head -c 3000000 /dev/zero | tr '\0' x
echo; printf 'bad \377\033]0;title\007 bytes\n'
`+writeFiles, nil)
	lt.captures(t)
	if n := len(lt.opened); n > maxPages {
		t.Errorf("%d pages opened", n)
	}
	s := lt.login.Status(t.Context(), 0, 0)
	size := 0
	for _, l := range s.Log {
		size += len(l)
	}
	if size > guestapi.MaxLogBytes || len(s.Log)+s.LogFrom > maxLogLines+1 || !strings.Contains(s.Log[len(s.Log)-1], "not kept") {
		t.Errorf("%d bytes in lines %d to %d", size, s.LogFrom, s.LogFrom+len(s.Log))
	}
}

// Stop ends the tool and everything that it started, also what ignores SIGTERM
// and has left its session.
func TestStopLeavesNothing(t *testing.T) {
	lt := startTest(t, `trap '' TERM HUP
setsid sh -c 'trap "" TERM; echo $$ > ~/pid.new; mv ~/pid.new ~/pid; while :; do sleep 1; done' &
while [ ! -e ~/pid ]; do sleep 0.02; done
xdg-open "`+page+`"
while :; do sleep 1; done`, nil)
	<-lt.opened
	b, err := os.ReadFile(filepath.Join(lt.user.Home, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("the tool's child is not there: %v", err)
	}
	lt.login.Stop()
	lt.login.Stop() // idempotent
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("left behind: %s", stat)
	}
	if s := lt.login.Status(t.Context(), 0, 0); s.Phase != guestapi.PhaseFailed || s.Reason != string(session.ReasonCancelled) {
		t.Errorf("status %+v", s)
	}
}

func TestLoginEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	user, run := testUser(t), openTempDir(t)
	l, err := StartLogin(ctx, LoginConfig{
		File: toolFile(t, func(f *provider.File) { f.Login.Argv = []string{"sleep", "60"} }), User: user,
		Env: []string{"PATH=/usr/bin:/bin"}, HookDir: filepath.Join(run, "h"), HookSocket: filepath.Join(run, "s"), HookProgram: hookProgram,
		Open: func(context.Context, string) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-l.done
}

func TestStartLoginRefusals(t *testing.T) {
	u := testUser(t)
	cfg := LoginConfig{File: toolFile(t, nil), User: u}
	put(t, u, ".tool/account.json", "{}")
	if _, err := StartLogin(t.Context(), cfg); !errors.Is(err, ErrSignedIn) {
		t.Errorf("with files of another sign-in: %v", err)
	}
	cfg.File.Hosts = nil
	if _, err := StartLogin(t.Context(), cfg); !errors.Is(err, provider.ErrInvalidFile) {
		t.Errorf("with an invalid file: %v", err)
	}
	cfg.File = nil
	if _, err := StartLogin(t.Context(), cfg); !errors.Is(err, provider.ErrInvalidFile) {
		t.Errorf("without a file: %v", err)
	}
}

func TestStatusWaits(t *testing.T) {
	lt := startTest(t, `while [ ! -e ~/go ]; do sleep 0.02; done; echo hello; exit 4`, nil)
	first := lt.login.Status(t.Context(), 0, time.Hour) // there is news already
	if first.Phase != guestapi.PhaseRunning || first.Seq == 0 {
		t.Fatalf("%+v", first)
	}
	if s := lt.login.Status(t.Context(), first.Seq, time.Millisecond); s.Seq != first.Seq {
		t.Errorf("news from nowhere: %+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s := lt.login.Status(ctx, first.Seq, time.Hour); s.Seq != first.Seq {
		t.Errorf("news from nowhere: %+v", s)
	}
	put(t, lt.user, "go", "")
	if s := lt.login.Status(t.Context(), first.Seq, time.Minute); s.Seq <= first.Seq {
		t.Errorf("no news: %+v", s)
	}
	lt.fails(t, session.ReasonLoginExited, "exit code 4")
}
