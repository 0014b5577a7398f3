package person

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// confine is run in a document before the page's own scripts. It leaves the page
// one transport: for noVNC the server says that it has no video; for TCP the
// answers have no candidates of UDP, which is all that blocked UDP looks like
// from inside. Once held, the page looks for nothing better. It notes when an
// offer was sent and when the first picture after it was shown.
const confine = `(only) => {
  const bench = window.benchView = {held: false, offered: 0, first: 0};
  const real = window.fetch;
  window.fetch = (url, init) => {
    if (/\/webrtc$/.test(String(url))) {
      if (init?.method === "POST") { bench.offered = performance.now(); bench.first = 0; }
      else if (only === "vnc") return Promise.resolve(new Response("", {status: 404}));
      else if (bench.held) return Promise.reject(new TypeError("held"));
    }
    return real(url, init);
  };
  const set = RTCPeerConnection.prototype.setRemoteDescription;
  RTCPeerConnection.prototype.setRemoteDescription = function (d) {
    const sdp = only === "tcp" ? d.sdp.replace(/^a=candidate:\S+ \d+ udp .*\r?\n/gim, "") : d.sdp;
    return set.call(this, {type: d.type, sdp});
  };
  const ask = HTMLVideoElement.prototype.requestVideoFrameCallback;
  HTMLVideoElement.prototype.requestVideoFrameCallback = function (f) {
    return ask.call(this, (now, meta) => { bench.first ||= performance.now(); f(now, meta); });
  };
}`

// Confine leaves the page one transport, from the next document on.
func (p *Page) Confine(ctx context.Context, only Transport) error {
	add := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		if p.confined != "" {
			if _, err := cdp.Call(ctx, t, page.RemoveScriptToEvaluateOnNewDocument, page.RemoveScriptToEvaluateOnNewDocumentParams{Identifier: p.confined}); err != nil {
				return err
			}
		}
		added, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
			Source: fmt.Sprintf("(%s)(%q)", confine, string(only)),
		})
		if err != nil {
			return err
		}
		p.confined = added.Identifier
		return nil
	})
	if err := p.run(ctx, add); err != nil {
		return fmt.Errorf("person: confine the page to %s: %w", only, err)
	}
	return nil
}

// HoldTransport waits until the viewer shows the screen by a transport, and has
// the page stay on it.
func (p *Page) HoldTransport(ctx context.Context, transport Transport) error {
	_, err := look[bool](ctx, p, "for the screen by "+string(transport), `(want) => { `+screen+`
  return by === want && (window.benchView.held = true);
}`, transport)
	return err
}

// FirstFrameTook is the time from the page's last offer to the first picture
// that came by it.
func (p *Page) FirstFrameTook(ctx context.Context) (time.Duration, error) {
	ms, err := look[float64](ctx, p, "for the first picture", `() => { const b = window.benchView; return b?.first && b.first - b.offered; }`)
	return milliseconds(ms), err
}

// FitScreen changes the window's size until the remote screen has the given one.
func (p *Page) FitScreen(ctx context.Context, width, height int64) error {
	w, h := width+400, height+200
	for range 5 {
		if err := p.Resize(ctx, w, h); err != nil {
			return err
		}
		place, err := look[[]int64](ctx, p, "at the screen's place", `(w, h) => { const e = document.querySelector("[data-testid=viewer]");
  return e && innerWidth === w && innerHeight === h && [e.getBoundingClientRect()].flatMap((b) => [Math.floor(b.width), Math.floor(b.height)]); }`, w, h)
		if err != nil {
			return err
		}
		if place[0] == width && place[1] == height {
			soon, cancel := context.WithTimeout(ctx, focusTime)
			defer cancel()
			_, err := look[bool](soon, p, fmt.Sprintf("for a screen of %d by %d", width, height),
				`(w, h) => { `+screen+` return width === w && height === h; }`, width, height)
			if err != nil {
				is, _ := p.Screen(ctx)
				err = fmt.Errorf("%w; it is %v in a window of %d by %d", err, is, w, h)
			}
			return err
		}
		w, h = w+width-place[0], h+height-place[1]
	}
	return fmt.Errorf("person: no window gives a screen of %d by %d", width, height)
}

