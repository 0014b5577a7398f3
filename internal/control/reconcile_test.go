package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/session"
)

// geminiFiles is what gemini writes.
func geminiFiles() []guestapi.File {
	return []guestapi.File{
		{Name: "oauth_creds.json", Content: []byte(`{"access_token":"a","refresh_token":"r","scope":"s","token_type":"Bearer","id_token":"i","expiry_date":1900000000000}`)},
		{Name: "google_accounts.json", Content: []byte(`{"active":"person@example.com","old":[]}`)},
	}
}

// withTwo is a world whose user has signed in to claude and to gemini, and whose
// cli machine is gone.
func withTwo(t *testing.T, test func(t *testing.T, w *world, s *service)) {
	t.Helper()
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: func(_ context.Context, l *fake.Login) {
			files := claudeFiles(1)
			if l.Request().Provider.Name == "gemini" {
				files = geminiFiles()
			}
			l.Capture(files, "person@example.com")
		}}, fake.Script{})
		s := w.serve()
		w.reach(w.start(s, "claude"), session.Completed)
		w.reach(w.start(s, "gemini"), session.Completed)
		w.quiet()
		if err := s.DestroyMachine(t.Context(), w.user, w.cli().ID()); err != nil {
			t.Fatal(err)
		}
		test(t, w, s)
	})
}

// holds waits until the user's cli machine has acknowledged the active versions
// of these providers, and has their files.
func (w *world) holds(providers ...string) {
	w.t.Helper()
	for _, name := range providers {
		w.eventually("the machine holds what is stored of "+name, func() bool {
			all := w.host.Machines(machine.CLI)
			if len(all) != 1 {
				return false
			}
			c := w.active(name)
			d, ok := all[0].Delivered(name)
			return ok && c.DeliveredTo == all[0].ID() && guestapi.DeliveryHash(d.Files) == guestapi.DeliveryHash(w.opened(c))
		})
	}
}

// delivery is what a request delivers, or takes away; false if it is another
// request. The body can be read again.
func delivery(r *http.Request) (in guestapi.Delivery, ok bool) {
	if r.URL.Path != guestapi.PathDeliver {
		return in, false
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	return in, json.Unmarshal(body, &in) == nil && in.Provider != nil
}

// TestClientLeaves: whoever asked for the machine leaves, or the server stops,
// while the machine is being handed its credentials. It gets them all the same.
func TestClientLeaves(t *testing.T) {
	for name, leave := range map[string]func(w *world, s *service, cancel func()){
		"client": func(_ *world, _ *service, cancel func()) { cancel() },
		"server": func(w *world, s *service, _ func()) { s.stop(); w.serve() },
	} {
		t.Run(name, func(t *testing.T) {
			withTwo(t, func(t *testing.T, w *world, s *service) {
				g := w.hold(session.Delivering)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					_, _ = s.EnsureMachine(ctx, w.user)
				}()
				<-time.After(time.Second)
				leave(w, s, cancel)
				<-ended
				if _, ok := w.cli().Delivered("claude"); ok {
					t.Fatal("it was not held up: the test shows nothing")
				}
				close(g.open)
				w.holds("claude", "gemini")
				if n := w.host.Started(); n != 4 {
					t.Errorf("%d machines were started, want 4", n)
				}
			})
		})
	}
}

// TestRefusingMachine: a machine that refuses one provider's files has the
// others, is asked again less and less often, and does not fill the log.
func TestRefusingMachine(t *testing.T) {
	withTwo(t, func(t *testing.T, w *world, s *service) {
		s.stop()
		var log bytes.Buffer
		s = w.serve(func(c *control.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		var asked atomic.Int64
		var willing atomic.Bool
		w.script(fake.Script{}, fake.Script{HTTP: func(agent http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if in, ok := delivery(r); ok && in.Provider.Name == "gemini" && !willing.Load() {
					asked.Add(1)
					http.Error(rw, "no", http.StatusConflict)
					return
				}
				agent.ServeHTTP(rw, r)
			})
		}})
		if _, err := s.EnsureMachine(t.Context(), w.user); err != nil {
			t.Fatal(err)
		}
		w.holds("claude")
		<-time.After(time.Minute)
		if n := asked.Load(); n < 2 || n > 5 {
			t.Errorf("it was asked %d times in the first minute", n)
		}
		<-time.After(time.Hour)
		if n := asked.Load(); n < 8 || n > 15 {
			t.Errorf("it was asked %d times in an hour", n)
		}
		willing.Store(true)
		<-time.After(20 * time.Minute)
		w.holds("gemini")
		s.stop()
		if n := strings.Count(log.String(), "handing over gemini"); n != 1 {
			t.Errorf("the log says %d times that it refuses:\n%s", n, log.String())
		}
	})
}

