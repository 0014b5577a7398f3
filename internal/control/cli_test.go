package control_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// signedIn is a world whose user has signed in to claude.
func signedIn(t *testing.T, test func(t *testing.T, w *world, s *service)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		s := w.serve()
		w.reach(w.start(s, "claude"), session.Completed)
		w.quiet()
		test(t, w, s)
	})
}

// version waits until a version is active.
func (w *world) version(want int) store.Credential {
	w.t.Helper()
	var c store.Credential
	w.eventually("the version is stored", func() bool {
		c = w.active("claude")
		return c.Version == want
	})
	return c
}

func TestRefreshComesBack(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		first := w.active("claude")
		began := time.Now()
		w.cli().Refresh("claude", claudeFiles(2))
		c := w.version(2)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it came back after %s", took)
		}
		if !bytes.Equal(w.opened(c)[0].Content, claudeFiles(2)[0].Content) {
			t.Error("something else came back")
		}
		if c.DeliveredTo != w.cli().ID() || c.SessionID != first.SessionID || c.Account != first.Account {
			t.Errorf("the new version: %+v", c)
		}
		<-time.After(time.Minute)
		if c := w.active("claude"); c.Version != 2 {
			t.Errorf("without another refresh it became version %d", c.Version)
		}
		// The machine's copy is in memory only: what came back is what it gets again.
		w.cli().Kill()
		synctest.Wait()
		if _, err := s.EnsureMachine(t.Context(), w.user); err != nil {
			t.Fatal(err)
		}
		if d, _ := w.cli().Delivered("claude"); d.Version != 2 || !bytes.Equal(d.Files[0].Content, claudeFiles(2)[0].Content) {
			t.Errorf("the new machine has %+v", d)
		}
	})
}

// TestWorseIsNotTakenBack: an older or broken state never becomes a version.
func TestWorseIsNotTakenBack(t *testing.T) {
	for name, files := range map[string][]guestapi.File{
		"older":      claudeFiles(0),
		"signed out": nil,
		"blanked":    {{Name: "credentials.json", Content: []byte(`{"claudeAiOauth":{}}`)}},
		"half":       {{Name: "credentials.json", Content: []byte(`{"claudeAiOauth":{"acc`)}},
		"other":      {{Name: "other.json", Content: []byte(`{}`)}},
		"huge":       {{Name: "credentials.json", Content: bytes.Repeat([]byte("x"), 65<<10)}},
	} {
		t.Run(name, func(t *testing.T) {
			signedIn(t, func(t *testing.T, w *world, s *service) {
				w.cli().Refresh("claude", files)
				<-time.After(time.Minute)
				c := w.active("claude")
				if c.Version != 1 {
					t.Fatalf("it became version %d", c.Version)
				}
				// Delivering again mends what the tool has lost.
				if _, err := s.Deliver(t.Context(), w.user, c.ID); err != nil {
					t.Fatal(err)
				}
				if d, _ := w.cli().Delivered("claude"); !bytes.Equal(d.Files[0].Content, claudeFiles(1)[0].Content) {
					t.Errorf("the machine has %+v", d)
				}
			})
		})
	}
}

// TestDeliverTakesBackFirst: what a tool has just refreshed is not overwritten
// by what was stored before.
func TestDeliverTakesBackFirst(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		c := w.active("claude")
		w.cli().Refresh("claude", claudeFiles(5))
		got, err := s.Deliver(t.Context(), w.user, c.ID)
		if err != nil || got.Version != 2 || !got.Active || got.DeliveredTo != w.cli().ID() {
			t.Fatalf("delivered: %+v, %v", got, err)
		}
		d, _ := w.cli().Delivered("claude")
		if !bytes.Equal(d.Files[0].Content, claudeFiles(5)[0].Content) {
			t.Errorf("the machine has %s", d.Files[0].Content)
		}
		if now := w.active("claude"); now.Version != 2 {
			t.Errorf("version %d is active", now.Version)
		}
	})
}

