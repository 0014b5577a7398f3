package person

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/anteroom/anteroom/test/idp"
)

// screen is what scripts share that look at the remote screen: its picture, a
// video or noVNC's canvas, is copied to a canvas of their own. The colours of a
// video are off by what its encoder makes of them.
const screen = `const by = document.querySelector(".viewer")?.dataset.transport;
  const live = document.querySelector("[data-testid=viewer] .stage-live " + (by === "vnc" ? "canvas" : "video"));
  if (!by || !live) return null;
  const width = live.videoWidth ?? live.width, height = live.videoHeight ?? live.height;
  if (!width || !height) return null;
  const pixels = (x, y, w, h, W, H) => {
    const probe = document.createElement("canvas");
    probe.width = W; probe.height = H;
    const ctx = probe.getContext("2d", {willReadFrequently: true});
    ctx.drawImage(live, x, y, w, h, 0, 0, W, H);
    return ctx.getImageData(0, 0, W, H).data;
  };
  const off = by === "vnc" ? 0 : 16;
  const column = (x) => { const d = pixels(x, 0, 1, height, 1, height);
    return (y, r, g, b, by) => Math.abs(d[4*y]-r) <= by+off && Math.abs(d[4*y+1]-g) <= by+off && Math.abs(d[4*y+2]-b) <= by+off && d[4*y+3] === 255; };
  // A pixel of the screen, as a point of the page: as large as fits, in the middle.
  const place = (x, y) => {
    const box = live.getBoundingClientRect(), scale = Math.min(box.width / width, box.height / height);
    return {X: box.x + (box.width - width * scale) / 2 + x * scale, Y: box.y + (box.height - height * scale) / 2 + y * scale};
  };`

// band finds the coloured band at the top of a sign-in page of the test
// identity provider: the row below it, or 0.
const band = `const bandEnd = (r, g, b) => {
    const is = column(width >> 1);
    for (let y = 0, run = 0; y < height; y++) {
      if (is(y, r, g, b, 12)) run++;
      else if (run >= 60) return y;
      else run = 0;
    }
    return 0;
  };`

// painted says whether the screen shows more than one colour.
const painted = `const isPainted = () => {
    const d = pixels(0, 0, width, height, 32, 32);
    for (let i = 0; i < d.length; i += 4) {
      if (d[i+3] === 255 && (Math.abs(d[i]-d[0]) > 8 || Math.abs(d[i+1]-d[1]) > 8 || Math.abs(d[i+2]-d[2]) > 8)) return true;
    }
    return false;
  };`

// WaitViewer waits until the viewer shows a picture: a frame of more than one
// colour.
func (p *Page) WaitViewer(ctx context.Context) error {
	_, err := look[bool](ctx, p, "at the viewer", `() => { `+screen+painted+` return isPainted(); }`)
	return err
}

// WaitSignInPage waits until the remote Chromium shows the provider's sign-in
// page, known by the colour of its band.
func (p *Page) WaitSignInPage(ctx context.Context, provider idp.Provider) error {
	r, g, b := provider.Band()
	_, err := look[int](ctx, p, fmt.Sprintf("at the viewer for the sign-in page of %s", provider),
		`(r, g, b) => { `+screen+band+` return bandEnd(r, g, b); }`, r, g, b)
	return err
}

// SignInAt signs in at the provider's sign-in page on the remote screen: a
// click on each field through the viewer, its text by the keyboard,
// and Enter.
func (p *Page) SignInAt(ctx context.Context, provider idp.Provider, email, password string) error {
	if err := p.FillEmail(ctx, provider, email); err != nil {
		return err
	}
	return p.SendPassword(ctx, provider, password)
}

// FillEmail fills in the first field of the sign-in page.
func (p *Page) FillEmail(ctx context.Context, provider idp.Provider, email string) error {
	return p.fill(ctx, provider, 0, email)
}

// SendPassword fills in the second field and presses Enter.
func (p *Page) SendPassword(ctx context.Context, provider idp.Provider, password string) error {
	return p.fill(ctx, provider, 1, password+kb.Enter)
}

// focusTime is how long a click may take to show its effect on a busy machine.
const focusTime = 20 * time.Second

// fill types into a field.
func (p *Page) fill(ctx context.Context, provider idp.Provider, field int, text string) error {
	if err := p.focus(ctx, provider, field); err != nil {
		return err
	}
	return p.keys(ctx, text)
}

