package control_test

import (
	"bytes"
	"context"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
)

// TestLogIsLimited: a guest cannot fill the database with its tool's words,
// however it numbers them.
func TestLogIsLimited(t *testing.T) {
	lines := slices.Repeat([]string{"a line\x00\xff"}, 300)
	lines[0] = strings.Repeat("x", 2000)
	for name, number := range map[string]func(round int) int{
		"from the start": func(int) int { return 0 },
		"growing":        func(n int) int { return n * 100 },
		"far on":         func(int) int { return 1 << 62 },
		"at the end":     func(int) int { return math.MaxInt },
		"around the end": func(n int) int { return math.MaxInt - 100 + n },
		"negative":       func(n int) int { return -n * 10 },
		"back and forth": func(n int) int { return (n % 2) << 29 },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.script(fake.Script{Login: func(ctx context.Context, l *fake.Login) {
					for round := range 6 {
						l.Change(func(s *guestapi.AuthStatus) { s.Log, s.LogFrom = lines, number(round) })
						select {
						case <-ctx.Done():
						case <-time.After(time.Second):
						}
					}
					l.Capture(claudeFiles(1), "")
				}}, fake.Script{})
				w.reach(w.start(w.serve(), "claude"), session.Completed)
				n := 0
				for _, e := range w.events() {
					if e.Kind == session.EventLog {
						n++
						if len(e.Message) > 1024 || strings.Contains(e.Message, "\x00") || !utf8.ValidString(e.Message) {
							t.Fatalf("a line of %d bytes", len(e.Message))
						}
					}
				}
				if n > 200 {
					t.Errorf("%d lines were kept", n)
				}
			})
		})
	}
}

// TestNewsAllTheTime: a guest that answers every question at once is not asked
// as fast as it answers.
func TestNewsAllTheTime(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var asked atomic.Int64
		w.script(fake.Script{
			HTTP: func(agent http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if r.URL.Path == guestapi.PathStatus {
						asked.Add(1)
						r.URL.RawQuery = "" // never waits
					}
					agent.ServeHTTP(rw, r)
				})
			},
		}, fake.Script{})
		id := w.start(w.serve(), "claude")
		w.reach(id, session.Waiting)
		<-time.After(time.Minute)
		if n := asked.Load(); n == 0 || n > 15*60 {
			t.Errorf("it was asked %d times in a minute", n)
		}
	})
}

// TestGuestsWords: what a guest says of its failure is cut, and a reason that
// is not its to give is not taken over.
func TestGuestsWords(t *testing.T) {
	for given, want := range map[string]session.Reason{
		"expired": session.ReasonExpired, "tool_missing": session.ReasonToolMissing, "internal": session.ReasonInternal, "login_exited": session.ReasonLoginExited, "login_url_refused": session.ReasonLoginURL,
		"login_timeout": session.ReasonLoginTimeout, "capture_invalid": session.ReasonCaptureInvalid,
		"upstream_failed": session.ReasonUpstream,
		"disk_full":       session.ReasonLoginExited, "": session.ReasonLoginExited, "<script>": session.ReasonLoginExited,
	} {
		t.Run(given, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.script(fake.Script{Login: func(_ context.Context, l *fake.Login) {
					l.Fail(given, strings.Repeat("y", 100_000))
				}}, fake.Script{})
				end := session.Failed
				if want == session.ReasonExpired {
					end = session.Expired
				}
				now := w.reach(w.start(w.serve(), "claude"), end)
				if now.Reason != want || len(now.Detail) > 300 || now.Detail == "" {
					t.Errorf("reason %q, a detail of %d bytes", now.Reason, len(now.Detail))
				}
				w.quiet()
			})
		})
	}
}

// TestRefreshesAllTheTime: a machine that has something fresher in every round
// is not stored as often as that, the last of it within a minute.
func TestRefreshesAllTheTime(t *testing.T) {
	signedIn(t, func(t *testing.T, w *world, s *service) {
		n := 1
		for end := time.Now().Add(time.Hour); time.Now().Before(end); {
			n++
			w.cli().Refresh("claude", claudeFiles(n))
			<-time.After(5 * time.Second)
		}
		if c := w.active("claude"); c.Version < 60 || c.Version > 1+5+60 {
			t.Errorf("%d versions were stored in an hour", c.Version)
		}
		<-time.After(65 * time.Second)
		latest := func() bool { return bytes.Equal(w.opened(w.active("claude"))[0].Content, claudeFiles(n)[0].Content) }
		if !latest() {
			t.Error("the last one was not stored")
		}
		// Its owner's own requests do not wait.
		n++
		w.cli().Refresh("claude", claudeFiles(n))
		if err := s.DestroyMachine(t.Context(), w.user, w.cli().ID()); err != nil {
			t.Fatal(err)
		}
		if !latest() {
			t.Error("what was there when the machine was destroyed is lost")
		}
	})
}
