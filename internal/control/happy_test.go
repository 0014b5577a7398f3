package control_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

func TestSessionCompletes(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		s := w.serve()
		changed := s.Changed()
		id := w.start(s, "claude_code")
		done := w.reach(id, session.Completed)
		select {
		case <-changed:
		default:
			t.Error("nobody was told of the changes")
		}
		if done.Provider != "claude" || done.Attempt != 1 || done.Reason != "" || done.VMID == "" || done.ViewerURL != "/sessions/"+string(id) {
			t.Errorf("the session: %+v", done)
		}
		w.quiet()
		c := w.active("claude")
		if c.ID != done.CredentialID || c.Version != 1 || c.Account != "person@example.com" || c.SessionID != id {
			t.Errorf("the credential: %+v", c)
		}
		if !bytes.Equal(w.opened(c)[0].Content, claudeFiles(1)[0].Content) {
			t.Error("the vault holds something else than what the tool wrote")
		}
		d, ok := w.cli().Delivered("claude")
		if !ok || c.DeliveredTo != w.cli().ID() || d.CredentialID != c.ID || d.SessionID != string(id) || guestapi.DeliveryHash(d.Files) != guestapi.DeliveryHash(claudeFiles(1)) {
			t.Errorf("the machine has %+v, the row says %q", d, c.DeliveredTo)
		}
		vm, err := s.Machine(t.Context(), w.user, done.VMID)
		if err != nil || vm.State != store.VMDestroyed || vm.SessionID != id || !vm.Restored {
			t.Errorf("its machine's row: %+v, %v", vm, err)
		}
		w.eventually("the lease is given back", func() bool { return w.session(id).LeaseOwner == "" })
		checkEvents(t, w, id)
		s.stop()
		noSecrets(t, w)
	})
}

// checkEvents holds the events of a session that went well to what a page
// needs: all of them, once, in order.
func checkEvents(t *testing.T, w *world, id session.ID) {
	t.Helper()
	var states []session.State
	var kinds []session.EventKind
	last := int64(0)
	for _, e := range w.events() {
		if e.Seq <= last || e.UserID != w.user || e.Message == "" || e.At.IsZero() {
			t.Errorf("event %+v after %d", e, last)
		}
		last = e.Seq
		if kinds = append(kinds, e.Kind); e.Kind == session.EventState && e.SessionID == id {
			states = append(states, e.State)
		}
	}
	want := []session.State{session.Requested, session.Starting, session.Waiting, session.Capturing, session.Storing, session.Delivering, session.Completed}
	if !slices.Equal(states, want) {
		t.Errorf("states: %q", states)
	}
	for kind, n := range map[session.EventKind]int{
		session.EventMachineCreated: 2, session.EventMachineDestroyed: 1, session.EventLog: 2, session.EventProgress: 2,
		session.EventCredentialStored: 1, session.EventCredentialDelivered: 1,
	} {
		got := 0
		for _, k := range kinds {
			if k == kind {
				got++
			}
		}
		if got != n {
			t.Errorf("%d events %s, want %d: %q", got, kind, n, kinds)
		}
	}
}

// noSecrets looks for the tokens in everything below the state directory.
func noSecrets(t *testing.T, w *world) {
	t.Helper()
	err := filepath.Walk(w.dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte("sk-secret-token")) {
			t.Errorf("a token lies in %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		first, repeated, err := s.StartSession(t.Context(), w.user, "claude", "a key", guestapi.View{})
		if err != nil || repeated {
			t.Fatal(repeated, err)
		}
		second, repeated, err := s.StartSession(t.Context(), w.user, "claude", "a key", guestapi.View{})
		if err != nil || !repeated || second.ID != first.ID {
			t.Errorf("asked again: %v, repeated %v, %v", second.ID, repeated, err)
		}
		w.reach(first.ID, session.Waiting)
		if n := w.host.Started(); n != 1 {
			t.Errorf("%d machines were started", n)
		}
	})
}

func TestViewReachesTheMachine(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.hold(session.Waiting)
		s := w.serve()
		out, _, err := s.StartSession(t.Context(), w.user, "claude", "", guestapi.View{TimeZone: "Asia/Tokyo", Width: 400, Height: 700})
		if err != nil {
			t.Fatal(err)
		}
		w.reach(out.ID, session.Waiting)
		in := w.host.Machines(machine.Browser)[0].Configured()
		if in.TimeZone != "Asia/Tokyo" || in.Width != 400 || in.Height != 700 || in.Kind != "browser" {
			t.Errorf("configured with %+v", in)
		}
	})
}