// FocusEmail clicks on the first field.
func (p *Page) FocusEmail(ctx context.Context, provider idp.Provider) error {
	return p.focus(ctx, provider, 0)
}

// Enter presses Enter, wherever the focus is.
func (p *Page) Enter(ctx context.Context) error { return p.keys(ctx, kb.Enter) }

// Backspace presses Backspace, wherever the focus is.
func (p *Page) Backspace(ctx context.Context) error { return p.keys(ctx, kb.Backspace) }

// FocusPassword clicks on the second field. Once that shows the focus, all that
// was typed before has arrived.
func (p *Page) FocusPassword(ctx context.Context, provider idp.Provider) error {
	return p.focus(ctx, provider, 1)
}

// focus clicks on a field and waits until it shows that it has the focus:
// Chromium may handle keys before a click that came just before them. It clicks
// again only where the field has moved away under the mouse, as when the screen
// changes its size; any other click without effect is an error.
func (p *Page) focus(ctx context.Context, provider idp.Provider, field int) error {
	fields, err := p.fields(ctx, provider, -1)
	for err == nil {
		at := fields[field].point
		if err := p.click(ctx, at); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, focusTime)
		_, err = p.fields(soon, provider, field)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		lost := err
		if fields, err = p.fields(ctx, provider, -1); err == nil && fields[field].point == at {
			return fmt.Errorf("person: a click on the remote screen was lost: %w", lost)
		}
	}
	return err
}

// WaitFilled waits until there is text in a field of the sign-in page, 0 or 1, or
// until there is none.
func (p *Page) WaitFilled(ctx context.Context, provider idp.Provider, number int, filled bool) error {
	_, err := p.fieldsThat(ctx, provider, fmt.Sprintf("with text in number %d: %t", number, filled),
		`(all, number, filled) => all[number].Filled === filled`, number, filled)
	return err
}

// fields finds the two fields of a sign-in page. If focused is not negative it
// waits until that field has the focus.
func (p *Page) fields(ctx context.Context, provider idp.Provider, focused int) ([]field, error) {
	if focused < 0 {
		return p.fieldsThat(ctx, provider, "", `() => true`)
	}
	return p.fieldsThat(ctx, provider, fmt.Sprintf("with the focus on number %d", focused),
		`(all, number) => all[number].Focused`, focused)
}

// field is one of the two fields of a sign-in page, with a point in it.
type field struct {
	point

	Focused, Filled bool
}

// fieldsThat waits for two fields of which are, a JavaScript function of them
// and the arguments, is true. It finds them by their borders: two lines as far
// apart as a field is high, grey, or nearly black where the focus is. Text is
// what is dark in a field's left part, behind where an empty one has its caret.
func (p *Page) fieldsThat(ctx context.Context, provider idp.Provider, what, are string, args ...any) ([]field, error) {
	const tall = 48
	r, g, b := provider.Band()
	return look[[]field](ctx, p, fmt.Sprintf("at the viewer for the fields of %s %s", provider, what), `(r, g, b, tall, args) => { `+screen+band+`
  const middle = width >> 1, x = middle + 180, is = column(x);
  const grey = (y) => is(y, 136, 136, 136, 24), black = (y) => is(y, 16, 16, 16, 40);
  const found = [];
  const top = bandEnd(r, g, b);
  if (!top) return null;
  const text = (y) => pixels(middle - 204, y - 12, 100, 24, 100, 24).some((v, i) => i % 4 === 1 && v < 110);
  for (let y = top + 1; y + tall < height; y++) {
    for (const line of [grey, black]) {
      // A border is two pixels wide, and between the lines the field is white.
      if (line(y) && !line(y - 1) && is(y + 4, 255, 255, 255, 8) && (line(y + tall - 1) || line(y + tall - 2)) && !line(y + tall + 2)) {
        const at = y + tall / 2;
        found.push({...place(x, at), Focused: line === black, Filled: text(at)});
        y += tall;
        break;
      }
    }
  }
  return found.length === 2 && (`+are+`)(found, ...args) ? found : null;
}`, r, g, b, tall, append([]any{}, args...))
}

// WaitViewerPhase waits until the viewer says that it is "connecting", "live",
// "reconnecting" or "stopped".
func (p *Page) WaitViewerPhase(ctx context.Context, phase string) error {
	_, err := look[bool](ctx, p, "for the viewer to be "+phase,
		`(phase) => document.querySelector("[data-testid=viewer-status]")?.dataset.phase === phase`, phase)
	return err
}
