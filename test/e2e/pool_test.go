package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
)

// poolRig is a server of the test's own, with more flags.
func poolRig(t *testing.T, ctx context.Context, flags ...string) *harness.Rig {
	t.Helper()
	rig, err := harness.Start(ctx, harness.Config{Flags: flags, Sites: sites()})
	must(t, err)
	t.Cleanup(func() {
		if err := rig.Close(); err != nil { // also: a machine of the pool is left
			t.Error(err)
		}
	})
	return rig
}

// nobodys waits until the pool has n machines, all ready, and returns their ids.
func nobodys(t *testing.T, ctx context.Context, rig *harness.Rig, n int) map[string]bool {
	t.Helper()
	var ids map[string]bool
	must(t, harness.Until(ctx, func() error {
		live, err := rig.DB().LiveVMs(ctx)
		if err != nil {
			return err
		}
		ids = map[string]bool{}
		for _, vm := range live {
			if vm.UserID != "" {
				continue
			}
			if vm.State != store.VMRunning || !vm.Restored {
				return fmt.Errorf("machine %s is %s, restored: %t", vm.ID, vm.State, vm.Restored)
			}
			ids[vm.ID] = true
		}
		if len(ids) != n {
			return fmt.Errorf("%d machines are ready, want %d", len(ids), n)
		}
		return nil
	}))
	return ids
}

// TestWarmPool: two people at once get the two machines that were ready, sign in
// in them as in any other, and the pool is filled again.
func TestWarmPool(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	rig := poolRig(t, ctx, "--warm-machines", "2")
	all := []people.Person{newPerson(t, ctx, rig, "warm-one"), newPerson(t, ctx, rig, "warm-two")}
	tools := []idp.Provider{idp.Claude, idp.Codex}
	ready := nobodys(t, ctx, rig, 2)
	ids := make([]string, len(all))
	errs := make(chan error, len(all))
	for i, who := range all {
		go func() {
			var err error
			ids[i], err = who.Page.Connect(ctx, string(tools[i]))
			errs <- err
		}()
	}
	for range all {
		must(t, <-errs)
	}
	for i, who := range all {
		must(t, who.Page.WaitSignInPage(ctx, tools[i]))
		s, err := who.Session(ctx, ids[i])
		must(t, err)
		if !ready[s.VMID] || s.Attempt != 1 {
			t.Errorf("%s has machine %s in attempt %d, want one of %v", who.Name, s.VMID, s.Attempt, ready)
		}
		delete(ready, s.VMID) // for nobody else
	}
	hits, err := all[0].Metric(ctx, `anteroom_pool_takes_total{result="hit"}`)
	must(t, err)
	if hits != 2 {
		t.Errorf("the pool was of use %g times", hits)
	}
	nobodys(t, ctx, rig, 2)
	for i, who := range all {
		who.Finish(t, ctx, tools[i])
	}

	// The next server has its own, also after this one had no time for anything.
	before := nobodys(t, ctx, rig, 2)
	must(t, rig.Kill())
	must(t, rig.Restart(ctx))
	must(t, harness.Until(ctx, func() error {
		for id := range before {
			vm, err := rig.DB().VM(ctx, id)
			if err != nil {
				return err
			}
			if vm.State != store.VMDestroyed {
				return fmt.Errorf("machine %s of the last server is %s", id, vm.State)
			}
			if left := harness.MachineLeftovers(rig.StateDir(), id); len(left) > 0 {
				return fmt.Errorf("of machine %s there is left: %v", id, left)
			}
		}
		return nil
	}))
	nobodys(t, ctx, rig, 2)
}

// TestQueue: where there is one place, the second person is told that they are
// next, the third that one is before them, and the fourth that all is full; who
// is next starts when the first leaves, a restart in between or not.
func TestQueue(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	rig := poolRig(t, ctx, "--max-machines", "1", "--max-waiting", "2", "--warm-machines", "1")
	first, second, third := newPerson(t, ctx, rig, "queue-one"), newPerson(t, ctx, rig, "queue-two"), newPerson(t, ctx, rig, "queue-three")
	one := first.Begin(t, ctx, idp.Claude)
	two := second.Connect(t, ctx, idp.Claude)
	must(t, second.Page.WaitLead(ctx, "You are next"))
	three := third.Connect(t, ctx, idp.Codex)
	must(t, third.Page.WaitLead(ctx, "1 person is before you"))
	stands(t, ctx, second, two, session.Requested, 1)
	stands(t, ctx, third, three, session.Requested, 2)
	if len(nobodys(t, ctx, rig, 0)) > 0 {
		t.Error("a machine that is nobody's is in a person's way")
	}
	_, err := first.StartSession(ctx, string(idp.Codex))
	var problem *client.Problem
	if !errors.As(err, &problem) || problem.Code != "queue_full" || problem.Status != http.StatusServiceUnavailable {
		t.Errorf("one too many: %v", err)
	}
	waiting, err := first.Metric(ctx, "anteroom_queue_length")
	must(t, err)
	free, err := first.Metric(ctx, "anteroom_places_free")
	must(t, err)
	if waiting != 2 || free != 0 {
		t.Errorf("%g wait, %g places are free", waiting, free)
	}

	must(t, rig.Kill())
	must(t, rig.Restart(ctx))
	stands(t, ctx, second, two, session.Requested, 1)
	stands(t, ctx, third, three, session.Requested, 2)
	stands(t, ctx, first, one, session.Waiting, 0)
	must(t, first.Call(ctx, http.MethodDelete, "/sessions/"+one, nil, nil))
	must(t, second.Page.WaitSignInPage(ctx, idp.Claude))
	must(t, third.Page.WaitLead(ctx, "You are next"))
	second.Finish(t, ctx, idp.Claude)
	must(t, third.Page.WaitSignInPage(ctx, idp.Codex))
	stands(t, ctx, third, three, session.Waiting, 0)
}

// stands checks where a session is, by the API.
func stands(t *testing.T, ctx context.Context, who people.Person, id string, state session.State, position int) {
	t.Helper()
	s, err := who.Session(ctx, id)
	must(t, err)
	if s.State != state || s.Position != position {
		t.Errorf("the session of %s is %s at position %d, want %s at %d", who.Name, s.State, s.Position, state, position)
	}
}
