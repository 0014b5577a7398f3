package person

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// maxProblems bounds what one page's problems take.
const maxProblems = 100

// Page is one tab in which one person has Anteroom's page open. Its methods are
// for one goroutine at a time; Problems and Close may be called at any time.
type Page struct {
	browser *Browser
	origin  string
	tab     context.Context
	end     context.CancelFunc

	commands int                   // typed by Shell so far
	confined page.ScriptIdentifier // what Confine has added

	mu       sync.Mutex
	problems []string
}

// run carries out actions in the tab, until ctx ends.
func (p *Page) run(ctx context.Context, actions ...chromedp.Action[chromedp.Void]) error {
	tab, cancel := p.within(ctx)
	defer cancel()
	if err := chromedp.Do(tab, actions...); err != nil {
		return errors.Join(ctx.Err(), err)
	}
	return nil
}

// within is the tab's context, ended by ctx too.
func (p *Page) within(ctx context.Context) (context.Context, func()) {
	tab, cancel := context.WithCancel(p.tab)
	stop := context.AfterFunc(ctx, cancel)
	return tab, func() { stop(); cancel() }
}

// visit loads an address and waits for the connections to show.
func (p *Page) visit(ctx context.Context, address string) error {
	if err := p.run(ctx, chromedp.Navigate(address)); err != nil {
		return fmt.Errorf("person: open the page: %w", err)
	}
	_, err := look[bool](ctx, p, "for the connections", `() => !!document.querySelector('[data-testid^=credential-]')`)
	return err
}

// Home opens the connections.
func (p *Page) Home(ctx context.Context) error { return p.visit(ctx, p.origin+"/") }

// OpenSession opens the page of a session.
func (p *Page) OpenSession(ctx context.Context, id string) error {
	if err := p.run(ctx, chromedp.Navigate(p.origin+"/sessions/"+id)); err != nil {
		return fmt.Errorf("person: open session %s: %w", id, err)
	}
	_, err := look[bool](ctx, p, "for the session", `() => !!document.querySelector('[data-testid=session]')`)
	return err
}

// polled waits for find to return something true, which it answers. It is run
// as a promise, since the page's policy forbids eval, also to a debugger's
// scripts that compile others.
const polled = `(async (find, args, ms) => {
  const end = Date.now() + ms;
  for (;;) {
    const found = find(...args);
    if (found) return found;
    if (Date.now() > end) throw new Error("nothing found in time");
    await new Promise((r) => setTimeout(r, 20));
  }
})(%s, %s, %d)`

// look waits until find, a JavaScript function, returns something true for the
// arguments, and returns that. what completes "the person looked".
func look[T any](ctx context.Context, p *Page, what, find string, args ...any) (T, error) {
	var zero T
	list, err := json.Marshal(append([]any{}, args...))
	if err != nil {
		return zero, err
	}
	for {
		left := time.Hour
		if deadline, ok := ctx.Deadline(); ok {
			left = max(0, time.Until(deadline))
		}
		tab, cancel := p.within(ctx)
		found, err := chromedp.Run(tab, chromedp.Evaluate[T](fmt.Sprintf(polled, find, list, left.Milliseconds()), chromedp.EvalAwaitPromise))
		cancel()
		if err == nil {
			return found, nil
		}
		if ctx.Err() == nil && movedOn(err) {
			continue
		}
		return zero, fmt.Errorf("person: looked %s: %w; the page shows %q", what, errors.Join(ctx.Err(), err), p.text())
	}
}

// movedOn says that the document was replaced while a script waited in it.
func movedOn(err error) bool {
	text := err.Error()
	return strings.Contains(text, "context was destroyed") || strings.Contains(text, "navigated or closed") ||
		strings.Contains(text, "Cannot find context") || strings.Contains(text, "Promise was collected")
}

// text is what the page says, for errors.
func (p *Page) text() string {
	ctx, cancel := context.WithTimeout(p.tab, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText.replace(/\s+/g, " ").slice(0, 1500)`))
	if err != nil {
		return "nothing: " + err.Error()
	}
	return text
}

// point is a place in the page, in CSS pixels.
type point struct{ X, Y float64 }

// press clicks on the element with a test id, with the mouse, once it can be
// seen and pressed.
func (p *Page) press(ctx context.Context, testID string) error {
	at, err := look[point](ctx, p, "for "+testID, `(id) => {
  const e = document.querySelector('[data-testid="' + id + '"]');
  if (!e || e.disabled) return null;
  e.scrollIntoView({block: "center", behavior: "instant"});
  const b = e.getBoundingClientRect();
  const at = {X: b.x + b.width / 2, Y: b.y + b.height / 2};
  const top = document.elementFromPoint(at.X, at.Y);
  return top && e.contains(top) ? at : null;
}`, testID)
	if err != nil {
		return err
	}
	return p.click(ctx, at)
}

func (p *Page) click(ctx context.Context, at point) error {
	if err := p.run(ctx, p.front(), chromedp.MouseEvent(chromedp.MouseMoved, at.X, at.Y), chromedp.MouseClickXY(at.X, at.Y)); err != nil {
		return fmt.Errorf("person: click: %w", err)
	}
	return nil
}

// keys types on the keyboard, wherever the focus is. Each key goes down with the
// text that it makes, so that a page which handles the key keeps the text from
// being typed, as with a real keyboard.
func (p *Page) keys(ctx context.Context, text string) error {
	press := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, r := range text {
			events := kb.Encode(r)
			down, up := *events[0], *events[len(events)-1]
			if len(events) == 3 { // the one between is the text
				down.Text, down.UnmodifiedText = events[1].Text, events[1].UnmodifiedText
			}
			for _, e := range []input.DispatchKeyEventParams{down, up} {
				if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err := p.run(ctx, press); err != nil {
		return fmt.Errorf("person: type: %w", err)
	}
	return nil
}

// Screenshot writes what the person sees to a PNG file.
func (p *Page) Screenshot(ctx context.Context, path string) error {
	tab, cancel := p.within(ctx)
	defer cancel()
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("person: screenshot: %w", errors.Join(ctx.Err(), err))
	}
	if err := os.WriteFile(path, png, 0o644); err != nil {
		return fmt.Errorf("person: screenshot: %w", err)
	}
	return nil
}

// Problems are what the page should not have done so far: uncaught exceptions,
// violations of its policy, and requests to another origin.
func (p *Page) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.problems...)
}

func (p *Page) problem(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.problems) < maxProblems {
		p.problems = append(p.problems, fmt.Sprintf(format, args...))
	}
}

// listen hears the tab's events.
func (p *Page) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		p.problem("exception: %s", (&chromedp.ExceptionError{ExceptionDetails: e.ExceptionDetails}).Error())
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
			p.problem("%s: %s", e.Entry.Source, e.Entry.Text)
		}
	case *network.EventRequestWillBeSent:
		if url := e.Request.URL; !p.own(url) {
			p.problem("request to another origin: %s", url)
		}
	}
}

// own says whether an address is the server's or none on a network.
func (p *Page) own(url string) bool {
	for _, prefix := range []string{p.origin + "/", "data:", "blob:", "about:"} {
		if strings.HasPrefix(url, prefix) {
			return true
		}
	}
	return false
}
