package egress

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/network"
)

// prompts asks each of the real tools one thing.
var prompts = map[idp.Provider]string{
	idp.Claude: "claude -p hello",
	idp.Codex:  "codex exec --skip-git-repo-check hello",
	idp.Gemini: "gemini --skip-trust -p hello",
}

// TestTwoUsers has two people sign in to each tool and use it, at the same time,
// and checks that the destinations see each of them come from their own address,
// and no other.
func TestTwoUsers(t *testing.T) {
	ctx := limit(t, 4*time.Minute)
	two := []someone{newPerson(t, ctx, "ann"), newPerson(t, ctx, "ben")}
	c := capture(t, shared.ups...)
	seen := len(shared.IDP.Events())
	asked := len(shared.IDP.Requests())
	together(t, two, func(t *testing.T, who someone) {
		for _, provider := range idp.Providers() {
			began := time.Now()
			id := who.SignIn(t, ctx, provider)
			t.Logf("%s has signed in to %s after %.1fs", who.Name, provider, time.Since(began).Seconds())
			_, n := who.port(t, ctx)
			if got, err := who.Session(ctx, id); err != nil || got.ExitAddress != network.ExitAddr(n).String() {
				t.Errorf("the API says that %s leaves from %q (%v), want %s", who.Name, got.ExitAddress, err, network.ExitAddr(n))
			}
			if out := who.Run(t, ctx, prompts[provider]); !strings.Contains(out, provider.Answer()) {
				t.Errorf("%s: %q; want %q", prompts[provider], out, provider.Answer())
			}
		}
	})
	exits := map[string]string{} // by email address
	for _, who := range two {
		_, n := who.port(t, ctx)
		exits[who.Email()] = network.ExitAddr(n).String()
	}
	if exits[two[0].Email()] == exits[two[1].Email()] {
		t.Fatalf("both leave from %v", exits)
	}
	t.Run("the page and the tools", func(t *testing.T) { eventsFrom(t, shared.IDP.Events()[seen:], exits) })
	t.Run("nobody else", func(t *testing.T) { requestsFrom(t, shared.IDP.Requests()[asked:], exits) })
	t.Run("curl", func(t *testing.T) {
		together(t, two, func(t *testing.T, who someone) {
			wantExit(t, who.Run(t, ctx, "curl -sS https://"+exitSite+"/json"), exits[who.Email()])
			wantExit(t, who.Run(t, ctx, "curl -sS http://"+exitSite+"/json"), exits[who.Email()])
		})
	})
	t.Run("curl without the proxy", func(t *testing.T) {
		together(t, two, func(t *testing.T, who someone) {
			wantExit(t, who.Run(t, ctx, "curl -sS --noproxy '*' https://"+exitSite+"/json"), exits[who.Email()])
		})
	})
	clean(t, ctx, c)
}

// together calls f for each person at the same time.
func together(t *testing.T, all []someone, f func(t *testing.T, who someone)) {
	t.Helper()
	t.Run("together", func(t *testing.T) {
		for _, who := range all {
			t.Run(who.Name, func(t *testing.T) {
				t.Parallel()
				f(t, who)
			})
		}
	})
}

// eventsFrom checks that what the providers saw of an account came from its
// address, and that they saw all of it: the form sent by Chromium, the code
// turned into tokens by the tool where it signed in, and the prompt of the one on
// the person's own machine.
func eventsFrom(t *testing.T, events []idp.Event, exits map[string]string) {
	t.Helper()
	type what struct {
		account  string
		provider idp.Provider
		kind     idp.EventKind
	}
	found := map[what]bool{}
	pages := map[string]int{} // sign-in pages, by address
	for _, e := range events {
		if e.Kind == idp.PageServed {
			pages[e.From]++
		}
		if want, ours := exits[e.Account]; ours && e.From != want {
			t.Errorf("%s of %s at %s came from %s, want %s", e.Kind, e.Account, e.Provider, e.From, want)
		}
		found[what{e.Account, e.Provider, e.Kind}] = true
	}
	for account, exit := range exits {
		if want := len(idp.Providers()); pages[exit] != want {
			t.Errorf("%d sign-in pages were shown at %s, want %d", pages[exit], exit, want)
		}
		for _, p := range idp.Providers() {
			for _, kind := range []idp.EventKind{idp.SignedIn, idp.TokensIssued, idp.PromptAnswered} {
				if !found[what{account, p, kind}] {
					t.Errorf("%s saw no %s of %s", p, kind, account)
				}
			}
		}
	}
}

// requestsFrom checks that no request at all came from another address.
func requestsFrom(t *testing.T, requests []idp.Request, exits map[string]string) {
	t.Helper()
	of := map[string]int{}
	for _, q := range requests {
		of[q.From]++
	}
	for _, exit := range exits {
		if of[exit] == 0 {
			t.Errorf("nothing came from %s", exit)
		}
		delete(of, exit)
	}
	for from, n := range of {
		t.Errorf("%d requests came from %s", n, from)
	}
}

func wantExit(t *testing.T, answer, want string) {
	t.Helper()
	var a struct{ Proxy struct{ IP string } }
	if err := json.Unmarshal([]byte(answer), &a); err != nil || a.Proxy.IP != want {
		t.Errorf("the site answers %q (%v), want the address %s", answer, err, want)
	}
}
