package person

import (
	"context"
	"fmt"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// Stroke is one key of the person's keyboard going down and up: where it is, and
// what its layout makes of it.
type Stroke struct {
	Code string // of the place, such as "KeyZ"
	Key  string // what the layout makes of it: a character, or "Dead"
	// The keys that are held meanwhile.
	Shift, AltGr bool
}

// The bit of Shift in the modifiers of an event; AltGr has none.
const shiftBit = 8

// Strike strikes keys, wherever the focus is.
func (p *Page) Strike(ctx context.Context, strokes []Stroke) error {
	strike := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, s := range strokes {
			if err := s.strike(ctx, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err := p.run(ctx, strike); err != nil {
		return fmt.Errorf("person: type: %w", err)
	}
	return nil
}

func (s Stroke) strike(ctx context.Context, t *chromedp.Target) error {
	held := int64(0)
	send := func(kind input.DispatchKeyEventType, e input.DispatchKeyEventParams) error {
		e.Type, e.Modifiers = kind, held
		_, err := cdp.Call(ctx, t, input.DispatchKeyEvent, e)
		return err
	}
	shift := input.DispatchKeyEventParams{Key: "Shift", Code: "ShiftLeft", WindowsVirtualKeyCode: 16, Location: 1}
	altGr := input.DispatchKeyEventParams{Key: "AltGraph", Code: "AltRight", WindowsVirtualKeyCode: 225, Location: 2}
	key := input.DispatchKeyEventParams{Key: s.Key, Code: s.Code}
	down := key
	kind := input.DispatchKeyEventTypeRawKeyDown
	if s.Key != "Dead" {
		kind, down.Text, down.UnmodifiedText = input.DispatchKeyEventTypeKeyDown, s.Key, s.Key
	}
	if s.Shift {
		held = shiftBit
		if err := send(input.DispatchKeyEventTypeRawKeyDown, shift); err != nil {
			return err
		}
	}
	if s.AltGr {
		if err := send(input.DispatchKeyEventTypeRawKeyDown, altGr); err != nil {
			return err
		}
	}
	if err := send(kind, down); err != nil {
		return err
	}
	if err := send(input.DispatchKeyEventTypeKeyUp, key); err != nil {
		return err
	}
	if s.AltGr {
		if err := send(input.DispatchKeyEventTypeKeyUp, altGr); err != nil {
			return err
		}
	}
	if s.Shift {
		held = 0
		return send(input.DispatchKeyEventTypeKeyUp, shift)
	}
	return nil
}

// Compose writes with an input method: what it shows on the way, each in place
// of the one before, and what comes of it.
func (p *Page) Compose(ctx context.Context, way []string, text string) error {
	compose := chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, w := range way {
			n := int64(len([]rune(w)))
			if _, err := cdp.Call(ctx, t, input.ImeSetComposition, input.ImeSetCompositionParams{Text: w, SelectionStart: n, SelectionEnd: n}); err != nil {
				return err
			}
		}
		_, err := cdp.Call(ctx, t, input.InsertText, input.InsertTextParams{Text: text})
		return err
	})
	if err := p.run(ctx, compose); err != nil {
		return fmt.Errorf("person: compose: %w", err)
	}
	return nil
}

// ClickScreen clicks on the middle of the remote screen.
func (p *Page) ClickScreen(ctx context.Context) error {
	at, err := look[point](ctx, p, "at the viewer", `() => { `+screen+` return place(width / 2, height / 2); }`)
	if err != nil {
		return err
	}
	return p.click(ctx, at)
}
