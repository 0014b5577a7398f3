package control_test

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// again checks that after a failure nothing is left running and that a new try
// works.
func again(t *testing.T, w *world, s *service) {
	t.Helper()
	w.quiet()
	w.script(fake.Script{Login: signsIn(9)}, fake.Script{})
	w.reach(w.start(s, "claude"), session.Completed)
	w.quiet()
}

func TestCancel(t *testing.T) {
	for _, state := range working {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				g := w.hold(state)
				s := w.serve()
				id := w.start(s, "claude")
				w.reach(id, state)
				out, err := s.Cancel(t.Context(), w.user, id)
				if err != nil || out.State != session.Cancelled || out.Reason != session.ReasonCancelled {
					t.Fatalf("cancel: %+v, %v", out, err)
				}
				if stored := state == session.Delivering; strings.Contains(out.Detail, "stored") != stored || (out.CredentialID != "") != stored {
					t.Errorf("it says %q, its credential is %q", out.Detail, out.CredentialID)
				}
				if _, err := s.Cancel(t.Context(), w.user, id); !errors.Is(err, session.ErrConflict) {
					t.Errorf("cancelled again: %v, want a conflict", err)
				}
				close(g.open)
				again(t, w, s)
				if now := w.session(id); now.State != session.Cancelled {
					t.Errorf("it is %s in the end", now.State)
				}
			})
		})
	}
}

// TestTooManySessions: one user has no more sessions under way than allowed,
// another one has theirs all the same.
func TestTooManySessions(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		start := func(user, key string) (session.Session, error) {
			out, _, err := s.StartSession(t.Context(), user, "claude", key, guestapi.View{})
			return out, err
		}
		first, err := start(w.user, "key")
		if err != nil {
			t.Fatal(err)
		}
		for range 15 {
			w.start(s, "claude")
		}
		if _, err := start(w.user, ""); !errors.Is(err, store.ErrTooMany) {
			t.Errorf("one more: %v", err)
		}
		if out, err := start(w.user, "key"); err != nil || out.ID != first.ID {
			t.Errorf("the first again: %s, %v", out.ID, err)
		}
		if _, err := start(w.newUser("other"), ""); err != nil {
			t.Errorf("another user's: %v", err)
		}
		if _, err := s.Cancel(t.Context(), w.user, first.ID); err != nil {
			t.Fatal(err)
		}
		w.start(s, "claude")
	})
}

// TestCancelBeforeWork: also a session that nobody works on yet is cancelled.
func TestCancelBeforeWork(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		idle, err := control.New(w.config())
		if err != nil {
			t.Fatal(err)
		}
		out, _, err := idle.StartSession(t.Context(), w.user, "claude", "", guestapi.View{})
		if err != nil {
			t.Fatal(err)
		}
		if now := w.session(out.ID); now.State != session.Requested {
			t.Fatalf("it is %s", now.State)
		}
		if out, err = idle.Cancel(t.Context(), w.user, out.ID); err != nil || out.State != session.Cancelled {
			t.Fatalf("cancel: %+v, %v", out, err)
		}
		w.serve()
		if n := w.host.Started(); n != 0 {
			t.Errorf("%d machines were started for it", n)
		}
	})
}

// TestExpiry: in every state but delivering, where a machine that does not
// answer ends the session sooner, as what it is.
func TestExpiry(t *testing.T) {
	for _, state := range working[:len(working)-1] {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				g := w.hold(state)
				s := w.serve(func(c *control.Config) { c.SessionTime = 20 * time.Second })
				began := time.Now()
				id := w.start(s, "claude")
				w.reach(id, state)
				now := w.reach(id, session.Expired)
				if now.Reason != session.ReasonExpired {
					t.Errorf("reason %q", now.Reason)
				}
				// What comes after the sign-in has a time of its own.
				least := 20 * time.Second
				if state != session.Starting && state != session.Waiting {
					least = 5 * time.Minute
				}
				if took := time.Since(began); took < least || took > least+5*time.Second {
					t.Errorf("it expired after %s", took)
				}
				close(g.open)
				again(t, w, s)
			})
		})
	}
}