// TestDeliverReplaced: a version that is not the newest any more is not
// delivered, and nothing else in its place.
func TestDeliverReplaced(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		old := w.active("claude")
		w.reach(w.start(s, "claude"), session.Completed)
		w.version(2)
		n := w.cli().Deliveries()
		if _, err := s.Deliver(t.Context(), w.user, old.ID); !errors.Is(err, store.ErrReplaced) || !errors.Is(err, store.ErrConflict) {
			t.Errorf("delivering version 1: %v", err)
		}
		if w.cli().Deliveries() != n {
			t.Error("something was delivered")
		}
		if c, err := s.Credential(t.Context(), w.user, old.ID); err != nil || c.Active || c.Version != 1 {
			t.Errorf("what is known of it: %+v, %v", c, err)
		}
	})
}

func TestDestroyTakesBackFirst(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		old := w.cli()
		note := filepath.Join(old.Spec().Home, "note")
		if err := os.WriteFile(note, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		old.Refresh("claude", claudeFiles(3))
		if err := s.DestroyMachine(t.Context(), w.user, old.ID()); err != nil {
			t.Fatal(err)
		}
		if left := w.host.Machines(machine.CLI); len(left) > 0 {
			t.Fatalf("%d machines are left", len(left))
		}
		if err := s.DestroyMachine(t.Context(), w.user, old.ID()); err != nil {
			t.Errorf("destroyed again: %v", err)
		}
		w.version(2)
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil || vm.ID == old.ID() {
			t.Fatalf("%+v, %v", vm, err)
		}
		if d, _ := w.cli().Delivered("claude"); d.Version != 2 {
			t.Errorf("the new machine has version %d", d.Version)
		}
		if b, err := os.ReadFile(filepath.Join(w.cli().Spec().Home, "note")); string(b) != "mine" {
			t.Errorf("its home holds %q, %v", b, err)
		}
	})
}

func TestEnsureMachineOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.serve()
		ids := make(chan string, 5)
		for range cap(ids) {
			go func() {
				vm, err := s.EnsureMachine(t.Context(), w.user)
				if err != nil {
					t.Error(err)
				}
				ids <- vm.ID
			}()
		}
		first := <-ids
		for range cap(ids) - 1 {
			if id := <-ids; id != first {
				t.Errorf("machines %s and %s", first, id)
			}
		}
		if n := w.host.Started(); n != 1 {
			t.Errorf("%d machines were started", n)
		}
		live, err := s.Machines(t.Context(), w.user)
		if err != nil || len(live) != 1 || live[0].ID != first {
			t.Errorf("machines: %+v, %v", live, err)
		}
	})
}

// TestCLIMachineDies: its row says so, and at need there is another.
func TestCLIMachineDies(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		first := w.cli().ID()
		w.cli().Kill()
		w.eventually("it is cleared away", func() bool {
			vm, err := s.Machine(t.Context(), w.user, first)
			return err == nil && vm.State == store.VMFailed && len(w.host.Machines(machine.CLI)) == 0
		})
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil || vm.ID == first {
			t.Errorf("%+v, %v", vm, err)
		}
	})
}

func TestDeleteCredential(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		c := w.active("claude")
		if err := s.DeleteCredential(t.Context(), w.user, c.ID); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.cli().Delivered("claude"); ok {
			t.Error("the machine still has the files")
		}
		if _, err := s.Credential(t.Context(), w.user, c.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("it is still there: %v", err)
		}
		if err := s.DeleteCredential(t.Context(), w.user, c.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("deleted again: %v", err)
		}
		if _, err := s.Deliver(t.Context(), w.user, c.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("delivered after that: %v", err)
		}
		// Its tool goes on refreshing what it still holds: that comes back to nothing.
		w.cli().Refresh("claude", claudeFiles(8))
		<-time.After(time.Minute)
		if all, err := s.Credentials(t.Context(), w.user); err != nil || len(all) > 0 {
			t.Errorf("credentials: %+v, %v", all, err)
		}
		w.reach(w.start(s, "claude"), session.Completed)
	})
}

