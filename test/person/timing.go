package person

import (
	"context"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

// sincePost turns a look at the screen into the milliseconds, by the page's own
// clock, from its POST of the session to the look that found something.
const sincePost = `const since = (found) => {
    const posts = performance.getEntriesByType("resource")
      .filter((e) => e.responseStatus === 201 && new URL(e.name).pathname === "/api/v1/sessions");
    return found && posts.length ? performance.now() - posts[posts.length - 1].startTime : 0;
  };`

// ViewerTook waits as WaitViewer does, and returns how long after the POST that
// made the session the picture was there. The page that was pressed Connect on
// must not have been loaded anew since.
func (p *Page) ViewerTook(ctx context.Context) (time.Duration, error) {
	ms, err := look[float64](ctx, p, "at the viewer", `() => { `+sincePost+screen+painted+` return since(isPainted()); }`)
	return milliseconds(ms), err
}

// SignInPageTook waits as WaitSignInPage does, and returns the same of the
// sign-in page.
func (p *Page) SignInPageTook(ctx context.Context, provider idp.Provider) (time.Duration, error) {
	r, g, b := provider.Band()
	ms, err := look[float64](ctx, p, fmt.Sprintf("at the viewer for the sign-in page of %s", provider),
		`(r, g, b) => { `+sincePost+screen+band+` return since(bandEnd(r, g, b)); }`, r, g, b)
	return milliseconds(ms), err
}

func milliseconds(ms float64) time.Duration { return time.Duration(ms * float64(time.Millisecond)) }

// WaitViewerLost waits until the page has noticed that the viewer's connection
// is gone.
func (p *Page) WaitViewerLost(ctx context.Context) error {
	_, err := look[bool](ctx, p, "for the viewer to lose its connection",
		`() => document.querySelector("[data-testid=viewer-status]")?.dataset.phase !== "live"`)
	return err
}
