package e2e

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

// TestClipboard moves text in both directions between the person's device and
// the Chromium in the machine, and signs in with nothing but what was pasted.
func TestClipboard(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	who := newPerson(t, ctx, shared.rig, "clipboard")
	page := who.Page
	must(t, page.AllowClipboard(ctx))
	_, err := page.Connect(ctx, string(idp.Codex))
	must(t, err)
	must(t, page.WaitSignInPage(ctx, idp.Codex))
	must(t, page.FocusEmail(ctx, idp.Codex))

	// A key that comes at once after a paste may be handled before it: a person
	// looks at what they have pasted.
	paste := func(field int) {
		t.Helper()
		must(t, page.Control(ctx, 'v'))
		must(t, page.WaitFilled(ctx, idp.Codex, field, true))
	}

	const said = "Grüße · привет · こんにちは · 🔑"
	must(t, page.Copied(ctx, said))
	paste(0)
	must(t, page.Copied(ctx, "something else")) // what comes back is the machine's
	must(t, page.Control(ctx, 'a'))
	must(t, page.Control(ctx, 'c'))
	must(t, harness.Until(ctx, func() error {
		got, err := page.Clipboard(ctx)
		if err == nil && got != said {
			err = fmt.Errorf("the clipboard holds %q, want %q", got, said)
		}
		return err
	}))

	must(t, page.Copied(ctx, who.Email()))
	must(t, page.Control(ctx, 'a')) // which copies nothing
	must(t, page.Backspace(ctx))
	must(t, page.WaitFilled(ctx, idp.Codex, 0, false))
	paste(0)
	must(t, page.SendByHand(ctx, idp.DefaultPassword))
	must(t, page.FocusPassword(ctx, idp.Codex))
	paste(1)
	must(t, page.Enter(ctx))
	who.Completed(t, ctx)
	if c := active(t, ctx, who, idp.Codex); c.Account != who.Email() {
		t.Errorf("the account is %q, want %q", c.Account, who.Email())
	}
}

// TestScreenFollowsTheWindow changes the size of the person's window: the remote
// screen and the Chromium on it take the place that there is, and a click still
// lands where it is seen.
func TestScreenFollowsTheWindow(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	who := newPerson(t, ctx, shared.rig, "window")
	who.Begin(t, ctx, idp.Claude)
	for _, size := range [][2]int64{{1600, 1000}, {1024, 700}, {390, 844}} {
		must(t, who.Page.Resize(ctx, size[0], size[1]))
		must(t, harness.Until(ctx, func() error {
			s, err := who.Page.Screen(ctx)
			if err == nil {
				err = fits(s)
			}
			return err
		}))
		// Its fields are found from the middle of the screen: Chromium's window
		// has followed.
		must(t, who.Page.FocusEmail(ctx, idp.Claude))
		must(t, who.Page.FocusPassword(ctx, idp.Claude))
	}
	must(t, who.Page.SignInAt(ctx, idp.Claude, who.Email(), idp.DefaultPassword))
	who.Completed(t, ctx)
}

// narrowest is the width below which Chromium's window does not go.
const narrowest = 500

// fits says whether the remote screen has the size of its place, or, where that
// is too narrow for Chromium, its shape.
func fits(s person.Screen) error {
	scale := max(1, narrowest/s.PlaceWidth)
	if math.Abs(s.Width-scale*s.PlaceWidth) > 2 || math.Abs(s.Height-scale*s.PlaceHeight) > 2 {
		return fmt.Errorf("the screen is %.0f by %.0f in a place of %.0f by %.0f", s.Width, s.Height, s.PlaceWidth, s.PlaceHeight)
	}
	return nil
}