// TestAcknowledgementIsLost: a machine has the files and its tool has refreshed
// them, but that it acknowledged them was not written. Handing them over again
// must not put the older ones back.
func TestAcknowledgementIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		db := &failing{DB: w.db, err: errors.New("disk I/O error"), what: "delivered", until: time.Now().Add(time.Minute)}
		s := w.serve(func(c *control.Config) { c.Database = db })
		now := w.reach(w.start(s, "claude"), session.Failed)
		if now.Reason != session.ReasonDelivery || w.active("claude").DeliveredTo != "" {
			t.Fatalf("reason %q: the test shows nothing", now.Reason)
		}
		w.cli().Refresh("claude", claudeFiles(2))
		c := w.version(2)
		if !bytes.Equal(w.opened(c)[0].Content, claudeFiles(2)[0].Content) {
			t.Error("something else came back")
		}
		w.holds("claude")
		w.quiet()
	})
}

// TestDeletionReachesTheMachine: whatever happens while a credential is being
// deleted, its files are gone from the machine in the end, and are asked for no
// more. A request that was given up is none: the machine takes the files away
// once.
func TestDeletionReachesTheMachine(t *testing.T) {
	type deletion func(ctx context.Context, s *control.Service) // returns once it is answered
	for name, during := range map[string]func(w *world, s *service, remove deletion){
		"client leaves": func(w *world, s *service, remove deletion) {
			ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
			defer cancel()
			remove(ctx, s.Service)
		},
		"server stops": func(w *world, s *service, remove deletion) {
			time.AfterFunc(time.Second, s.stop)
			remove(w.t.Context(), s.Service)
			w.serve()
		},
		"not adopted yet": func(w *world, s *service, remove deletion) {
			s.stop()
			idle, err := control.New(w.config())
			if err != nil {
				w.t.Fatal(err)
			}
			remove(w.t.Context(), idle)
			w.serve()
		},
		"line breaks": func(w *world, s *service, remove deletion) {
			time.AfterFunc(time.Second, w.cli().BreakLine)
			remove(w.t.Context(), s.Service)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var taken atomic.Int64
				g := &gate{open: make(chan struct{})}
				w.script(fake.Script{Login: signsIn(1)}, fake.Script{HTTP: func(agent http.Handler) http.Handler {
					return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						if in, ok := delivery(r); ok && len(in.Files) == 0 {
							if g.pass(r.Context()) != nil {
								panic(http.ErrAbortHandler)
							}
							taken.Add(1)
						}
						agent.ServeHTTP(rw, r)
					})
				}})
				s := w.serve()
				w.reach(w.start(s, "claude"), session.Completed)
				c := w.active("claude")
				during(w, s, func(ctx context.Context, s *control.Service) {
					if err := s.DeleteCredential(ctx, w.user, c.ID); err != nil {
						t.Error(err)
					}
				})
				if _, ok := w.cli().Delivered("claude"); !ok {
					t.Fatal("it was not held up: the test shows nothing")
				}
				// That whoever asked has gone takes a moment to reach the machine,
				// which would take what it no longer has to if the gate were
				// opened in that moment: TestDeletionWithoutAnswer has that.
				synctest.Wait()
				close(g.open)
				w.takenAway("claude")
				if n := taken.Load(); n != 1 {
					t.Errorf("they were taken away %d times", n)
				}
			})
		})
	}
}

// takenAway waits until a provider's files are gone from the user's cli machine
// and nothing is to be taken away from it any more, then for as many rounds as
// would show that it is asked all the same.
func (w *world) takenAway(providerName string) {
	w.t.Helper()
	w.eventually("the files are gone", func() bool {
		_, has := w.cli().Delivered(providerName)
		left, err := w.db.LeftOn(w.t.Context(), w.user, w.cli().ID())
		if err != nil {
			w.t.Fatal(err)
		}
		return !has && len(left) == 0
	})
	<-time.After(2 * time.Minute)
}

// TestDeletionWithoutAnswer: a machine that has taken the files away, and whose
// answer is lost, is asked once more.
func TestDeletionWithoutAnswer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var taken atomic.Int64
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{HTTP: func(agent http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if in, ok := delivery(r); ok && len(in.Files) == 0 && taken.Add(1) == 1 {
					agent.ServeHTTP(httptest.NewRecorder(), r)
					panic(http.ErrAbortHandler)
				}
				agent.ServeHTTP(rw, r)
			})
		}})
		s := w.serve()
		w.reach(w.start(s, "claude"), session.Completed)
		if err := s.DeleteCredential(t.Context(), w.user, w.active("claude").ID); err != nil {
			t.Fatal(err)
		}
		w.takenAway("claude")
		if n := taken.Load(); n != 2 {
			t.Errorf("they were taken away %d times, want 2", n)
		}
	})
}

// TestNotAcknowledgedAndDeleted: files that came to the machine without its
// saying so are taken away as well.
func TestNotAcknowledgedAndDeleted(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.script(fake.Script{Login: signsIn(1)}, fake.Script{})
		db := &failing{DB: w.db, err: errors.New("disk I/O error"), what: "delivered", until: time.Now().Add(time.Hour)}
		s := w.serve(func(c *control.Config) { c.Database = db })
		w.reach(w.start(s, "claude"), session.Failed)
		if _, ok := w.cli().Delivered("claude"); !ok {
			t.Fatal("they did not come: the test shows nothing")
		}
		if err := s.DeleteCredential(t.Context(), w.user, w.active("claude").ID); err != nil {
			t.Fatal(err)
		}
		if _, ok := w.cli().Delivered("claude"); ok {
			t.Error("the machine still has the files")
		}
	})
}