func TestDeleteWithoutMachine(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		c := w.active("claude")
		if err := s.DestroyMachine(t.Context(), w.user, w.cli().ID()); err != nil {
			t.Fatal(err)
		}
		if err := s.DeleteCredential(t.Context(), w.user, c.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.EnsureMachine(t.Context(), w.user); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.cli().Delivered("claude"); ok {
			t.Error("a new machine gets what was deleted")
		}
	})
}

// hears reads the greeting of a stream and closes it.
func hears(t *testing.T, stream io.ReadWriteCloser) {
	t.Helper()
	hello := make([]byte, len(fake.Greeting))
	if _, err := io.ReadFull(stream, hello); err != nil || string(hello) != fake.Greeting {
		t.Errorf("the stream says %q, %v", hello, err)
	}
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
}

func TestTickets(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Waiting)
		s := w.serve()
		one, two := w.start(s, "claude"), w.start(s, "codex")
		w.reach(one, session.Waiting)
		w.reach(two, session.Waiting)
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil {
			t.Fatal(err)
		}
		ticket := func() string {
			t.Helper()
			secret, expires, err := s.ViewerTicket(t.Context(), w.user, one)
			if err != nil || time.Until(expires) > 30*time.Second {
				t.Fatalf("expires in %s, %v", time.Until(expires), err)
			}
			return secret
		}
		good := ticket()
		stream, err := s.OpenViewer(t.Context(), w.user, one, good)
		if err != nil {
			t.Fatal(err)
		}
		hears(t, stream)
		late := ticket()
		<-time.After(31 * time.Second)
		stranger := w.newUser("stranger")
		for name, try := range map[string]func() (io.ReadWriteCloser, error){
			"used":            func() (io.ReadWriteCloser, error) { return s.OpenViewer(t.Context(), w.user, one, good) },
			"late":            func() (io.ReadWriteCloser, error) { return s.OpenViewer(t.Context(), w.user, one, late) },
			"none":            func() (io.ReadWriteCloser, error) { return s.OpenViewer(t.Context(), w.user, one, "") },
			"another session": func() (io.ReadWriteCloser, error) { return s.OpenViewer(t.Context(), w.user, two, ticket()) },
			"another user":    func() (io.ReadWriteCloser, error) { return s.OpenViewer(t.Context(), stranger, one, ticket()) },
			"a terminal": func() (io.ReadWriteCloser, error) {
				return s.OpenTerminal(t.Context(), w.user, vm.ID, ticket(), 80, 24)
			},
		} {
			if stream, err := try(); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("a ticket that is %s: %v, %v", name, stream, err)
			}
		}
		terminal, _, err := s.TerminalTicket(t.Context(), w.user, vm.ID)
		if err != nil {
			t.Fatal(err)
		}
		stream, err = s.OpenTerminal(t.Context(), w.user, vm.ID, terminal, 80, 24)
		if err != nil {
			t.Fatal(err)
		}
		hears(t, stream)
		if _, _, err := s.TerminalTicket(t.Context(), w.user, w.session(one).VMID); !errors.Is(err, machine.ErrGone) {
			t.Errorf("a terminal of a browser machine: %v", err)
		}
		held := ticket()
		close(g.open)
		w.reach(one, session.Completed)
		if _, err := s.OpenViewer(t.Context(), w.user, one, held); !errors.Is(err, session.ErrConflict) {
			t.Errorf("the screen of a session that has ended: %v", err)
		}
		if _, _, err := s.ViewerTicket(t.Context(), w.user, one); !errors.Is(err, session.ErrConflict) {
			t.Errorf("a ticket for a session that has ended: %v", err)
		}
	})
}

