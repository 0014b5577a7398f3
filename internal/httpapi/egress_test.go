package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/ways"
)

const testPort = "proxy.example:10001"

// world is where every upstream leaves from its port's own address, and
// refuses one host.
type world struct{}

func (world) Expect(string)                {}
func (world) Open(string, egress.Upstream) {}
func (world) Shut(string)                  {}
func (world) Fetch(_ context.Context, up egress.Upstream, _ string) ([]byte, error) {
	if up.Port() == 10002 {
		return nil, &egress.Error{Code: egress.UpstreamUnreachable}
	}
	return []byte("203.0.113.1"), nil
}
func (world) Reaches(_ context.Context, _ egress.Upstream, name string) error {
	if name == "refused.example" {
		return &egress.Error{Code: egress.UpstreamRefused}
	}
	return nil
}

func newOutward(t *testing.T, db *sqlite.DB, url egress.UpstreamURL) *ways.Ways {
	t.Helper()
	ups, err := egress.ParseUpstream(url)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ways.New(t.Context(), ways.Config{Database: db, Proxy: world{}, Upstreams: ups, Exit: ways.Exit{URL: "https://ip.example/"}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (r *rig) egress(p person) Egress {
	r.Helper()
	a := r.do("GET", "/api/v1/egress", "", bearer(p.token))
	var out Egress
	if err := json.Unmarshal([]byte(a.body), &out); err != nil || a.status != http.StatusOK {
		r.Fatalf("%d %s: %v", a.status, a.body, err)
	}
	return out
}

func TestEgress(t *testing.T) {
	r := newRig(t, nil)
	if out := r.egress(r.bob); out.Kind != EgressKindPort || out.Port != nil || out.Open {
		t.Errorf("with no port yet: %+v", out)
	}
	w := r.server.cfg.Outward.(*ways.Ways)
	w.Use(r.bob.user.ID)
	if _, err := w.Open(t.Context(), r.bob.user.ID, nil); err != nil {
		t.Fatal(err)
	}
	out := r.egress(r.bob)
	if !out.Open || out.Port == nil || *out.Port != testPort || out.ExitAddress == nil || *out.ExitAddress != "203.0.113.1" || *out.State != PortStateAssigned {
		t.Errorf("%+v", out)
	}
	admin := func(path, body string) answer {
		t.Helper()
		return r.do("POST", "/api/v1/egress/ports/"+path, body, bearer(r.alice.token))
	}
	if a := admin(testPort+"/quarantine", `{"reason":"looks odd"}`); a.status != http.StatusNoContent {
		t.Errorf("%d %s", a.status, a.body)
	}
	if out = r.egress(r.bob); out.Open || *out.State != PortStateQuarantined || *out.Reason != "looks odd" {
		t.Errorf("%+v", out)
	}
	r.problem(admin(testPort+"/assign", `{"user":"alice"}`), ProblemCodeConflict)
	r.problem(admin(testPort+"/assign", `{"user":"nobody"}`), ProblemCodeInvalidRequest)
	r.problem(admin("proxy.example:10009/assign", `{"user":"alice"}`), ProblemCodeNotFound)
	r.problem(admin(testPort+"/quarantine", `{"reason":""}`), ProblemCodeInvalidRequest)
	r.problem(admin(testPort+"/pin", `{"exit_address":"none"}`), ProblemCodeInvalidRequest)
	if a := admin(testPort+"/pin", `{"exit_address":"203.0.113.9"}`); a.status != http.StatusOK || !strings.Contains(a.body, "203.0.113.9") || !strings.Contains(a.body, `"bob"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := admin(testPort+"/check", ""); a.status != http.StatusOK || !strings.Contains(a.body, "refused.example") || !strings.Contains(a.body, "203.0.113.1") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := admin("proxy.example:10002/check", ""); a.status != http.StatusOK || !strings.Contains(a.body, `"problem":"exit_not_verified"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := admin("proxy.example:10002/assign", `{"user":"bob"}`); a.status != http.StatusOK {
		t.Errorf("%d %s", a.status, a.body)
	}
	list := r.do("GET", "/api/v1/egress/ports", "", bearer(r.alice.token))
	var ports PortList
	if err := json.Unmarshal([]byte(list.body), &ports); err != nil || len(ports.Ports) != 2 || ports.Shared {
		t.Fatalf("%s, %v", list.body, err)
	}
	if p := ports.Ports[1]; p.User == nil || *p.User != "bob" || p.State != PortStateAssigned {
		t.Errorf("%s", list.body)
	}
	if p := ports.Ports[0]; p.User != nil || p.State != PortStateFree || len(p.Refuses) == 0 || p.Refuses[0].Name != "refused.example" {
		t.Errorf("%s", list.body)
	}
	if strings.Contains(list.body, "hush") {
		t.Error("the upstream's password is in the answer")
	}
}

func TestSharedEgress(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Outward = newOutward(t, c.Auth.(*sqlite.DB), egress.Direct) })
	if out := r.egress(r.bob); out.Kind != EgressKindDirect {
		t.Errorf("%+v", out)
	}
	if a := r.do("GET", "/api/v1/egress/ports", "", bearer(r.alice.token)); !strings.Contains(a.body, `"shared":true`) {
		t.Errorf("%s", a.body)
	}
	r.problem(r.do("POST", "/api/v1/egress/ports/"+testPort+"/release", "{}", bearer(r.alice.token)), ProblemCodeConflict)
}
