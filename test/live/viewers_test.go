package live

import (
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

// TestKilled kills the server while the person looks at the screen and types:
// they are back by themselves, and go on.
func TestKilled(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	who := newPerson(t, ctx, "killed")
	page := who.Page
	who.Begin(t, ctx, idp.Claude)
	by(t, ctx, page, "udp")
	must(t, page.FocusEmail(ctx, idp.Claude))
	must(t, page.Keys(ctx, "before-"))
	must(t, page.WaitFilled(ctx, idp.Claude, 0, true))
	must(t, page.FocusPassword(ctx, idp.Claude)) // keys on their way are lost with the server
	must(t, page.FocusEmail(ctx, idp.Claude))

	killed := time.Now()
	must(t, shared.Kill())
	must(t, shared.Restart(ctx))
	up := time.Now()
	must(t, page.WaitViewerLost(ctx))
	lost := time.Now()
	must(t, page.WaitViewerPhase(ctx, "live"))
	back := time.Now()
	now, err := page.Arrival(ctx)
	must(t, err)
	t.Logf("the server is back %d ms after the kill, its loss was seen after %d, the screen is back after %d, by %s",
		up.Sub(killed).Milliseconds(), lost.Sub(killed).Milliseconds(), back.Sub(killed).Milliseconds(), now.By)
	must(t, page.Keys(ctx, "after@example.com"))
	by(t, ctx, page, "udp")
	t.Logf("by udp again %d ms after the kill", time.Since(killed).Milliseconds())
	signIn(t, ctx, page, idp.Claude, "before-after@example.com")
	who.Completed(t, ctx)
}

// TestTwoWindows opens a session in two windows of its person: the first has the
// keyboard, the second watches, until it takes control.
func TestTwoWindows(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	who := newPerson(t, ctx, "windows")
	first := who.Page
	id := who.Begin(t, ctx, idp.Claude)
	by(t, ctx, first, "udp")
	must(t, first.FocusEmail(ctx, idp.Claude))

	second, err := first.NewTab(ctx)
	must(t, err)
	t.Cleanup(func() { must(t, second.Close()) })
	must(t, second.OpenSession(ctx, id))
	by(t, ctx, second, "udp")
	must(t, second.WaitWatching(ctx, true))
	must(t, first.WaitWatching(ctx, false))
	must(t, second.Keys(ctx, "lost"))
	must(t, first.Keys(ctx, "first-"))
	must(t, second.WaitFilled(ctx, idp.Claude, 0, true))

	must(t, second.TakeControl(ctx))
	must(t, second.WaitWatching(ctx, false))
	must(t, first.WaitWatching(ctx, true))
	must(t, first.Keys(ctx, "lost"))
	must(t, second.Keys(ctx, "second@example.com"))
	signIn(t, ctx, second, idp.Claude, "first-second@example.com")
	who.Completed(t, ctx)
}
