package person

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// AllowClipboard has the person's browser let the page read and write their
// device's clipboard, as after a click on Allow. All persons of one Browser have
// the same clipboard.
func (p *Page) AllowClipboard(ctx context.Context) error {
	profile := chromedp.FromContext(p.tab).BrowserContextID
	allow := chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		for _, name := range []string{"clipboard-read", "clipboard-write"} {
			if _, err := cdp.Call(ctx, p.chromium(), browser.SetPermission, browser.SetPermissionParams{
				Permission: &browser.PermissionDescriptor{Name: name}, Setting: "granted",
				Origin: p.origin, BrowserContextID: profile,
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err := p.run(ctx, p.front(), allow); err != nil {
		return fmt.Errorf("person: allow the clipboard: %w", err)
	}
	return nil
}

// Copied puts text on the device's clipboard, as if it had been copied in
// another program.
func (p *Page) Copied(ctx context.Context, text string) error {
	_, err := look[bool](ctx, p, "to copy", `(text) => navigator.clipboard.writeText(text).then(() => true)`, text)
	return err
}

// Clipboard is what the device's clipboard holds.
func (p *Page) Clipboard(ctx context.Context) (string, error) {
	return look[string](ctx, p, "at the device's clipboard", `() => navigator.clipboard.readText()`)
}

// Control presses Control and a letter, wherever the focus is.
func (p *Page) Control(ctx context.Context, letter rune) error {
	control := input.DispatchKeyEventParams{
		Key: "Control", Code: "ControlLeft", WindowsVirtualKeyCode: 17, NativeVirtualKeyCode: 17, Location: 1, Modifiers: int64(kb.ModifierCtrl),
	}
	key := *kb.Encode(letter)[0]
	key.Modifiers = int64(kb.ModifierCtrl)
	press := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, e := range []struct {
			kind input.DispatchKeyEventType
			of   input.DispatchKeyEventParams
		}{{kb.KeyRawDown, control}, {kb.KeyRawDown, key}, {kb.KeyUp, key}, {kb.KeyUp, control}} {
			e.of.Type = e.kind
			if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, e.of); err != nil {
				return err
			}
		}
		return nil
	})
	if err := p.run(ctx, p.front(), press); err != nil {
		return fmt.Errorf("person: press Control-%c: %w", letter, err)
	}
	return nil
}

// SendByHand opens the viewer's clipboard panel, writes text into its box in
// place of what is there, presses Send and closes the panel.
func (p *Page) SendByHand(ctx context.Context, text string) error {
	if err := p.press(ctx, "tool-clipboard"); err != nil {
		return err
	}
	if err := p.press(ctx, "clipboard-text"); err != nil {
		return err
	}
	if err := p.Control(ctx, 'a'); err != nil {
		return err
	}
	if err := p.keys(ctx, text); err != nil {
		return err
	}
	if err := p.press(ctx, "clipboard-send"); err != nil {
		return err
	}
	return p.press(ctx, "tool-clipboard")
}
