package live

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

// soon is when a person has a screen at the latest, whatever is blocked.
const soon = 3 * time.Second

// TestBlockedFromTheStart opens a session's page in networks that block one way
// after the other: the person soon has the best of those that are left, and is
// told why.
func TestBlockedFromTheStart(t *testing.T) {
	ctx := limit(t, time.Minute)
	who := newPerson(t, ctx, "blocked")
	id := who.Begin(t, ctx, idp.Claude)
	for _, test := range []struct {
		transport person.Transport
		says      string
		dropped   []string
	}{
		{"udp", "Direct video (UDP)", nil},
		{"tcp", "Video over TCP: UDP is blocked", []string{videoUDP}},
		{"vnc", "Pictures (VNC): video is blocked, trying again", []string{videoUDP, videoTCP}},
	} {
		must(t, shared.link.Drop(test.dropped...))
		must(t, who.Page.OpenSession(ctx, id))
		got := by(t, ctx, who.Page, test.transport)
		t.Logf("%v dropped: on %s after %s: %q", test.dropped, got.By, got.Took, got.Says)
		if got.Took > soon {
			t.Errorf("%v dropped: on %s only after %s", test.dropped, got.By, got.Took)
		}
		if got.Says != test.says {
			t.Errorf("%v dropped: the page says %q, want %q", test.dropped, got.Says, test.says)
		}
		must(t, who.Page.WaitSignInPage(ctx, idp.Claude))
	}
}

// The two speeds at which a person types here: faster than most, and with pauses
// in which a better transport may take over.
const (
	fast = 80 * time.Millisecond
	slow = 700 * time.Millisecond
)

// typist types one text, which grows as long as it is needed.
type typist struct {
	page *person.Page
	said strings.Builder
}

// key types the next character. Each is another than the ones around it, so that
// what is lost, doubled or swapped shows.
func (w *typist) key(t *testing.T, ctx context.Context) {
	t.Helper()
	const keys = "abcdefghijklmnopqrstuvwxyz0123456789"
	c := keys[w.said.Len()%len(keys)]
	must(t, w.page.Keys(ctx, string(c)))
	w.said.WriteByte(c)
}

// until types on until the screen comes by a transport, and then some more. The
// typing is fast where the transport of before is about to fail; else there are
// the pauses without which a better one does not take over.
func (w *typist) until(t *testing.T, ctx context.Context, transport person.Transport, fails bool) {
	t.Helper()
	began := time.Now()
	before, err := w.page.Arrival(ctx)
	must(t, err)
	keys := time.NewTicker(fast)
	defer keys.Stop()
	if !fails {
		keys.Reset(slow)
	}
	arrived := false
	for more, typed := 10, 0; more > 0; {
		select {
		case <-keys.C:
			// An address has at most 254 characters.
			if arrived || typed < 34 {
				w.key(t, ctx)
				typed++
			}
		case <-ctx.Done():
			t.Fatalf("the screen does not come by %s: %v", transport, ctx.Err())
		}
		now, err := w.page.Arrival(ctx)
		must(t, err)
		switch {
		case now.By == transport && more == 10:
			t.Logf("from %s to %s after %s: %q", before.By, transport, time.Since(began).Round(10*time.Millisecond), now.Says)
			keys.Reset(fast)
			arrived = true
			more--
		case now.By == transport:
			more--
		case fails && now.By != "" && now.By != before.By:
			keys.Reset(slow)
			fails = false
		}
	}
}

// TestBlockedWhileTyping blocks one way after the other, and opens them again,
// while the person types: the field ends up with exactly what was typed.
func TestBlockedWhileTyping(t *testing.T) {
	ctx := limit(t, 90*time.Second)
	who := newPerson(t, ctx, "typing")
	who.Begin(t, ctx, idp.Claude)
	by(t, ctx, who.Page, "udp")
	must(t, who.Page.FocusEmail(ctx, idp.Claude))
	w := &typist{page: who.Page}
	for _, step := range []struct {
		dropped   []string
		transport person.Transport
		fails     bool
	}{
		{[]string{videoUDP}, "tcp", true},
		{[]string{videoUDP, videoTCP}, "vnc", true},
		{[]string{videoUDP}, "tcp", false},
		{[]string{videoUDP, videoTCP}, "vnc", true},
		{nil, "udp", false},
	} {
		must(t, shared.link.Drop(step.dropped...))
		w.until(t, ctx, step.transport, step.fails)
	}
	must(t, who.Page.Keys(ctx, "@example.com"))
	signIn(t, ctx, who.Page, idp.Claude, w.said.String()+"@example.com")
	who.Completed(t, ctx)
}
