package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

// routeCase is what the authorization test knows of one route.
type routeCase struct {
	public bool
	// subject are the ids that {id} may stand for, the best first; nil for routes
	// without.
	subject func(person) []string
	body    string
	want    int // the status for the owner
	stream  bool
	admin   bool // for an administrator, who alice is and bob is not
}

func bySession(p person) []string { return append([]string{string(p.session)}, p.more.sessions...) }
func byCred(p person) []string    { return append([]string{p.cred}, p.more.creds...) }
func byMachine(p person) []string { return append([]string{p.machine}, p.more.machines...) }

// routeCases has every route of the API: one that is missing here fails the
// test, so nobody adds a route without saying who may use it.
var routeCases = map[string]routeCase{
	"POST /api/v1/sessions":                 {body: `{"provider":"claude"}`, want: 201},
	"GET /api/v1/sessions":                  {want: 200},
	"GET /api/v1/sessions/{id}":             {subject: bySession, want: 200},
	"DELETE /api/v1/sessions/{id}":          {subject: bySession, want: 200},
	"GET /api/v1/sessions/{id}/events":      {subject: bySession, want: 200, stream: true},
	"POST /api/v1/sessions/{id}/tickets":    {subject: bySession, want: 201},
	"GET /api/v1/sessions/{id}/vnc":         {subject: bySession, want: 426},
	"GET /api/v1/sessions/{id}/webrtc":      {subject: bySession, want: 200},
	"POST /api/v1/sessions/{id}/webrtc":     {subject: bySession, want: 415},
	"GET /api/v1/events":                    {want: 200, stream: true},
	"GET /api/v1/providers":                 {want: 200},
	"GET /api/v1/credentials":               {want: 200},
	"GET /api/v1/credentials/{id}":          {subject: byCred, want: 200},
	"DELETE /api/v1/credentials/{id}":       {subject: byCred, want: 204},
	"POST /api/v1/credentials/{id}/deliver": {subject: byCred, want: 200},
	"GET /api/v1/machines":                  {want: 200},
	"POST /api/v1/machines":                 {want: 200},
	"GET /api/v1/machines/{id}":             {subject: byMachine, want: 200},
	"DELETE /api/v1/machines/{id}":          {subject: byMachine, want: 204},
	"POST /api/v1/machines/{id}/tickets":    {subject: byMachine, want: 201},
	"GET /api/v1/machines/{id}/terminal":    {subject: byMachine, want: 426},
	"GET /api/v1/egress":                    {want: 200},
	"GET /api/v1/egress/ports":              {want: 200, admin: true},
	"GET /api/v1/me":                        {want: 200},
	"POST /api/v1/login":                    {public: true, body: `{"code":"x"}`},
	"POST /api/v1/logout":                   {want: 204},
	"GET /healthz":                          {public: true},
	"GET /readyz":                           {public: true},
	"GET /metrics":                          {want: 200},

	"PATCH /api/v1/sessions/{id}/webrtc/{connection}":  {subject: bySession, want: 404},
	"DELETE /api/v1/sessions/{id}/webrtc/{connection}": {subject: bySession, want: 404},

	"POST /api/v1/egress/ports/{port}/assign":     {body: `{"user":"bob"}`, want: 200, admin: true},
	"POST /api/v1/egress/ports/{port}/release":    {body: `{}`, want: 204, admin: true},
	"POST /api/v1/egress/ports/{port}/quarantine": {body: `{"reason":"x"}`, want: 204, admin: true},
	"POST /api/v1/egress/ports/{port}/pin":        {body: `{}`, want: 404, admin: true}, // nobody has it yet
	"POST /api/v1/egress/ports/{port}/check":      {want: 200, admin: true},
}

// noConnection is what a connection's id looks like; nobody has it.
const noConnection = "AAAAAAAAAAAAAAAAAAAAAA"

// recorderMux collects the routes that the generated server registers.
type recorderMux struct {
	http.ServeMux
	patterns []string
}

func (m *recorderMux) HandleFunc(pattern string, _ func(http.ResponseWriter, *http.Request)) {
	m.patterns = append(m.patterns, pattern)
}

func generatedRoutes(t *testing.T) []string {
	t.Helper()
	var m recorderMux
	HandlerWithOptions(nil, StdHTTPServerOptions{BaseRouter: &m})
	if len(m.patterns) == 0 {
		t.Fatal("the generated server has no routes")
	}
	return m.patterns
}

func TestEveryRouteHasACase(t *testing.T) {
	routes := generatedRoutes(t)
	known := make(map[string]bool)
	for _, pattern := range routes {
		known[pattern] = true
		c, ok := routeCases[pattern]
		if !ok {
			t.Errorf("%s has no case in the authorization test", pattern)
		}
		if strings.Contains(pattern, "{id}") != (c.subject != nil) {
			t.Errorf("%s: whose {id} is it?", pattern)
		}
	}
	for pattern := range routeCases {
		if !known[pattern] {
			t.Errorf("%s is not a route", pattern)
		}
	}
}