// TestProvidersTime: a person has no longer than the provider's file says, and
// is told so.
func TestProvidersTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		file, err := w.providers.Get("gemini")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		id := w.start(s, "gemini")
		now := w.reach(id, session.Waiting)
		want := began.Add(file.Login.TimeLimit())
		if d := now.Deadline.Sub(want); d < -time.Second || d > 10*time.Second {
			t.Errorf("the deadline is %s, want about %s", now.Deadline, want)
		}
		now = w.reach(id, session.Expired)
		if d := time.Since(want); now.Reason != session.ReasonExpired || d < -time.Second || d > 10*time.Second {
			t.Errorf("it expired %s after the provider's time: %q", d, now.Reason)
		}
		again(t, w, s)
	})
}

// TestExpiredWhileStopped: a session whose time ran out while no server ran
// expires at the next start.
func TestExpiredWhileStopped(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		id := w.start(s, "claude")
		w.reach(id, session.Waiting)
		s.stop()
		<-time.After(time.Hour)
		s = w.serve()
		w.reach(id, session.Expired)
		again(t, w, s)
	})
}

// says has a machine answer for the credential files with something else.
func says(change func(*guestapi.Credentials)) fake.Script {
	return fake.Script{Login: func(_ context.Context, l *fake.Login) {
		c := guestapi.Credentials{SessionID: l.Request().SessionID, Provider: "claude", Files: claudeFiles(1)}
		change(&c)
		l.Hand(c)
	}}
}

func TestCaptureIsNotBelieved(t *testing.T) {
	file := claudeFiles(1)[0]
	tests := map[string]fake.Script{
		"no files":     says(func(c *guestapi.Credentials) { c.Files = nil }),
		"another name": says(func(c *guestapi.Credentials) { c.Files[0].Name = "other.json" }),
		"a path":       says(func(c *guestapi.Credentials) { c.Files[0].Name = "../../../etc/passwd" }),
		"one more": says(func(c *guestapi.Credentials) {
			c.Files = append(c.Files, guestapi.File{Name: "x", Content: []byte("{}")})
		}),
		"twice":            says(func(c *guestapi.Credentials) { c.Files = append(c.Files, file) }),
		"empty":            says(func(c *guestapi.Credentials) { c.Files[0].Content = nil }),
		"no JSON":          says(func(c *guestapi.Credentials) { c.Files[0].Content = []byte("token") }),
		"no refresh token": says(func(c *guestapi.Credentials) { c.Files[0].Content = []byte(`{"claudeAiOauth":{"accessToken":"a"}}`) }),
		"too long": says(func(c *guestapi.Credentials) {
			c.Files[0].Content = append(file.Content, strings.Repeat(" ", 65<<10)...)
		}),
		"another session":   says(func(c *guestapi.Credentials) { c.SessionID = "other" }),
		"another provider":  says(func(c *guestapi.Credentials) { c.Provider = "codex" }),
		"too many":          says(func(c *guestapi.Credentials) { c.Files = make([]guestapi.File, 100) }),
		"a refusal":         refuses(guestapi.PathCredentials),
		"the wrong JSON":    answers(guestapi.PathCredentials, `{"files":{"a":1}}`),
		"a body over limit": answers(guestapi.PathCredentials, `"`+strings.Repeat("x", guestapi.MaxBodyBytes)+`"`),
	}
	for name, script := range tests {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				if script.Login == nil {
					script.Login = signsIn(1)
				}
				w.script(script, fake.Script{})
				s := w.serve()
				now := w.reach(w.start(s, "claude"), session.Failed)
				if now.Reason != session.ReasonCaptureInvalid {
					t.Errorf("reason %q", now.Reason)
				}
				if _, err := w.db.ActiveCredential(t.Context(), w.user, "claude"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("something was stored: %v", err)
				}
				again(t, w, s)
			})
		})
	}
}

// refuses has a machine answer one route with a refusal.
func refuses(path string) fake.Script {
	return overrides(path, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusConflict) })
}

