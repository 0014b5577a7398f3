package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// TestFiveAtOnce has five people press Connect together, for all three tools,
// and sign in all at the same time.
func TestFiveAtOnce(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	providers := []idp.Provider{idp.Claude, idp.Codex, idp.Gemini, idp.Claude, idp.Codex}
	all := make([]people.Person, len(providers))
	for i := range all {
		all[i] = newPerson(t, ctx, shared.rig, fmt.Sprintf("five-%d", i+1))
	}
	// together lets all of them take one step at the same time.
	together := func(step string, f func(i int, who people.Person) error) {
		t.Helper()
		began := time.Now()
		errs := make([]error, len(all))
		var steps sync.WaitGroup
		for i, who := range all {
			steps.Go(func() { errs[i] = f(i, who) })
		}
		steps.Wait()
		for i, err := range errs {
			if err != nil {
				t.Errorf("%s of %s: %s: %v", providers[i], all[i].Name, step, err)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		t.Logf("%s: %.1fs", step, time.Since(began).Seconds())
	}
	ids := make([]string, len(all))
	together("connect", func(i int, who people.Person) (err error) {
		ids[i], err = who.Page.Connect(ctx, string(providers[i]))
		return err
	})
	together("see the sign-in page", func(i int, who people.Person) error {
		return who.Page.WaitSignInPage(ctx, providers[i])
	})
	together("sign in", func(i int, who people.Person) error {
		return who.Page.SignInAt(ctx, providers[i], who.Email(), idp.DefaultPassword)
	})
	together("completed", func(_ int, who people.Person) error {
		if _, err := who.Page.WaitState(ctx, session.Completed); err != nil {
			return err
		}
		return who.Page.WaitDestroyed(ctx)
	})

	machines := map[string]string{}
	for i, who := range all {
		s, err := who.Session(ctx, ids[i])
		must(t, err)
		if other := machines[s.VMID]; s.VMID == "" || other != "" {
			t.Errorf("session %s had machine %q, as had %q", s.ID, s.VMID, other)
		}
		machines[s.VMID] = ids[i]
		vm, err := shared.rig.DB().VM(ctx, s.VMID)
		must(t, err)
		if vm.SessionID != s.ID || vm.State != store.VMDestroyed {
			t.Errorf("machine %s is of session %s and %s; want %s and destroyed", vm.ID, vm.SessionID, vm.State, s.ID)
		}
		credentials, err := who.Credentials(ctx)
		must(t, err)
		if len(credentials) != 1 || credentials[0].Account != who.Email() {
			t.Errorf("%s has credentials %+v, want one of %s", who.Name, credentials, who.Email())
		}
	}
	must(t, shared.rig.WaitNoBrowserMachines(ctx))
}
