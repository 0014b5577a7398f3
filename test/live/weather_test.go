package live

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

const (
	// recovers is how long a page's change may take to be seen in bad weather.
	recovers = 30 * time.Second
	// maxMemory bounds what the gateway, with all of the server, may take: a
	// program that looks for races takes several times as much.
	maxMemory = 1 << 30
)

// TestWeather has the page in the machine change while the network is bad: the
// new page is seen, and can be read and used, and the gateway does not hoard.
func TestWeather(t *testing.T) {
	ctx := limit(t, 100*time.Second)
	who := newPerson(t, ctx, "weather")
	who.Begin(t, ctx, idp.Claude)
	link, page := shared.link, who.Page
	by(t, ctx, page, "udp")
	for _, weather := range []struct {
		name string
		set  func() error
	}{
		{"fair", func() error { return nil }},
		{"1% lost", func() error { return link.Lose(1) }},
		{"5% lost", func() error { return link.Lose(5) }},
		{"20% lost", func() error { return link.Lose(20) }},
		{"50 ms there and back", func() error { return link.Delay(50 * time.Millisecond) }},
		{"200 ms there and back", func() error { return link.Delay(200 * time.Millisecond) }},
		{"1 Mbit/s", func() error { return link.Rate(1_000_000) }},
		{"0.3 Mbit/s", func() error { return link.Rate(300_000) }},
	} {
		t.Run(weather.name, func(t *testing.T) {
			ctx := limit(t, recovers)
			must(t, link.Fair())
			must(t, page.FocusEmail(ctx, idp.Claude))
			must(t, page.Keys(ctx, "somebody@example.com"))
			must(t, page.FocusPassword(ctx, idp.Claude))
			must(t, page.Keys(ctx, "wrong"))
			must(t, weather.set())
			seen := len(shared.IDP.Events())
			began := time.Now()
			must(t, page.Enter(ctx))
			_, err := shared.IDP.WaitFor(ctx, seen, func(e idp.Event) bool { return e.Kind == idp.SignInRefused })
			must(t, err)
			refused := time.Now()
			// The page is another one: its fields are empty and further down.
			must(t, page.WaitFilled(ctx, idp.Claude, 0, false))
			shown := time.Now()
			must(t, page.FocusPassword(ctx, idp.Claude))
			now, err := page.Arrival(ctx)
			must(t, err)
			t.Logf("by %s: refused after %d ms, seen after %d more; a click after %d more; the server takes %d MB", now.By,
				refused.Sub(began).Milliseconds(), shown.Sub(refused).Milliseconds(), time.Since(shown).Milliseconds(), memory(t)>>20)
			if memory(t) > maxMemory {
				t.Errorf("the server takes %d MB", memory(t)>>20)
			}
		})
	}
}

// memory is what the server has of the computer's.
func memory(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", shared.PID()))
	must(t, err)
	_, after, _ := strings.Cut(string(status), "VmRSS:")
	line, _, _ := strings.Cut(after, "kB")
	kb, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	return kb << 10
}
