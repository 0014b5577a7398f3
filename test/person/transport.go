package person

import (
	"context"
	"fmt"
	"time"
)

// Transport is how the screen comes to the page.
type Transport string

// The transports that there are.
const (
	UDP Transport = "udp" // WebRTC
	TCP Transport = "tcp" // WebRTC over ICE-TCP
	VNC Transport = "vnc" // noVNC
)

// Arrival is by what the screen comes, and what the page says of it.
type Arrival struct {
	By   Transport // empty if there is no screen yet
	Says string    // what the page says of it, in a few words
	// Took is how long ago, at the look that found this, the page first asked
	// the server for the screen's video, by the page's own clock.
	Took time.Duration `json:"-"`
	MS   float64
}

// WaitTransport waits until the screen comes by the transport.
func (p *Page) WaitTransport(ctx context.Context, by Transport) (Arrival, error) {
	return p.transport(ctx, "for the screen to come by "+string(by), by)
}

// Arrival is how the screen comes now.
func (p *Page) Arrival(ctx context.Context) (Arrival, error) {
	return p.transport(ctx, "at how the screen comes", "")
}

func (p *Page) transport(ctx context.Context, what string, by Transport) (Arrival, error) {
	t, err := look[Arrival](ctx, p, what, `(want) => {
  const viewer = document.querySelector(".viewer");
  if (!viewer) return null;
  const by = viewer.dataset.transport ?? "";
  if (want && (by !== want || viewer.dataset.phase !== "live")) return null;
  const asked = performance.getEntriesByType("resource").find((e) => new URL(e.name).pathname.endsWith("/webrtc"));
  const says = document.querySelector("[data-testid=viewer-transport]")?.textContent.trim() ?? "";
  return {By: by, Says: says, MS: asked ? performance.now() - asked.startTime : 0};
}`, by)
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
