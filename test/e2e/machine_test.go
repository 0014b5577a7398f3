package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// TestOwnMachine follows a person's own machine through a restart of the server,
// through the tools' renewing of their tokens, and through its own end.
func TestOwnMachine(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	who := newPerson(t, ctx, shared.rig, "own-machine")
	rotating := tools[:2] // gemini's refresh tokens are not replaced
	for _, tool := range rotating {
		must(t, who.Page.Home(ctx))
		who.SignIn(t, ctx, tool.provider)
	}
	machine, err := who.EnsureMachine(ctx)
	must(t, err)

	must(t, who.Page.OpenTerminal(ctx))
	_, _, err = who.Page.Shell(ctx, "echo kept > note; (setsid sleep 1000 &)")
	must(t, err)
	must(t, shared.rig.Kill())
	must(t, shared.rig.Restart(ctx))
	must(t, who.Page.WaitTerminalAgain(ctx))
	out, _, err := who.Page.Shell(ctx, "cat note; pgrep -c sleep")
	must(t, err)
	if out != "kept\n1" {
		t.Errorf("after a restart of the server the terminal shows %q, want the file and the process", out)
	}
	if same, err := who.EnsureMachine(ctx); err != nil || same.ID != machine.ID {
		t.Errorf("after a restart of the server the machine is %s (%v), was %s", same.ID, err, machine.ID)
	}

	for _, tool := range rotating {
		renewed(t, ctx, who, tool)
	}

	must(t, who.DestroyMachine(ctx, machine.ID))
	if left := harness.MachineLeftovers(shared.rig.StateDir(), machine.ID); len(left) > 0 {
		t.Errorf("left of the machine: %s", strings.Join(left, "; "))
	}
	next, err := who.EnsureMachine(ctx)
	must(t, err)
	if next.ID == machine.ID {
		t.Error("a destroyed machine is there again")
	}
	if out := who.Run(t, ctx, "cat note"); out != "kept" {
		t.Errorf("the home holds %q", out)
	}
	for _, tool := range rotating {
		if out := who.Run(t, ctx, tool.status); !strings.Contains(out, tool.says) {
			t.Errorf("on the next machine %s says %q", tool.status, out)
		}
		if out := who.Run(t, ctx, tool.prompt); !strings.Contains(out, tool.provider.Answer()) {
			t.Errorf("on the next machine %s: %q", tool.prompt, out)
		}
	}
	for _, e := range shared.rig.IDP.Events() {
		if e.Kind == idp.RefreshReused {
			t.Errorf("a used refresh token of %s came back to %s", e.Account, e.Provider)
		}
	}
}

// renewed has a tool renew its tokens, and waits for them to be stored as the
// next version.
func renewed(t *testing.T, ctx context.Context, who people.Person, tool tool) {
	t.Helper()
	before := active(t, ctx, who, tool.provider)
	seen := len(shared.rig.IDP.Events())
	shared.rig.IDP.ExpireAccess(tool.provider)
	if out := who.Run(t, ctx, tool.prompt); !strings.Contains(out, tool.provider.Answer()) {
		t.Errorf("%s with an expired token: %q", tool.prompt, out)
	}
	if _, err := shared.rig.IDP.WaitFor(ctx, seen, func(e idp.Event) bool {
		return e.Kind == idp.Refreshed && e.Provider == tool.provider && e.Account == who.Email()
	}); err != nil {
		t.Fatalf("%s did not renew its tokens: %v", tool.provider, err)
	}
	began := time.Now()
	must(t, harness.Until(ctx, func() error {
		now := active(t, ctx, who, tool.provider)
		if now.Version != before.Version+1 || now.DeliveredTo != before.DeliveredTo {
			return errNotYet
		}
		return nil
	}))
	t.Logf("%s: the renewed tokens are version %d after %.1fs", tool.provider, before.Version+1, time.Since(began).Seconds())
}

// active is the one active version of a provider.
func active(t *testing.T, ctx context.Context, who people.Person, provider idp.Provider) harness.Credential {
	t.Helper()
	all, err := who.Credentials(ctx)
	must(t, err)
	var found []harness.Credential
	for _, c := range all {
		if c.Active && c.Provider == string(provider) {
			found = append(found, c)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%s has %d active versions of %s: %+v", who.Name, len(found), provider, all)
	}
	return found[0]
}