// TestTerminalWaitsForItsMachine: right after a restart the server has not
// attached to the cli machine yet. A terminal waits for that, but not for ever.
func TestTerminalWaitsForItsMachine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := &gate{open: make(chan struct{})}
		w.script(fake.Script{}, fake.Script{HTTP: g.requests("POST "+guestapi.PathConfigure, 2)})
		s := w.serve()
		vm, err := s.EnsureMachine(t.Context(), w.user)
		if err != nil {
			t.Fatal(err)
		}
		ticket := func() string {
			t.Helper()
			secret, _, err := s.TerminalTicket(t.Context(), w.user, vm.ID)
			if err != nil {
				t.Fatal(err)
			}
			return secret
		}
		patient, late := ticket(), ticket()
		s.stop()
		s = w.serve() // and it adopts the machine, which does not answer yet

		began := time.Now()
		if _, err := s.OpenTerminal(t.Context(), w.user, vm.ID, late, 80, 24); !errors.Is(err, session.ErrNotReady) {
			t.Errorf("a machine that is never attached: %v", err)
		}
		if _, _, err := s.TerminalTicket(t.Context(), w.user, vm.ID); !errors.Is(err, session.ErrNotReady) {
			t.Errorf("a ticket for it: %v", err)
		}
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("two waits took %s, want 5 s each", took)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := s.TerminalTicket(gone, w.user, vm.ID); !errors.Is(err, context.Canceled) {
			t.Errorf("somebody who has left: %v", err)
		}

		opened := make(chan struct{})
		go func() {
			defer close(opened)
			stream, err := s.OpenTerminal(t.Context(), w.user, vm.ID, patient, 80, 24)
			if err != nil {
				t.Error(err)
				return
			}
			hears(t, stream)
		}()
		<-time.After(time.Second)
		select {
		case <-opened:
			t.Error("it was not held up: the test shows nothing")
		default:
		}
		close(g.open)
		<-opened
		if n := w.host.Started(); n != 1 {
			t.Errorf("%d machines were started, want 1", n)
		}

		if err := s.DestroyMachine(t.Context(), w.user, vm.ID); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if _, _, err := s.TerminalTicket(t.Context(), w.user, vm.ID); !errors.Is(err, machine.ErrGone) {
			t.Errorf("a machine that is gone: %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("that took %s", took)
		}
	})
}

// TestOthersThings: what belongs to one user does not exist for another.
func TestOthersThings(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		s := w.serve()
		w.reach(w.start(s, "claude"), session.Completed)
		w.hold(session.Waiting)
		id := w.start(s, "claude")
		vmID := w.reach(id, session.Waiting).VMID
		c, cli := w.active("claude").ID, w.cli().ID()
		ctx, other := t.Context(), w.newUser("other")
		for name, try := range map[string]func() error{
			"session":         func() error { _, err := s.Session(ctx, other, id); return err },
			"cancel":          func() error { _, err := s.Cancel(ctx, other, id); return err },
			"page of":         func() error { _, err := s.Sessions(ctx, other, 10, id); return err },
			"credential":      func() error { _, err := s.Credential(ctx, other, c); return err },
			"delete":          func() error { return s.DeleteCredential(ctx, other, c) },
			"deliver":         func() error { _, err := s.Deliver(ctx, other, c); return err },
			"browser machine": func() error { _, err := s.Machine(ctx, other, vmID); return err },
			"cli machine":     func() error { _, err := s.Machine(ctx, other, cli); return err },
			"destroy":         func() error { return s.DestroyMachine(ctx, other, cli) },
			"viewer ticket":   func() error { _, _, err := s.ViewerTicket(ctx, other, id); return err },
			"terminal ticket": func() error { _, _, err := s.TerminalTicket(ctx, other, cli); return err },
		} {
			if err := try(); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
		for name, n := range map[string]func() int{
			"sessions":    func() int { out, _ := s.Sessions(ctx, other, 10, ""); return len(out) },
			"credentials": func() int { out, _ := s.Credentials(ctx, other); return len(out) },
			"machines":    func() int { out, _ := s.Machines(ctx, other); return len(out) },
			"events":      func() int { out, _ := s.EventsAfter(ctx, other, "", 0, 100); return len(out) },
			"one's":       func() int { out, _ := s.EventsAfter(ctx, other, id, 0, 100); return len(out) },
		} {
			if got := n(); got != 0 {
				t.Errorf("another user sees %d %s", got, name)
			}
		}
		if err := s.DestroyMachine(ctx, w.user, vmID); !errors.Is(err, store.ErrConflict) {
			t.Errorf("destroying a session's machine apart from it: %v", err)
		}
	})
}
