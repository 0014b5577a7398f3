package person

import (
	"context"
	"fmt"

	"github.com/chromedp/chromedp"
)

// Resize gives the page another size, in CSS pixels, as by dragging the window's
// edge or turning a phone.
func (p *Page) Resize(ctx context.Context, width, height int64) error {
	if err := p.run(ctx, chromedp.EmulateViewport(width, height)); err != nil {
		return fmt.Errorf("person: resize the window: %w", err)
	}
	return nil
}

// Screen is the size of the remote screen in its own pixels, and the size in CSS
// pixels of the place that the page has for it.
type Screen struct{ Width, Height, PlaceWidth, PlaceHeight float64 }

// Screen waits for the viewer to be there and measures it.
func (p *Page) Screen(ctx context.Context) (Screen, error) {
	return look[Screen](ctx, p, "at the viewer's size", `() => { `+screen+`
  const all = document.querySelector("[data-testid=viewer]");
  return {Width: width, Height: height, PlaceWidth: all.clientWidth, PlaceHeight: all.clientHeight};
}`)
}
