package control_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/vault"
	"github.com/anteroom/anteroom/internal/ways"
)

const build = "a build"

// world is what outlives a service: the database, the host with its machines,
// the vault. Everything in it is real but the machines.
type world struct {
	t         *testing.T
	dir       string
	host      *fake.Host
	db        *sqlite.DB
	vault     *vault.Vault
	providers *provider.Set
	user      string
}

// inWorld runs a test in a bubble, with a new world.
func inWorld(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	fake.Bubble(t, func(t *testing.T) {
		w := &world{t: t, dir: t.TempDir(), host: fake.NewHost(build)}
		t.Cleanup(w.host.Close)
		var err error
		if w.db, err = sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(w.dir, "anteroom.db")}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.db.Close(); err != nil {
				t.Error(err)
			}
		})
		if w.vault, err = vault.Open(vault.Config{KeyPath: filepath.Join(w.dir, "root.key"), Create: true}); err != nil {
			t.Fatal(err)
		}
		if w.providers, err = provider.Load(""); err != nil {
			t.Fatal(err)
		}
		w.user = w.newUser("owner")
		test(t, w)
	})
}

func (w *world) newUser(name string) string {
	w.t.Helper()
	u, err := w.db.CreateUser(w.t.Context(), name)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.ID
}

// shut is an egress through which nothing leaves.
type shut struct{}

func (shut) Serve(_ context.Context, _ egress.Identity, streams net.Listener) error {
	for {
		conn, err := streams.Accept()
		if err != nil {
			return nil
		}
		_ = conn.Close()
	}
}

// openWays is a way out that is always open, from one address.
type openWays struct{}

const exitAddress = "203.0.113.7"

func (openWays) Use(string)  {}
func (openWays) Done(string) {}
func (openWays) Open(context.Context, string, *provider.File) (ways.Way, error) {
	return ways.Way{ExitAddress: exitAddress}, nil
}

// service is a service that runs.
type service struct {
	*control.Service
	stop func() // returns when it has ended; idempotent
}

func (w *world) config() control.Config {
	logger := slog.New(slog.DiscardHandler)
	return control.Config{
		Database: w.db, Vault: w.vault, Providers: w.providers, Egress: shut{}, Ways: openWays{}, Logger: logger,
		Machines: machine.NewManager(fake.NewDriver(w.host), logger),
		StateDir: w.dir, ImageID: "image", Build: build, Locale: "en_US", Languages: "en-US,en", Owner: "local",
	}
}

// serve starts a service over the world; it is stopped at the test's end.
func (w *world) serve(change ...func(*control.Config)) *service {
	w.t.Helper()
	cfg := w.config()
	for _, c := range change {
		c(&cfg)
	}
	s, err := control.New(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the service: %v", err)
		}
	})
	w.t.Cleanup(stop)
	synctest.Wait()
	return &service{s, stop}
}

// script says what browser and cli machines do from now on.
func (w *world) script(browser, cli fake.Script) {
	w.host.Script(func(s machine.Spec) fake.Script {
		if s.Kind == machine.CLI {
			return cli
		}
		return browser
	})
}

// start asks for a session.
func (w *world) start(s *service, providerName string) session.ID {
	w.t.Helper()
	out, _, err := s.StartSession(w.t.Context(), w.user, providerName, "", guestapi.View{})
	if err != nil {
		w.t.Fatal(err)
	}
	return out.ID
}

// eventually lets time pass until cond holds; it fails after an hour. It looks
// every 50 ms, and what takes long less often: each look is work, and a test may
// be about minutes.
func (w *world) eventually(what string, cond func() bool) {
	w.t.Helper()
	for began := time.Now(); ; {
		synctest.Wait()
		if cond() {
			return
		}
		passed := time.Since(began)
		if passed > time.Hour {
			w.t.Fatalf("in vain: %s", what)
		}
		<-time.After(min(max(passed/20, 50*time.Millisecond), time.Second))
	}
}

