package e2e

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/idp"
)

// TestFiveAtOnce has five people press Connect together, for all three tools,
// and sign in all at the same time.
func TestFiveAtOnce(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	providers := []idp.Provider{idp.Claude, idp.Codex, idp.Gemini, idp.Claude, idp.Codex}
	people := make([]someone, len(providers))
	for i := range people {
		people[i] = newPerson(t, ctx, shared.rig, fmt.Sprintf("five-%d", i+1))
	}
	// together lets all of them take one step at the same time.
	together := func(step string, f func(i int, who someone) error) {
		t.Helper()
		began := time.Now()
		errs := make([]error, len(people))
		var all sync.WaitGroup
		for i, who := range people {
			all.Go(func() { errs[i] = f(i, who) })
		}
		all.Wait()
		for i, err := range errs {
			if err != nil {
				t.Errorf("%s of %s: %s: %v", providers[i], people[i].Name, step, err)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		t.Logf("%s: %.1fs", step, time.Since(began).Seconds())
	}
	ids := make([]string, len(people))
	together("connect", func(i int, who someone) (err error) {
		ids[i], err = who.page.Connect(ctx, string(providers[i]))
		return err
	})
	together("see the sign-in page", func(i int, who someone) error {
		return who.page.WaitSignInPage(ctx, providers[i])
	})
	together("sign in", func(i int, who someone) error {
		return who.page.SignInAt(ctx, providers[i], who.email(), idp.DefaultPassword)
	})
	together("completed", func(_ int, who someone) error {
		if _, err := who.page.WaitState(ctx, session.Completed); err != nil {
			return err
		}
		return who.page.WaitDestroyed(ctx)
	})

	machines := map[string]string{}
	for i, who := range people {
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
		if len(credentials) != 1 || credentials[0].Account != who.email() {
			t.Errorf("%s has credentials %+v, want one of %s", who.Name, credentials, who.email())
		}
	}
	must(t, shared.rig.WaitNoBrowserMachines(ctx))
}