// GoTo has the remote Chromium open an address, typed into its address bar as a
// person would: that has the focus only once the page shown has had a look at
// Control and L. What was typed too early is not in the address, and the page
// does not open.
func (p *Page) GoTo(ctx context.Context, address string) error {
	if err := p.Control(ctx, 'l'); err != nil {
		return err
	}
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	return p.keys(ctx, address+kb.Enter)
}

// Tab opens a page of any origin, of nobody.
func (b *Browser) Tab(ctx context.Context, address string) (*Page, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	p, err := b.open(ctx, u, chromedp.WithNewBrowserContext())
	if err != nil {
		return nil, err
	}
	if err := p.run(ctx, chromedp.Navigate(address)); err != nil {
		return nil, errors.Join(fmt.Errorf("person: open %s: %w", address, err), p.Close())
	}
	return p, nil
}

// PID is Chromium's process number; its other processes descend from it.
func (b *Browser) PID() int { return chromedp.FromContext(b.root).Browser.Process().Pid }

// CodePage is a page that counts its mousedowns. In the animation frame of each
// it draws the count modulo 256: a magenta frame with two rows of six cells in
// it, black for 0 and white for 1, the count's bits from the lowest on and then
// four of parity. Where its address ends with "moving", all of the window behind
// it is drawn anew in every frame.
const CodePage = `<!doctype html><meta charset=utf-8><title>code</title>
<style>html,body{margin:0;height:100%;overflow:hidden;background:#888;user-select:none;cursor:default}
canvas{position:absolute;left:0;top:0}#code{left:48px;top:48px}</style>
<canvas id=all></canvas><canvas id=code width=224 height=96></canvas>
<script>
const code = document.getElementById("code").getContext("2d"), all = document.getElementById("all");
let count = 0;
const draw = () => {
  const bits = count & 255 | ((count ^ count >> 4 ^ 10) & 15) << 8;
  code.fillStyle = "#f0f";
  code.fillRect(0, 0, 224, 96);
  for (let i = 0; i < 12; i++) {
    code.fillStyle = bits >> i & 1 ? "#fff" : "#000";
    code.fillRect(16 + 32 * (i % 6), 16 + 32 * (i / 6 | 0), 32, 32);
  }
};
draw();
addEventListener("mousedown", (e) => { e.preventDefault(); count++; requestAnimationFrame(draw); });
addEventListener("contextmenu", (e) => e.preventDefault());
if (location.href.endsWith("moving")) {
  const size = () => { all.width = innerWidth; all.height = innerHeight; };
  addEventListener("resize", size);
  size();
  const to = all.getContext("2d", {alpha: false});
  const move = (t) => {
    to.fillStyle = "hsl(" + t / 40 % 280 + " 40% 30%)";
    to.fillRect(0, 0, all.width, all.height);
    for (let i = 0; i < 60; i++) {
      to.fillStyle = "hsl(" + (i * 37 + t / 20) % 280 + " 60% 55%)";
      to.fillRect((i * 173 + t * (0.1 + i % 7 * 0.05)) % (all.width + 120) - 120, i * 97 % all.height, 120, 70);
    }
    requestAnimationFrame(move);
  };
  requestAnimationFrame(move);
}
</script>`

