package e2e

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
)

// stranger owns the home that connect, run by root, writes to.
const stranger = 65534

// connecting is a running `anteroom connect`.
type connecting struct {
	cmd   *exec.Cmd
	out   *bufio.Scanner
	said  strings.Builder
	state string // its temporary directory, once it has said something
}

// connect starts it and returns with the link.
func connect(t *testing.T, ctx context.Context, home string, args ...string) (*connecting, string) {
	t.Helper()
	before := shared.rig.ConnectStates()
	c := &connecting{cmd: shared.rig.Connect(ctx, append([]string{"codex", "--home", home}, args...)...)}
	pipe, err := c.cmd.StdoutPipe()
	must(t, err)
	c.cmd.Stderr = os.Stderr
	must(t, c.cmd.Start())
	c.out = bufio.NewScanner(pipe)
	link := strings.TrimSpace(c.wait(t, "http://"))
	states := slices.DeleteFunc(shared.rig.ConnectStates(), func(s string) bool { return slices.Contains(before, s) })
	if len(states) != 1 {
		t.Fatalf("temporary states: %q", states)
	}
	c.state = states[0]
	return c, link
}

// wait reads what is printed up to a line that holds some text.
func (c *connecting) wait(t *testing.T, text string) string {
	t.Helper()
	for c.out.Scan() {
		c.said.WriteString(c.out.Text() + "\n")
		if strings.Contains(c.out.Text(), text) {
			return c.out.Text()
		}
	}
	t.Fatalf("it ended without %q:\n%s", text, c.said.String())
	return ""
}

// end waits for its end.
func (c *connecting) end(t *testing.T) error {
	t.Helper()
	for c.out.Scan() {
		c.said.WriteString(c.out.Text() + "\n")
	}
	return c.cmd.Wait()
}

// gone holds that nothing is left of it.
func (c *connecting) gone(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(c.state); !os.IsNotExist(err) {
		t.Errorf("the temporary state is still there: %v", err)
	}
	if left := harness.Leftovers(c.state, nil); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

// emptyHome is a home directory of another user.
func emptyHome(t *testing.T) string {
	t.Helper()
	home := filepath.Join(t.TempDir(), "home")
	must(t, os.Mkdir(home, 0o700))
	must(t, os.Chown(home, stranger, stranger))
	for dir := filepath.Dir(home); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	return home
}

// TestConnect signs in a tool of this computer itself.
func TestConnect(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	home := emptyHome(t)
	c, link := connect(t, ctx, home)
	page, err := shared.browser.SignInToSession(ctx, link)
	must(t, err)
	defer func() { must(t, page.Close()) }()
	must(t, page.WaitSignInPage(ctx, idp.Codex))
	must(t, page.SignInAt(ctx, idp.Codex, "connect@example.com", idp.DefaultPassword))
	_, err = page.WaitState(ctx, session.Completed)
	must(t, err)
	if err := c.end(t); err != nil {
		t.Errorf("%v\n%s", err, c.said.String())
	}
	for _, want := range []string{"Codex is signed in on this computer", ".codex/auth.json", "Do not copy these files", "ssh -L "} {
		if !strings.Contains(c.said.String(), want) {
			t.Errorf("it did not say %q:\n%s", want, c.said.String())
		}
	}
	file := filepath.Join(home, ".codex/auth.json")
	info, err := os.Stat(file)
	must(t, err)
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || info.Mode() != 0o600 || st.Uid != stranger || st.Gid != stranger {
		t.Errorf("%s: %+v", file, info.Sys())
	}
	c.gone(t)

	// A second one leaves the sign-in alone.
	before, err := os.ReadFile(file)
	must(t, err)
	out, err := shared.rig.Connect(ctx, "codex", "--home", home).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "there is a sign-in already") {
		t.Errorf("%v: %s", err, out)
	}
	after, err := os.ReadFile(file)
	if err != nil || string(after) != string(before) {
		t.Errorf("the sign-in was changed: %v", err)
	}
}

// TestConnectLeavesNothing stops it in the middle: by Ctrl-C, by hanging up,
// and by SIGKILL, after which the next one clears away.
func TestConnectLeavesNothing(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	// Where hanging up is ignored (nohup), what is started here would ignore it
	// as well; a signal that is handled is at its default there.
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	home := emptyHome(t)
	killed, _ := connect(t, ctx, home)
	killed.wait(t, "is up")
	must(t, killed.cmd.Process.Kill())
	_ = killed.end(t)
	if len(harness.Leftovers(killed.state, nil)) == 0 {
		t.Error("a killed one has left no machine: the test shows nothing")
	}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGHUP} {
		c, _ := connect(t, ctx, home)
		c.wait(t, "is up")
		must(t, c.cmd.Process.Signal(signal))
		if err := c.end(t); c.cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("%v: %v", signal, err)
		}
		c.gone(t)
	}
	killed.gone(t)
	if entries, err := os.ReadDir(home); err != nil || len(entries) != 0 {
		t.Errorf("%d files in the home, %v", len(entries), err)
	}
}