// answers has a machine answer one route with a body.
func answers(path, body string) fake.Script {
	return overrides(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
}

func overrides(path string, serve http.HandlerFunc) fake.Script {
	return fake.Script{HTTP: func(agent http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				serve(w, r)
				return
			}
			agent.ServeHTTP(w, r)
		})
	}}
}

func TestMachineDies(t *testing.T) {
	for _, state := range []session.State{session.Waiting, session.Capturing, session.Storing} {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.hold(state)
				s := w.serve()
				id := w.start(s, "claude")
				w.reach(id, state)
				w.host.Machines(machine.Browser)[0].Kill()
				now := w.reach(id, session.Failed)
				if now.Reason != session.ReasonMachineLost {
					t.Errorf("reason %q", now.Reason)
				}
				if vm, err := w.db.VM(t.Context(), now.VMID); err != nil || vm.State == store.VMRunning || vm.Reason == "" {
					t.Errorf("its machine's row: %+v, %v", vm, err)
				}
				again(t, w, s)
			})
		})
	}
}

// TestLineBreaks: a broken line is no failure.
func TestLineBreaks(t *testing.T) {
	for _, state := range []session.State{session.Waiting, session.Capturing, session.Storing} {
		t.Run(string(state), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				g := w.hold(state)
				s := w.serve()
				id := w.start(s, "claude")
				w.reach(id, state)
				for range 3 {
					w.host.Machines(machine.Browser)[0].BreakLine()
					<-time.After(time.Second)
				}
				close(g.open)
				w.reach(id, session.Completed)
				w.quiet()
				if n := w.host.Started(); n != 2 {
					t.Errorf("%d machines were started, want 2", n)
				}
			})
		})
	}
}

func TestStartFails(t *testing.T) {
	broken := errors.New("no such device")
	for name, test := range map[string]struct {
		err      error
		reason   session.Reason
		attempts int
	}{
		"broken":    {broken, session.ReasonMachineStart, 3},
		"no memory": {machine.ErrNoMemory, session.ReasonNoMemory, 1},
		"disk full": {machine.ErrDiskFull, session.ReasonDiskFull, 1},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var cold []bool
				w.host.Script(func(s machine.Spec) fake.Script {
					cold = append(cold, s.Cold)
					return fake.Script{Create: func(context.Context) error { return test.err }}
				})
				s := w.serve()
				now := w.reach(w.start(s, "claude"), session.Failed)
				if now.Reason != test.reason || now.Attempt != test.attempts {
					t.Errorf("reason %q after %d attempts", now.Reason, now.Attempt)
				}
				progress, failed := 0, 0
				for _, e := range w.events() {
					if e.Kind == session.EventProgress {
						progress++
					}
				}
				vms, err := w.db.VMsOf(t.Context(), w.user)
				if err != nil {
					t.Fatal(err)
				}
				for _, vm := range vms {
					if vm.State == store.VMFailed {
						failed++
					}
				}
				if progress != test.attempts || failed != test.attempts || len(cold) != test.attempts {
					t.Errorf("%d attempts: %d told of, %d rows, %d tried", test.attempts, progress, failed, len(cold))
				}
				if test.attempts == 3 && (cold[0] || cold[1] || !cold[2]) {
					t.Errorf("started cold: %v; want the last attempt only", cold)
				}
				again(t, w, s)
			})
		})
	}
}

// TestStartsAtLast: what fails twice may still work.
func TestStartsAtLast(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		tries := 0
		w.host.Script(func(s machine.Spec) fake.Script {
			tries++
			switch {
			case s.Kind == machine.CLI:
				return fake.Script{}
			case tries == 1:
				return fake.Script{Create: func(context.Context) error { return errors.New("busy") }}
			case tries == 2:
				return fake.Script{Ack: func(a *guestapi.Ack) { a.Entropy = "" }}
			}
			return fake.Script{Login: signsIn(1)}
		})
		now := w.reach(w.start(w.serve(), "claude"), session.Completed)
		if now.Attempt != 3 {
			t.Errorf("attempt %d", now.Attempt)
		}
		w.quiet()
	})
}

