package person

import (
	"context"
	"fmt"

	"github.com/chromedp/chromedp/kb"

	"github.com/anteroom/anteroom/test/idp"
)

// screen is what scripts share that look at the remote screen: the canvas is
// copied to one of their own, so that it is never read back itself.
const screen = `const canvas = document.querySelector("[data-testid=viewer] .stage-live canvas");
  if (!canvas || !canvas.width || !canvas.height) return null;
  const pixels = (x, y, w, h, W, H) => {
    const probe = document.createElement("canvas");
    probe.width = W; probe.height = H;
    const ctx = probe.getContext("2d", {willReadFrequently: true});
    ctx.drawImage(canvas, x, y, w, h, 0, 0, W, H);
    return ctx.getImageData(0, 0, W, H).data;
  };
  const column = (x) => { const d = pixels(x, 0, 1, canvas.height, 1, canvas.height);
    return (y, r, g, b, by) => Math.abs(d[4*y]-r) <= by && Math.abs(d[4*y+1]-g) <= by && Math.abs(d[4*y+2]-b) <= by && d[4*y+3] === 255; };`

// band finds the coloured band at the top of a sign-in page of the test
// identity provider: the row below it, or 0.
const band = `const bandEnd = (r, g, b) => {
    const is = column(canvas.width >> 1);
    for (let y = 0, run = 0; y < canvas.height; y++) {
      if (is(y, r, g, b, 12)) run++;
      else if (run >= 60) return y;
      else run = 0;
    }
    return 0;
  };`

// painted says whether the canvas shows more than one colour.
const painted = `const isPainted = () => {
    const d = pixels(0, 0, canvas.width, canvas.height, 32, 32);
    for (let i = 0; i < d.length; i += 4) {
      if (d[i+3] === 255 && (Math.abs(d[i]-d[0]) > 8 || Math.abs(d[i+1]-d[1]) > 8 || Math.abs(d[i+2]-d[2]) > 8)) return true;
    }
    return false;
  };`

// WaitViewer waits until a picture is on the viewer's canvas: a frame of more
// than one colour.
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
// click on each field through the viewer's canvas, its text by the keyboard,
// and Enter.
func (p *Page) SignInAt(ctx context.Context, provider idp.Provider, email, password string) error {
	fields, err := p.fields(ctx, provider)
	if err != nil {
		return err
	}
	for i, text := range []string{email, password + kb.Enter} {
		if err := p.click(ctx, fields[i]); err != nil {
			return err
		}
		if err := p.keys(ctx, text); err != nil {
			return err
		}
	}
	return nil
}

// fields finds the two fields of a sign-in page by their borders: two grey
// lines, as far apart as a field is high. The first field has the focus and
// with it another border, so it is found from the second: a field and a label
// higher.
func (p *Page) fields(ctx context.Context, provider idp.Provider) ([]point, error) {
	const height, pitch = 48, 93
	r, g, b := provider.Band()
	return look[[]point](ctx, p, fmt.Sprintf("at the viewer for the fields of %s", provider), `(r, g, b, height, pitch) => { `+screen+band+`
  const top = bandEnd(r, g, b);
  if (!top) return null;
  const x = (canvas.width >> 1) + 180, grey = column(x);
  let last = 0;
  for (let y = top; y + height < canvas.height; y++) {
    const line = (y) => grey(y, 136, 136, 136, 24);
    if (line(y) && !line(y - 1) && (line(y + height - 1) || line(y + height - 2)) && !line(y + height + 1)) last = y;
  }
  if (!last || last - pitch < top) return null;
  const box = canvas.getBoundingClientRect();
  const at = (y) => ({X: box.x + x * box.width / canvas.width, Y: box.y + (y + height / 2) * box.height / canvas.height});
  return [at(last - pitch), at(last)];
}`, r, g, b, height, pitch)
}