func TestRoutesNeedAUser(t *testing.T) {
	r := newRig(t, nil)
	wrong := map[string]edit{
		"nothing":            func(*http.Request) {},
		"wrong token":        bearer("anteroom_wrong"),
		"empty token":        bearer(""),
		"very long token":    bearer(strings.Repeat("x", 9000)),
		"another scheme":     header("Authorization", "Basic "+r.alice.token),
		"a link as token":    bearer(r.secret(r.alice.user, store.TokenLink, time.Hour)),
		"a cookie as token":  bearer(r.secret(r.alice.user, store.TokenCookie, time.Hour)),
		"an expired token":   bearer(r.secret(r.alice.user, store.TokenAPI, -time.Hour)),
		"a token as cookie":  header("Cookie", cookiePlain+"="+r.alice.token),
		"secure cookie":      header("Cookie", cookieSecure+"="+r.secret(r.alice.user, store.TokenCookie, time.Hour)),
		"two cookies":        header("Cookie", cookiePlain+"="+r.secret(r.alice.user, store.TokenCookie, time.Hour)+"; "+cookiePlain+"=a"),
		"bad token and good": func(q *http.Request) { q.Header["Authorization"] = []string{"Bearer x", "Bearer " + r.alice.token} },
	}
	for _, pattern := range append(generatedRoutes(t), "GET /api/v1/nothing", "PUT /api/v1/sessions", "GET /api/") {
		c := routeCases[pattern]
		if c.public {
			continue
		}
		method, path := r.address(pattern, c, r.alice)
		for name, w := range wrong {
			t.Run(pattern+" "+name, func(t *testing.T) {
				rr := *r
				rr.T = t
				a := rr.do(method, path, c.body, w)
				rr.problem(a, ProblemCodeUnauthenticated)
				if a.header.Get("WWW-Authenticate") == "" {
					t.Error("no WWW-Authenticate")
				}
			})
		}
	}
	if strings.Contains(r.log.String(), r.alice.token) {
		t.Error("a token is in the log")
	}
}

// address puts a person's id into a pattern.
func (r *rig) address(pattern string, c routeCase, p person) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	if c.subject != nil {
		path = strings.Replace(path, "{id}", c.subject(p)[0], 1)
	}
	path = strings.Replace(path, "{port}", testPort, 1)
	path = strings.Replace(path, "{connection}", noConnection, 1)
	return method, path
}

// TestAdministratorsOnly: to others what is theirs does not exist, whether there
// is such a port or not.
func TestAdministratorsOnly(t *testing.T) {
	r := newRig(t, nil)
	before := r.do("GET", "/api/v1/egress/ports", "", bearer(r.alice.token))
	if before.status != http.StatusOK || !strings.Contains(before.body, testPort) {
		t.Fatalf("the administrator gets %d %s", before.status, before.body)
	}
	for _, pattern := range generatedRoutes(t) {
		c := routeCases[pattern]
		if strings.Contains(pattern, "{port}") != (c.admin && strings.Contains(pattern, "/ports/")) {
			t.Errorf("%s: who may use it?", pattern)
		}
		if !c.admin {
			continue
		}
		method, path := r.address(pattern, c, r.alice)
		for _, p := range []string{path, strings.Replace(path, testPort, "nowhere.example:1", 1), strings.Replace(path, testPort, "none", 1)} {
			r.problem(r.do(method, p, c.body, bearer(r.bob.token)), ProblemCodeNotFound)
		}
	}
	if after := r.do("GET", "/api/v1/egress/ports", "", bearer(r.alice.token)); after.body != before.body {
		t.Errorf("it was %s and is %s", before.body, after.body)
	}
}

func TestOwnersAreServed(t *testing.T) {
	for _, pattern := range generatedRoutes(t) {
		c := routeCases[pattern]
		if c.public || c.stream {
			continue
		}
		t.Run(pattern, func(t *testing.T) {
			r := newRig(t, nil) // of its own: some routes destroy
			method, path := r.address(pattern, c, r.alice)
			a := r.do(method, path, c.body, bearer(r.alice.token))
			if a.status != c.want {
				t.Fatalf("%d %s, want %d", a.status, a.body, c.want)
			}
			if strings.Contains(a.body, "CANARY") || strings.Contains(a.body, "Q0FOQVJZ") {
				t.Errorf("sealed parts or the driver's reference are in the answer: %s", a.body)
			}
			if pattern != "GET /metrics" && a.body != "" && a.header.Get("Cache-Control") != "no-store" {
				t.Error("the answer may be cached")
			}
		})
	}
}
