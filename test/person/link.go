package person

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/chromedp/chromedp"
)

// SignInToSession opens a link that leads straight to a session, as a new
// person, and returns their page once it shows that.
func (b *Browser) SignInToSession(ctx context.Context, link string) (*Page, error) {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" {
		return nil, errors.New("person: that is no sign-in link")
	}
	p, err := b.open(ctx, u, chromedp.WithNewBrowserContext())
	if err != nil {
		return nil, err
	}
	err = p.run(ctx, chromedp.Navigate(link))
	if err == nil {
		_, err = look[bool](ctx, p, "for the session", `() => !!document.querySelector('[data-testid=session]')`)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("person: open the link: %w", err), p.Close())
	}
	return p, nil
}
