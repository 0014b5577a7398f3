package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// tool is how one of the real tools is used on the CLI machine.
type tool struct {
	provider idp.Provider
	status   string // its own status command; empty if it has none
	says     string // what that says of somebody who is signed in
	prompt   string // asks it one thing
}

var tools = []tool{
	{
		provider: idp.Claude, status: "claude auth status", says: `"loggedIn": true`, prompt: "claude -p hello",
	},
	{
		provider: idp.Codex, status: "codex login status", says: "Logged in using ChatGPT", prompt: "codex exec --skip-git-repo-check hello",
	},
	{provider: idp.Gemini, prompt: "gemini --skip-trust -p hello"},
}

// TestSignIn is the main job, for each of the real tools.
func TestSignIn(t *testing.T) {
	for _, tool := range tools {
		t.Run(string(tool.provider), func(t *testing.T) {
			t.Parallel()
			ctx := limit(t, 3*time.Minute)
			who := newPerson(t, ctx, shared.rig, "signin-"+string(tool.provider))
			seen := len(shared.rig.IDP.Events())
			began := time.Now()
			who.SignIn(t, ctx, tool.provider)
			t.Logf("signed in after %.1fs", time.Since(began).Seconds())
			if c := active(t, ctx, who, tool.provider); c.Account != who.Email() {
				t.Errorf("the account is %q, want %q", c.Account, who.Email())
			}

			must(t, who.Page.OpenTerminal(ctx))
			if tool.status != "" {
				out, code, err := who.Page.Shell(ctx, tool.status)
				must(t, err)
				if code != 0 || !strings.Contains(out, tool.says) {
					t.Errorf("%s: exit code %d, %q; want 0 and %q", tool.status, code, out, tool.says)
				}
			}
			if out := who.Run(t, ctx, tool.prompt); !strings.Contains(out, tool.provider.Answer()) {
				t.Errorf("%s: %q; want %q", tool.prompt, out, tool.provider.Answer())
			}
			if _, err := shared.rig.IDP.WaitFor(ctx, seen, func(e idp.Event) bool {
				return e.Kind == idp.PromptAnswered && e.Provider == tool.provider && e.Account == who.Email()
			}); err != nil {
				t.Errorf("the provider answered no prompt of %s: %v", who.Email(), err)
			}
			private(t, ctx, who, tool)
			sealed(t, shared.rig)
		})
	}
}

// private checks that the credential files, all that the provider's file names,
// are the person's alone and in memory only.
func private(t *testing.T, ctx context.Context, who people.Person, tool tool) {
	t.Helper()
	set, err := provider.Load("")
	must(t, err)
	file, err := set.Get(string(tool.provider))
	must(t, err)
	for _, f := range file.Files {
		out := who.Run(t, ctx, fmt.Sprintf(`stat -L -c "%%a %%U %%F" ~/%s; stat -L -f -c %%T ~/%s`, f.Path, f.Path))
		if want := "600 person regular file\ntmpfs"; out != want {
			t.Errorf("%s is %q, want %q", f.Path, out, want)
		}
	}
}

// sealed checks that none of the tokens issued so far is in the database.
func sealed(t *testing.T, rig *harness.Rig) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(rig.StateDir(), "anteroom.db*"))
	must(t, err)
	if len(files) < 2 { // the file and its WAL
		t.Fatalf("the database is %v", files)
	}
	tokens := rig.IDP.IssuedTokens()
	if len(tokens) == 0 {
		t.Fatal("no token was issued")
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		must(t, err)
		for _, token := range tokens {
			if strings.Contains(string(content), token) {
				t.Errorf("%s holds a token in the clear", filepath.Base(file))
			}
		}
	}
}
