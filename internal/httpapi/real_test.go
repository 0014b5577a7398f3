package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	fakehost "github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/stream"
	"github.com/anteroom/anteroom/internal/vault"
)

// others are the ids of what else a person has at the real service: a session
// that has ended, a version that was replaced, browser machines.
type others struct{ sessions, creds, machines []string }

// realToken is in the credential files of both persons.
const realToken = "sk-secret-token"

// realRig is a rig before the real service, in which everything is real but the
// machines. Both persons have a session that waits for them, with its browser
// machine, and sessions that have completed, with a credential and a cli machine.
func realRig(t *testing.T) *rig {
	t.Helper()
	r := openRig(t)
	host := fakehost.NewHost("a build")
	t.Cleanup(host.Close)
	host.Script(func(machine.Spec) fakehost.Script { return fakehost.Script{Login: signIn} })
	dir := t.TempDir()
	sealed, err := vault.Open(vault.Config{KeyPath: filepath.Join(dir, "root.key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	providers, err := provider.Load("")
	if err != nil {
		t.Fatal(err)
	}
	service, err := control.New(control.Config{
		Database: r.db, Vault: sealed, Providers: providers, Egress: shut{}, Ways: newOutward(t, r.db, egress.Direct), Logger: r.logger(),
		Machines: machine.NewManager(fakehost.NewDriver(host), r.logger()),
		StateDir: dir, ImageID: "image", Build: "a build", Owner: "local",
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the service: %v", err)
		}
	})
	r.mount(service, nil)
	r.http.Start()
	r.alice, r.bob = r.realPerson(service, "alice"), r.realPerson(service, "bob")
	return r
}

// signIn is a person who signs in to claude at once, and to nothing else.
func signIn(_ context.Context, l *fakehost.Login) {
	l.Open("")
	if l.Request().Provider.Name == "claude" {
		l.Capture([]guestapi.File{{Name: "credentials.json", Content: []byte(`{"claudeAiOauth":{"accessToken":"` + realToken +
			`","refreshToken":"r","expiresAt":1900000000000,"scopes":["user:inference"],"subscriptionType":"max"}}`)}}, "person@example.com")
	}
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

func (r *rig) realPerson(service *control.Service, name string) person {
	r.Helper()
	u, err := r.db.CreateUser(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	p := person{user: u, token: r.secret(u, store.TokenAPI, time.Hour)}
	reach := func(providerName string, want session.State) session.Session {
		r.Helper()
		s, _, err := service.StartSession(r.Context(), u.ID, providerName, "", guestapi.View{})
		if err != nil {
			r.Fatal(err)
		}
		return r.reach(service, s.ID, want)
	}
	first, second := reach("claude", session.Completed), reach("claude", session.Completed)
	waiting := reach("codex", session.Waiting)
	cli, err := r.db.CLIMachine(r.Context(), u.ID)
	if err != nil {
		r.Fatal(err)
	}
	p.session, p.cred, p.machine = waiting.ID, second.CredentialID, cli.ID
	p.more = others{
		sessions: []string{string(first.ID)}, creds: []string{first.CredentialID},
		machines: []string{waiting.VMID, first.VMID},
	}
	return p
}

// reach waits until a session is in a state in which nothing more happens to it
// by itself, and no machine is left of it where it has ended.
func (r *rig) reach(service *control.Service, id session.ID, want session.State) session.Session {
	r.Helper()
	for {
		changed := service.Changed()
		s, err := r.db.Session(r.Context(), id)
		if err != nil {
			r.Fatal(err)
		}
		settled := s.State == want
		if settled && want == session.Completed {
			vm, err := r.db.VM(r.Context(), s.VMID)
			settled = err == nil && vm.State == store.VMDestroyed
		}
		if events, err := r.db.EventsAfter(r.Context(), s.UserID, id, 0, 0); err == nil && settled && want == session.Waiting {
			settled = events[len(events)-1].Kind == session.EventProgress // the page is open
		}
		if settled {
			return s
		}
		if s.State.Final() && s.State != want {
			r.Fatalf("the session is %s (%s)", s.State, s.Reason)
		}
		select {
		case <-changed:
		case <-testContext(r.T).Done():
			r.Fatalf("the session is %s, want %s", s.State, want)
		}
	}
}

// untouched returns a check that nothing has happened to a person's things.
func (r *rig) untouched(p person) func(*testing.T) {
	r.Helper()
	seq := func(t *testing.T) int64 {
		t.Helper()
		n, err := r.db.LatestSeq(t.Context(), p.user.ID)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := seq(r.T)
	return func(t *testing.T) {
		t.Helper()
		if seq(t) != before {
			t.Fatal("and it changed what is not theirs")
		}
	}
}

// ids are the ids of all that a person has.
func (p person) ids() []string {
	return slices.Concat([]string{p.user.ID}, bySession(p), byCred(p), byMachine(p))
}

// TestForeignThingsDoNotExist asks the real service, on every route, for what
// is another user's; then for the same as its owner.
func TestForeignThingsDoNotExist(t *testing.T) {
	r := realRig(t)
	check := r.untouched(r.alice)
	upgrade := header("Upgrade", "websocket")
	routes := generatedRoutes(t)
	for _, pattern := range routes {
		c, ok := routeCases[pattern]
		if !ok {
			t.Errorf("%s has no case", pattern)
		}
		if c.subject == nil {
			continue
		}
		method, path, _ := strings.Cut(strings.Replace(pattern, "{connection}", noConnection, 1), " ")
		for _, id := range c.subject(r.alice) {
			for _, q := range []string{"", "?after=0&cols=80&rows=24"} {
				t.Run(pattern+" "+id+q, func(t *testing.T) {
					rr := *r
					rr.T = t
					ask := func(id string) answer {
						return rr.do(method, strings.Replace(path, "{id}", id, 1)+q, c.body, bearer(r.bob.token), upgrade)
					}
					a := ask(id)
					rr.problem(a, ProblemCodeNotFound)
					check(t)
					// What does not exist at all is answered in the same words.
					for _, id := range []string{"aaaaaaaaaaaaaaaaaaaa", strings.Repeat("a", 65), "%2e%2e%2fx", "%00"} {
						if none := ask(id); none.status != a.status || none.body != a.body {
							t.Errorf("id %q: %d %s; a foreign one: %d %s", id, none.status, none.body, a.status, a.body)
						}
					}
				})
			}
		}
	}
	// The same requests are answered for whom the things belong to; those that
	// destroy them last.
	slices.SortStableFunc(routes, func(a, b string) int { return order(a) - order(b) })
	for _, pattern := range routes {
		if c := routeCases[pattern]; !c.public && !c.stream {
			method, path := r.address(pattern, c, r.alice)
			if a := r.do(method, path, c.body, bearer(r.alice.token)); a.status != c.want {
				t.Errorf("%s for its owner: %d %s, want %d", pattern, a.status, a.body, c.want)
			}
		}
	}
}

func order(pattern string) int {
	if strings.HasPrefix(pattern, "DELETE ") {
		return 1
	}
	return 0
}

// TestListsAreOnesOwn: no list, stream or repeated request of the real service
// has anything that is another user's, or any secret.
func TestListsAreOnesOwn(t *testing.T) {
	r := realRig(t)
	c, err := r.db.Credential(t.Context(), r.bob.cred)
	if err != nil {
		t.Fatal(err)
	}
	never := append(r.alice.ids(), realToken, base64.StdEncoding.EncodeToString([]byte(realToken)),
		base64.StdEncoding.EncodeToString(c.Sealed.Ciphertext), base64.StdEncoding.EncodeToString(c.Sealed.WrappedDEK))
	look := func(what, text, own string) {
		t.Helper()
		if !strings.Contains(text, own) {
			t.Errorf("%s of bob has nothing of bob's: %s", what, text)
		}
		for _, s := range never {
			if strings.Contains(text, s) {
				t.Errorf("%s of bob has %s", what, s)
			}
		}
	}
	for list, own := range map[string]string{
		"/api/v1/sessions": string(r.bob.session), "/api/v1/credentials": r.bob.cred, "/api/v1/machines": r.bob.machine, "/api/v1/me": r.bob.user.ID,
	} {
		look(list, r.do("GET", list, "", bearer(r.bob.token)).body, own)
	}
	last, err := r.db.LatestSeq(t.Context(), r.bob.user.ID)
	if err != nil {
		t.Fatal(err)
	}
	events := r.subscribe("/api/v1/events?after=0", bearer(r.bob.token))
	all := ""
	for e := (Event{}); e.Seq < last; {
		e, _ = events.next()
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text) + "\n"
	}
	look("the event stream", all, string(r.bob.session))

	r.problem(r.do("GET", "/api/v1/sessions?before="+string(r.alice.session), "", bearer(r.bob.token)), ProblemCodeNotFound)
	start := func(p person) string {
		a := r.do("POST", "/api/v1/sessions", `{"provider":"codex"}`, bearer(p.token), header("Idempotency-Key", "a key"))
		var s Session
		if err := json.Unmarshal([]byte(a.body), &s); err != nil || a.status != http.StatusCreated {
			t.Errorf("%d %s", a.status, a.body)
		}
		return s.ID
	}
	if start(r.alice) == start(r.bob) {
		t.Error("one user's key gives another's session")
	}
}

// TestForeignTickets: at the real service a ticket admits its owner only, to
// what it was made for, and nobody else can use it up.
func TestForeignTickets(t *testing.T) {
	r := realRig(t)
	check := r.untouched(r.alice)
	viewer, terminal := r.ticket(r.viewer(r.alice), r.alice.token), r.ticket(r.terminal(r.alice), r.alice.token)
	for name, tt := range map[string]struct{ path, token, ticket string }{
		"a viewer's, at bob's session":   {r.viewer(r.bob) + "/vnc", r.bob.token, viewer},
		"a terminal's, at bob's machine": {r.terminal(r.bob) + "/terminal", r.bob.token, terminal},
		"a viewer's, for a terminal":     {r.terminal(r.alice) + "/terminal", r.alice.token, viewer},
		"a terminal's, for a viewer":     {r.viewer(r.alice) + "/vnc", r.alice.token, terminal},
		"a viewer's, at bob's machine":   {r.terminal(r.bob) + "/terminal", r.bob.token, viewer},
		"a terminal's, at bob's session": {r.viewer(r.bob) + "/vnc", r.bob.token, terminal},
	} {
		t.Run(name, func(t *testing.T) {
			rr := *r
			rr.T = t
			rr.closedWith(rr.connect(tt.path, message1(tt.ticket), asBearer(tt.token)), stream.CodeBadTicket)
		})
	}
	for _, path := range []string{r.viewer(r.alice) + "/vnc", r.terminal(r.alice) + "/terminal"} {
		_, res, err := websocket.Dial(testContext(t), "ws"+strings.TrimPrefix(r.http.URL, "http")+path, &websocket.DialOptions{HTTPHeader: asBearer(r.bob.token)})
		if err == nil || res == nil || res.StatusCode != http.StatusNotFound {
			t.Errorf("bob at %s: %v", path, err)
		}
	}
	check(t)
	ws := r.connect(r.viewer(r.alice)+"/vnc", message1(viewer), asBearer(r.alice.token))
	if _, b, err := ws.Read(testContext(t)); err != nil || string(b) != fakehost.Greeting {
		t.Errorf("alice's screen says %q, %v", b, err)
	}
	// She is let into her terminal too; the fake's speaks no frames, which ends it.
	r.closedWith(r.connect(r.terminal(r.alice)+"/terminal", message1(terminal), asBearer(r.alice.token)), websocket.StatusTryAgainLater)
	for _, again := range []string{viewer, terminal} {
		r.closedWith(r.connect(r.viewer(r.alice)+"/vnc", message1(again), asBearer(r.alice.token)), stream.CodeBadTicket)
	}
	if log := r.log.String(); strings.Contains(log, realToken) || strings.Contains(log, viewer) || strings.Contains(log, terminal) {
		t.Error("a secret is in the log")
	}
}
