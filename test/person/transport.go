package person

import (
	"context"
	"fmt"
	"time"
)

// Transport is on what the screen comes to the page.
type Transport struct {
	Name string // "udp", "tcp" or "vnc"; empty if there is no screen yet
	Says string // what the page says of it, in a few words
	// Took is how long ago, at the look that found this, the page first asked
	// the server for the screen's video, by the page's own clock.
	Took time.Duration `json:"-"`
	MS   float64
}

// WaitTransport waits until the screen comes by the transport.
func (p *Page) WaitTransport(ctx context.Context, name string) (Transport, error) {
	return p.transport(ctx, "for the screen to come by "+name, name)
}

// Transport is the transport by which the screen comes now.
func (p *Page) Transport(ctx context.Context) (Transport, error) {
	return p.transport(ctx, "at how the screen comes", "")
}

func (p *Page) transport(ctx context.Context, what, name string) (Transport, error) {
	t, err := look[Transport](ctx, p, what, `(name) => {
  const viewer = document.querySelector(".viewer");
  if (!viewer) return null;
  const by = viewer.dataset.transport ?? "";
  if (name && (by !== name || viewer.dataset.phase !== "live")) return null;
  const asked = performance.getEntriesByType("resource").find((e) => new URL(e.name).pathname.endsWith("/webrtc"));
  const says = document.querySelector("[data-testid=viewer-transport]")?.textContent.trim() ?? "";
  return {Name: by, Says: says, MS: asked ? performance.now() - asked.startTime : 0};
}`, name)
	t.Took = milliseconds(t.MS)
	return t, err
}

// Keys types on the keyboard, wherever the focus is.
func (p *Page) Keys(ctx context.Context, text string) error { return p.keys(ctx, text) }

// WaitWatching waits until the page says that another window controls the
// screen, or until it does not say so.
func (p *Page) WaitWatching(ctx context.Context, watching bool) error {
	_, err := look[bool](ctx, p, fmt.Sprintf("for the viewer to be watching only: %t", watching),
		`(want) => document.querySelector(".viewer")?.dataset.phase === "live" && want === !!document.querySelector("[data-testid=viewer-watching]")`, watching)
	return err
}

// TakeControl presses the button by which a viewer that watches takes control.
func (p *Page) TakeControl(ctx context.Context) error { return p.press(ctx, "take-control") }