func (w *world) session(id session.ID) session.Session {
	w.t.Helper()
	out, err := w.db.Session(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// reach lets time pass until the session is in a state, and fails if it ends in
// another.
func (w *world) reach(id session.ID, want session.State) session.Session {
	w.t.Helper()
	var now session.Session
	w.eventually(fmt.Sprintf("session %s", want), func() bool {
		now = w.session(id)
		if now.State.Final() && now.State != want {
			w.t.Fatalf("the session is %s (%s: %s), want %s", now.State, now.Reason, now.Detail, want)
		}
		return now.State == want
	})
	return now
}

// quiet checks that no browser machine is left, on the host or in the rows,
// once whoever clears away has had the time to.
func (w *world) quiet() {
	w.t.Helper()
	w.eventually("no browser machine is left", func() bool {
		live, err := w.db.LiveVMs(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		for _, vm := range live {
			if vm.Kind == string(machine.Browser) {
				return false
			}
		}
		return len(w.host.Machines(machine.Browser)) == 0
	})
}

// cli is the user's cli machine on the host.
func (w *world) cli() *fake.Machine {
	w.t.Helper()
	all := w.host.Machines(machine.CLI)
	if len(all) != 1 {
		w.t.Fatalf("there are %d cli machines", len(all))
	}
	return all[0]
}

// events are all events of the user.
func (w *world) events() []session.Event {
	w.t.Helper()
	out, err := w.db.EventsAfter(w.t.Context(), w.user, "", 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// active is the active version of the user's credential, or fails.
func (w *world) active(providerName string) store.Credential {
	w.t.Helper()
	c, err := w.db.ActiveCredential(w.t.Context(), w.user, providerName)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// opened are the files of a version.
func (w *world) opened(c store.Credential) []guestapi.File {
	w.t.Helper()
	files, err := w.vault.Open(vault.BindingOf(c), c.Sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	out := make([]guestapi.File, len(files))
	for i, f := range files {
		out[i] = guestapi.File{Name: f.Name, Content: f.Content}
	}
	return out
}

// token is the text that must not be found where secrets do not belong.
func token(n int) string { return fmt.Sprintf("sk-secret-token-number-%d", n) }

// claudeFiles is what claude writes at its n-th refresh.
func claudeFiles(n int) []guestapi.File {
	return []guestapi.File{{Name: "credentials.json", Content: fmt.Appendf(nil,
		`{"claudeAiOauth":{"accessToken":%q,"refreshToken":"r%d","expiresAt":%d,"scopes":["user:inference"],"subscriptionType":"max"}}`,
		token(n), n, time.Date(2030, 1, 1, n, 0, 0, 0, time.UTC).UnixMilli())}}
}

// signsIn is a tool and a person that do all as they should.
func signsIn(n int) func(context.Context, *fake.Login) {
	return func(ctx context.Context, l *fake.Login) {
		l.Print("Opening the browser")
		l.Open("")
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
		l.Print("Signed in")
		l.Capture(claudeFiles(n), "person@example.com")
	}
}

// gate holds a session in a state until it is opened.
type gate struct {
	state session.State
	open  chan struct{}
}

var errHeld = errors.New("it was held until the end")

// pass waits for the gate or the context's end.
func (g *gate) pass(ctx context.Context) error {
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return errHeld
	}
}

// requests holds one machine's requests of one route, from the nth on.
func (g *gate) requests(pattern string, nth int) func(http.Handler) http.Handler {
	var mu sync.Mutex
	seen := 0
	return func(agent http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method+" "+r.URL.Path == pattern {
				mu.Lock()
				seen++
				held := seen >= nth
				mu.Unlock()
				if held && g.pass(r.Context()) != nil {
					panic(http.ErrAbortHandler) // no answer, rather than an empty one
				}
			}
			agent.ServeHTTP(w, r)
		})
	}
}

// working are the states in which a session can be held.
var working = []session.State{session.Starting, session.Waiting, session.Capturing, session.Storing, session.Delivering}

// hold has machines that hold every session in a state.
func (w *world) hold(state session.State) *gate {
	g := &gate{state: state, open: make(chan struct{})}
	w.host.Script(func(spec machine.Spec) fake.Script { return g.script(spec.Kind) })
	return g
}

// script is what one machine does at the gate.
func (g *gate) script(kind machine.Kind) fake.Script {
	if kind == machine.CLI {
		if g.state == session.Delivering {
			return fake.Script{HTTP: g.requests("POST "+guestapi.PathDeliver, 1)}
		}
		return fake.Script{}
	}
	s := fake.Script{Login: signsIn(1)}
	switch g.state {
	case session.Starting:
		s.Create = g.pass
	case session.Waiting:
		s.Login = func(ctx context.Context, l *fake.Login) {
			l.Open("")
			if g.pass(ctx) == nil {
				l.Capture(claudeFiles(1), "person@example.com")
			}
		}
	case session.Capturing:
		s.HTTP = g.requests("GET "+guestapi.PathCredentials, 1)
	case session.Storing:
		s.HTTP = g.requests("GET "+guestapi.PathCredentials, 2)
	}
	return s
}