// clicks finds the code in a source of pixels, and clicks beside it n times; what
// it answers is the milliseconds from the dispatch of each click to the
// animation frame in which the source held its code. A code that does not come
// within two seconds is lost.
const clicks = `async (n, local, fresh) => {
  const by = document.querySelector(".viewer")?.dataset.transport;
  const live = local ? document.getElementById("code") : document.querySelector("[data-testid=viewer] .stage-live " + (by === "vnc" ? "canvas" : "video"));
  const width = () => live.videoWidth ?? live.width, height = () => live.videoHeight ?? live.height;
  const probe = (w, h) => Object.assign(document.createElement("canvas"), {width: w, height: h}).getContext("2d", {willReadFrequently: true});
  const wait = (ms) => new Promise((r) => setTimeout(r, ms));
  const find = () => {
    const c = probe(width(), height());
    c.drawImage(live, 0, 0);
    const d = c.getImageData(0, 0, width(), height()).data;
    const is = (x, y) => { const i = 4 * (y * width() + x); return d[i] > 200 && d[i+1] < 70 && d[i+2] > 200; };
    for (let y = 0; y <= height() - 96; y += 4) for (let x = 0; x <= width() - 224; x += 4) {
      if (!is(x, y)) continue;
      let l = x, t = y;
      while (l > 0 && is(l - 1, y)) l--;
      while (t > 0 && is(x, t - 1)) t--;
      if (is(l + 112, t + 8) && is(l + 112, t + 88) && is(l + 8, t + 48) && is(l + 216, t + 48)) return {x: l, y: t};
    }
    return null;
  };
  const small = probe(6, 2);
  small.imageSmoothingEnabled = false;
  const read = (at) => {
    small.drawImage(live, at.x + 16, at.y + 16, 192, 64, 0, 0, 6, 2);
    const d = small.getImageData(0, 0, 6, 2).data;
    let bits = 0;
    for (let i = 0; i < 12; i++) {
      const v = d[4*i+1];
      if (v > 96 && v < 160) return -1;
      if (v >= 160) bits |= 1 << i;
    }
    const count = bits & 255;
    return bits >> 8 === ((count ^ count >> 4 ^ 10) & 15) ? count : -1;
  };
  let at = null, last = -1;
  for (const end = performance.now() + 15000; performance.now() < end; await wait(50)) {
    // A page that has just been opened has counted nothing yet.
    if ((width() || 0) > 0 && (at = find()) && (last = read(at)) >= 0 && (!fresh || last === 0)) break;
  }
  if (!at || last < 0 || fresh && last) throw new Error("the code is not to be seen");
  const box = live.getBoundingClientRect(), scale = Math.min(box.width / width(), box.height / height());
  const X = box.x + (box.width - width() * scale) / 2 + (at.x + 112) * scale;
  const Y = box.y + (box.height - height() * scale) / 2 + (at.y + 200) * scale;
  const target = local ? document.body : live;
  const send = (kind, buttons) => {
    const e = {bubbles: true, cancelable: true, composed: true, view: window, clientX: X, clientY: Y, button: 0, buttons, pointerId: 1, pointerType: "mouse", isPrimary: true};
    target.dispatchEvent(new PointerEvent("pointer" + kind, e));
    target.dispatchEvent(new MouseEvent("mouse" + kind, e));
  };
  const video = live instanceof HTMLVideoElement;
  const next = (f) => video ? live.requestVideoFrameCallback(f) : requestAnimationFrame(f);
  const took = [];
  let lost = 0, row = 0;
  for (let i = 0; i < n; i++) {
    await wait(90 + 70 * Math.random());
    const want = last + 1 & 255;
    const ms = await new Promise((done) => {
      let over = false, began = 0;
      const timer = setTimeout(() => { over = true; done(-1); }, 2000);
      const look = () => {
        if (over) return;
        const now = performance.now();
        if (read(at) !== want) return next(look);
        clearTimeout(timer);
        done(now - began);
      };
      next(look);
      began = performance.now();
      send("down", 1);
    });
    send("up", 0);
    if (ms >= 0) { took.push(ms); last = want; row = 0; continue; }
    lost++;
    await wait(300);
    const is = read(at);
    if (++row === 5) throw new Error("five clicks in a row were lost: " + JSON.stringify({want, last, is, at, now: find(), X, Y}));
    if (is >= 0) last = is;
  }
  return {Took: took, Lost: lost, Width: width(), Height: height()};
}`

// Clicked is what clicks on a CodePage took until they were seen, in
// milliseconds; Lost were not seen. Width and Height are of the picture.
type Clicked struct {
	Took          []float64
	Lost          int
	Width, Height int
}

// Click clicks n times on the CodePage that the remote screen shows, or that p
// itself is, where local; where fresh, on one that has just been opened. The
// events are dispatched in the page, and its own clock measures.
func (p *Page) Click(ctx context.Context, n int, local, fresh bool) (Clicked, error) {
	tab, cancel := p.within(ctx)
	defer cancel()
	c, err := chromedp.Run(tab, chromedp.Evaluate[Clicked](fmt.Sprintf("(%s)(%d, %t, %t)", clicks, n, local, fresh), chromedp.EvalAwaitPromise))
	if err != nil {
		return c, fmt.Errorf("person: click: %w; the page shows %q", errors.Join(ctx.Err(), err), p.text())
	}
	return c, nil
}
