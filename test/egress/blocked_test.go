package egress

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/upstream"
)

// TestBlocked has upstreams refuse a host that one tool needs. Nobody is given
// such a port for that tool; for another it is as good as any; and who has it
// already is told which host was refused and keeps it.
func TestBlocked(t *testing.T) {
	const tool, refused = idp.Codex, "auth.openai.com"
	const known, unknown, good = 0, 3, 4 // upstreams; all but the last refuse it
	ctx := limit(t, 3*time.Minute)
	for n, up := range shared.ups[:good] {
		up.SetFault(upstream.Fault{Status: http.StatusForbidden, Host: refused})
		t.Cleanup(func() {
			up.SetFault(upstream.Fault{})
			must(t, shared.DB().PortRefuses(context.WithoutCancel(ctx), portKey(n), string(tool), ""))
		})
	}
	newcomer, settled := newPerson(t, ctx, "newcomer"), newPerson(t, ctx, "settled")

	// All but one of them are looked at by an administrator.
	for n := range unknown {
		checked(t, ctx, settled, n, string(tool), refused)
	}
	before := map[*upstream.Server]int{}
	for _, up := range shared.ups {
		before[up] = len(up.Asked())
	}
	newcomer.SignIn(t, ctx, tool)
	if _, n := newcomer.port(t, ctx); n != good {
		t.Errorf("the newcomer was given upstream %d", n)
	}
	for n, up := range shared.ups[:good] {
		asked := up.Asked()[before[up]:]
		if n != unknown && len(asked) > 0 {
			t.Errorf("upstream %d, which was known to refuse it, was asked for %v", n, asked)
		}
		if n == unknown && !slices.Contains(asked, upstream.Asked{To: refused + ":443", User: fmt.Sprintf("customer-%d", unknown)}) {
			t.Errorf("upstream %d was not asked for it, but for %v", n, asked)
		}
	}
	if p := row(t, ctx, unknown); p.State != store.PortFree || p.Refuses[string(tool)] != refused {
		t.Errorf("the port that refused is %+v", p)
	}

	settled.SignIn(t, ctx, idp.Claude)
	id := settled.Connect(t, ctx, tool)
	failed(t, ctx, settled, id, session.ReasonBlocked)
	detail := "Refused was " + refused + "."
	if _, sentence, err := settled.Page.Reason(ctx); err != nil || !strings.HasSuffix(sentence, detail) {
		t.Errorf("the page says %q, %v; want it to end with %q", sentence, err, detail)
	}
	if s, err := settled.Session(ctx, id); err != nil || s.Detail != detail {
		t.Errorf("the API says %q, %v", s.Detail, err)
	}
	if p, n := settled.port(t, ctx); n != known || p.State != store.PortAssigned {
		t.Errorf("they were moved to %+v", p)
	}

	// It is mended: an administrator's look is enough.
	shared.ups[known].SetFault(upstream.Fault{})
	checked(t, ctx, settled, known, string(tool), "")
	settled.SignIn(t, ctx, tool)
	if _, n := settled.port(t, ctx); n != known {
		t.Errorf("they were moved to upstream %d", n)
	}
}

// row is an upstream's row with what it is known to refuse.
func row(t *testing.T, ctx context.Context, n int) store.Port {
	t.Helper()
	all, err := shared.DB().Ports(ctx)
	must(t, err)
	i := slices.IndexFunc(all, func(p store.Port) bool { return p.PortKey == portKey(n) })
	if i < 0 {
		t.Fatalf("there is no row of upstream %d in %+v", n, all)
	}
	return all[i]
}

// checked has an upstream looked at by the API and the command line, and wants
// both to name what it refuses of a provider; "": nothing.
func checked(t *testing.T, ctx context.Context, admin someone, n int, provider, refused string) {
	t.Helper()
	port := portKey(n).String()
	_, err := shared.Command(ctx, "user", "admin", admin.Name)
	must(t, err)
	type refusal struct{ Provider, Name string }
	var want []refusal
	if refused != "" {
		want = []refusal{{provider, refused}}
	}
	var report struct {
		Problem string
		Refuses []refusal
	}
	must(t, admin.Call(ctx, http.MethodPost, "/egress/ports/"+port+"/check", nil, &report))
	if report.Problem != "" || !slices.Equal(report.Refuses, want) {
		t.Errorf("the API says of upstream %d %+v, want it to refuse %q", n, report, refused)
	}
	out, err := shared.Command(ctx, "egress", "check", port, "--listen", shared.door.Address())
	sentence := "it refuses " + refused + ", which " + provider + " needs"
	if (err != nil) != (refused != "") || !strings.Contains(out, port+" leaves from ") || strings.Contains(out, sentence) != (refused != "") {
		t.Errorf("the command line says of upstream %d %q, %v", n, out, err)
	}
}