func TestProviderGone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve()
		if _, _, err := s.StartSession(t.Context(), w.user, "nobody", "", guestapi.View{}); err == nil {
			t.Error("a session for an unknown provider")
		}
		id := session.NewID()
		if _, _, err := w.db.CreateSession(t.Context(), session.Session{ID: id, UserID: w.user, Provider: "gone", Deadline: time.Now().Add(time.Hour)}, ""); err != nil {
			t.Fatal(err)
		}
		now := w.reach(id, session.Failed)
		if now.Reason != session.ReasonProviderGone {
			t.Errorf("reason %q", now.Reason)
		}
		if n := w.host.Started(); n != 0 {
			t.Errorf("%d machines were started for it", n)
		}
		again(t, w, s)
	})
}

func TestDeliveryFails(t *testing.T) {
	creates := func(err error) fake.Script {
		return fake.Script{Create: func(context.Context) error { return err }}
	}
	for name, test := range map[string]struct {
		cli    fake.Script
		reason session.Reason
		end    session.State // failed, if empty
	}{
		"refused":           {refuses(guestapi.PathDeliver), session.ReasonDelivery, ""},
		"another hash":      {answers(guestapi.PathDeliver, `{"version":1,"sha256":"00"}`), session.ReasonDelivery, ""},
		"no acknowledgment": {answers(guestapi.PathDeliver, `{}`), session.ReasonDelivery, ""},
		"it does not start": {creates(errors.New("no such device")), session.ReasonDelivery, ""},
		"no memory":         {creates(machine.ErrNoMemory), session.ReasonNoMemory, ""},
		"disk full":         {creates(machine.ErrDiskFull), session.ReasonDiskFull, ""},
		"no room for a row": {fake.Script{}, session.ReasonDiskFull, ""},
		"it never starts": {fake.Script{Create: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}, session.ReasonExpired, session.Expired},
		"it lies": {fake.Script{Ack: func(a *guestapi.Ack) { a.MachineID = "somebody" }}, session.ReasonDelivery, ""},
		"it hangs": {overrides(guestapi.PathDeliver, func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		}), session.ReasonDelivery, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.script(fake.Script{Login: signsIn(1)}, test.cli)
				db := &failing{DB: w.db, err: store.ErrDiskFull, what: "own machine"}
				if name == "no room for a row" {
					db.until = time.Now().Add(time.Minute)
				}
				s := w.serve(func(c *control.Config) { c.Database = db })
				id := w.start(s, "claude")
				now := w.reach(id, cmp.Or(test.end, session.Failed))
				if now.Reason != test.reason || now.CredentialID == "" {
					t.Errorf("reason %q, credential %q", now.Reason, now.CredentialID)
				}
				// Whatever the reason, the person is told that they are stored.
				said := now.Reason.Sentence() + " " + now.Detail
				var last session.Event
				for _, e := range w.events() {
					if e.SessionID == id && e.Kind == session.EventState {
						last = e
					}
				}
				if !strings.Contains(said, "are stored") || !strings.Contains(said, "ress Deliver") || last.Message != strings.TrimSpace(said) {
					t.Errorf("the session says %q, its last event %q", said, last.Message)
				}
				w.quiet()
				<-time.After(time.Minute)
				c := w.active("claude")
				if c.ID != now.CredentialID || !c.DeliveredAt.IsZero() {
					t.Errorf("the credential: %+v", c)
				}
				// The machine is mended: pressing Deliver is enough.
				w.script(fake.Script{}, fake.Script{})
				for _, m := range w.host.Machines(machine.CLI) {
					m.Kill()
				}
				got, err := s.Deliver(t.Context(), w.user, c.ID)
				if err != nil || got.DeliveredTo != w.cli().ID() {
					t.Fatalf("deliver: %+v, %v", got, err)
				}
				if d, ok := w.cli().Delivered("claude"); !ok || d.Version != 1 {
					t.Errorf("the machine has %+v", d)
				}
			})
		})
	}
}