// TestTwoAtOnce: two sessions for the same provider store their versions at
// the same time; both are kept, the later one is active and delivered.
func TestTwoAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Storing)
		s := w.serve()
		a, b := w.start(s, "claude"), w.start(s, "claude")
		w.reach(a, session.Storing)
		w.reach(b, session.Storing)
		close(g.open)
		w.reach(a, session.Completed)
		w.reach(b, session.Completed)
		w.quiet()
		c := w.active("claude")
		if c.Version != 2 || c.DeliveredTo != w.cli().ID() {
			t.Errorf("active: version %d, delivered to %q", c.Version, c.DeliveredTo)
		}
		if d, _ := w.cli().Delivered("claude"); d.Version != 2 {
			t.Errorf("the machine has version %d", d.Version)
		}
		all, err := s.Credentials(t.Context(), w.user)
		if err != nil || len(all) != 1 {
			t.Errorf("%d credentials, %v", len(all), err)
		}
	})
}

// TestManyAtOnce: no more machines are being started at a time than allowed,
// and every session has one of its own.
func TestManyAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		g := w.hold(session.Starting)
		s := w.serve()
		var ids []session.ID
		for range 10 {
			ids = append(ids, w.start(s, "claude"))
		}
		synctest.Wait()
		if n := w.host.Started(); n != 4 {
			t.Errorf("%d machines are being started at once, want 4", n)
		}
		close(g.open)
		seen := map[string]bool{}
		for _, id := range ids {
			done := w.reach(id, session.Completed)
			if seen[done.VMID] {
				t.Errorf("two sessions had machine %s", done.VMID)
			}
			seen[done.VMID] = true
		}
		w.quiet()
	})
}

// TestOpenedFilesAreCleared: what was decrypted for a delivery is not left in
// memory.
func TestOpenedFilesAreCleared(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		var lent []byte
		s := w.serve(func(c *control.Config) {
			c.Deliver = func(_ context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error) {
				if lent = in.Files[0].Content; !bytes.Equal(lent, claudeFiles(1)[0].Content) {
					t.Errorf("delivered: %s", lent)
				}
				return guestapi.DeliveryAck{CredentialID: in.CredentialID, Version: in.Version, SHA256: guestapi.DeliveryHash(in.Files)}, nil
			}
		})
		w.reach(w.start(s, "claude"), session.Completed)
		w.quiet()
		if len(lent) == 0 || bytes.Trim(lent, "\x00") != nil {
			t.Errorf("left in memory: %q", lent)
		}
		// There is one holder: no machine gets them too.
		if _, err := s.EnsureMachine(t.Context(), w.user); !errors.Is(err, control.ErrNoMachines) {
			t.Errorf("a machine: %v", err)
		}
	})
}

// TestUserCode: the code of a device flow is told when it comes, which may be
// after the page is open, once, and again only when it is another one.
func TestUserCode(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		codes := []string{"", "", "ABCD-1234", "ABCD-1234", "", "EFGH-5678"}
		for i := range 20 { // and a tool that makes up new ones all the time
			codes = append(codes, fmt.Sprint("LATER-", i))
		}
		w.script(fake.Script{Login: func(ctx context.Context, l *fake.Login) {
			for _, code := range codes {
				l.Open(code)
				select {
				case <-time.After(10 * time.Second):
				case <-ctx.Done():
					return
				}
			}
			l.Capture(claudeFiles(1), "")
		}}, fake.Script{})
		s := w.serve()
		id := w.start(s, "claude")
		w.reach(id, session.Waiting)
		<-time.After(35 * time.Second)
		s.stop()
		w.serve() // what was told is not told again
		w.reach(id, session.Completed)
		var told []string
		for _, e := range w.events() {
			if e.Kind == session.EventProgress && e.State == session.Waiting {
				told = append(told, e.Message)
			}
		}
		want := []string{
			"The sign-in page is open; sign in as you would on your own computer.", "The code to type in is ABCD-1234.",
			"The code to type in is EFGH-5678.", "The code to type in is LATER-0.", "The code to type in is LATER-1.", "The code to type in is LATER-2.",
		}
		if !slices.Equal(told, want) {
			t.Errorf("told: %q", told)
		}
	})
}

// TestUserCodeAtOnce: a code that is there with the page is told with it.
func TestUserCodeAtOnce(t *testing.T) {
	inWorld(t, func(_ *testing.T, w *world) {
		w.script(fake.Script{Login: func(_ context.Context, l *fake.Login) { l.Open("ABCD-1234") }}, fake.Script{})
		w.reach(w.start(w.serve(), "claude"), session.Waiting)
		w.eventually("it is told", func() bool {
			events := w.events()
			return strings.HasSuffix(events[len(events)-1].Message, "own computer. The code to type in is ABCD-1234.")
		})
	})
}
