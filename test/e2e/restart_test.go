package e2e

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// tries is how often a state may be missed in which the server is to be killed.
const tries = 6

// TestKilled kills the server (SIGKILL) while a session is in each of its
// states, and starts it again.
func TestKilled(t *testing.T) {
	began := func(s session.Session) bool { return s.State == session.Starting && s.Attempt > 0 }
	tests := []struct {
		name     string
		provider idp.Provider
		// signedIn says that the person signs in before the server is killed.
		signedIn bool
		hit      func(session.Session) bool
	}{
		{"starting", idp.Claude, false, began},
		{"starting, with the machine half made", idp.Codex, false, func(s session.Session) bool { return began(s) && machineHalfMade(t, s) }},
		{"capturing", idp.Codex, true, in(session.Capturing)},
		{"storing", idp.Claude, true, in(session.Storing)},
		{"delivering", idp.Gemini, true, in(session.Delivering)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx := limit(t, 3*time.Minute)
			who := newPerson(t, ctx, shared.rig, "killed-"+strings.NewReplacer(" ", "-", ",", "").Replace(test.name))
			id, before := killIn(t, ctx, who, test.provider, test.signedIn, test.hit)
			killed := time.Now()
			must(t, shared.rig.Restart(ctx))
			t.Logf("killed while %s, attempt %d; serving again after %.1fs", before.State, before.Attempt, time.Since(killed).Seconds())
			if !test.signedIn {
				must(t, who.Page.WaitSignInPage(ctx, test.provider))
				must(t, who.Page.SignInAt(ctx, test.provider, who.Email(), idp.DefaultPassword))
			}
			who.Completed(t, ctx)
			t.Logf("completed %.1fs after the kill", time.Since(killed).Seconds())
			wentOn(t, ctx, id, before)
		})
	}
}

func in(state session.State) func(session.Session) bool {
	return func(s session.Session) bool { return s.State == state }
}

// machineHalfMade says that the session's machine is being made: there is
// something of it on the host, and its row does not say yet that it runs.
func machineHalfMade(t *testing.T, s session.Session) bool {
	t.Helper()
	vms, err := shared.rig.DB().VMsOf(t.Context(), s.UserID)
	if err != nil {
		return false // the database is busy: the next look tells
	}
	for _, vm := range vms {
		if vm.SessionID == s.ID && vm.State == store.VMCreating {
			for _, left := range harness.MachineLeftovers(shared.rig.StateDir(), vm.ID) {
				if strings.HasPrefix(left, "process ") {
					return true
				}
			}
		}
	}
	return false
}

// killIn brings a session to a state and kills the server in it. Where the
// state has passed before it was seen, it is tried again with another session.
func killIn(t *testing.T, ctx context.Context, who people.Person, provider idp.Provider, signedIn bool, hit func(session.Session) bool) (string, session.Session) {
	t.Helper()
	for range tries {
		id, err := who.Page.Connect(ctx, string(provider))
		must(t, err)
		past := func(s session.Session) bool { return s.State.Final() }
		if signedIn {
			seen := len(shared.rig.IDP.Events())
			must(t, who.Page.WaitSignInPage(ctx, provider))
			must(t, who.Page.SignInAt(ctx, provider, who.Email(), idp.DefaultPassword))
			// From here on it is the tool's turn, and then the server's.
			_, err := shared.rig.IDP.WaitFor(ctx, seen, func(e idp.Event) bool { return e.Kind == idp.TokensIssued && e.Account == who.Email() })
			must(t, err)
		} else {
			past = func(s session.Session) bool { return s.State != session.Requested && s.State != session.Starting }
		}
		at, err := shared.rig.KillWhen(ctx, id, hit, past)
		if err == nil {
			return id, at
		}
		if !errors.Is(err, harness.ErrMissed) {
			t.Fatal(err)
		}
		t.Log(err)
		if !signedIn {
			must(t, who.Page.Cancel(ctx))
			_, err := who.Page.WaitState(ctx, session.Cancelled)
			must(t, err)
		}
		must(t, who.Page.Home(ctx))
	}
	t.Fatalf("the state was missed %d times", tries)
	return "", session.Session{}
}

// wentOn checks that the session that was cut off is the one that completed,
// on the machine that it had, and that nothing is there twice or left.
func wentOn(t *testing.T, ctx context.Context, id string, before session.Session) {
	t.Helper()
	after, err := shared.rig.DB().Session(ctx, session.ID(id))
	must(t, err)
	if after.State != session.Completed {
		t.Errorf("the session is %s", after.State)
	}
	if before.State != session.Starting && after.VMID != before.VMID {
		t.Errorf("the session had machine %s and ended with %s", before.VMID, after.VMID)
	}
	versions, err := shared.rig.DB().CredentialsOf(ctx, after.UserID)
	must(t, err)
	active := 0
	for _, c := range versions {
		if c.Active && c.Provider == after.Provider {
			active++
			if c.ID != after.CredentialID || c.SessionID != after.ID || c.DeliveredAt.IsZero() {
				t.Errorf("the active version is %s of session %s, delivered %v; want %s of %s", c.ID, c.SessionID, c.DeliveredAt, after.CredentialID, after.ID)
			}
		}
	}
	if active != 1 {
		t.Errorf("there are %d active versions, want one", active)
	}
	must(t, shared.rig.WaitNoBrowserMachines(ctx))
}

// TestKilledWhileWaiting kills the server while the person is typing: the
// viewer comes back by itself, with what was typed.
func TestKilledWhileWaiting(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	who := newPerson(t, ctx, shared.rig, "killed-waiting")
	id := who.Begin(t, ctx, idp.Gemini)
	must(t, who.Page.FillEmail(ctx, idp.Gemini, who.Email()))
	must(t, who.Page.FocusPassword(ctx, idp.Gemini)) // keys on their way are lost with the server
	before, err := shared.rig.KillWhen(ctx, id, in(session.Waiting), nil)
	must(t, err)
	killed := time.Now()
	must(t, who.Page.WaitViewerPhase(ctx, "reconnecting"))
	must(t, shared.rig.Restart(ctx))
	must(t, who.Page.WaitViewerPhase(ctx, "live"))
	must(t, who.Page.WaitSignInPage(ctx, idp.Gemini))
	t.Logf("the screen is back %.1fs after the kill", time.Since(killed).Seconds())
	must(t, who.Page.SendPassword(ctx, idp.Gemini, idp.DefaultPassword))
	who.Completed(t, ctx)
	wentOn(t, ctx, id, before)
	for _, e := range shared.rig.IDP.Events() {
		if e.Kind == idp.SignInRefused && e.Account == who.Email() {
			t.Errorf("the provider refused the sign-in: %s", e.Detail)
		}
	}
}
