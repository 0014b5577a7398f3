package person

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/chromedp/chromedp"
)

// OpenTerminal opens the terminal on the person's own machine, from wherever
// they are, and waits until a shell is attached. The first time the machine is
// made or started.
func (p *Page) OpenTerminal(ctx context.Context) error {
	there, err := look[string](ctx, p, "for a way to the terminal", `() => location.pathname === "/terminal" ? "here"
  : document.querySelector("[data-testid=open-terminal]") ? "button" : "address"`)
	if err != nil {
		return err
	}
	switch there {
	case "button":
		err = p.press(ctx, "open-terminal")
	case "address":
		err = p.run(ctx, chromedp.Navigate(p.origin+"/terminal"))
	}
	if err != nil {
		return err
	}
	return p.WaitTerminal(ctx)
}

// WaitTerminal waits until the terminal is attached to a shell, which has said
// something.
func (p *Page) WaitTerminal(ctx context.Context) error {
	_, err := look[bool](ctx, p, "for the shell", `() => document.querySelector("[data-testid=terminal-status]")?.dataset.phase === "live"
  && [...document.querySelectorAll("[data-testid=terminal] .xterm-rows > div")].some((r) => r.textContent.trim())`)
	return err
}

// Type clicks on the terminal, types a command and presses Enter.
func (p *Page) Type(ctx context.Context, command string) error {
	if err := p.press(ctx, "terminal"); err != nil {
		return err
	}
	return p.keys(ctx, command+"\r")
}

// rows is what stands in the terminal's visible rows.
const rows = `const rows = [...document.querySelectorAll("[data-testid=terminal] .xterm-rows > div")]
    .map((r) => r.textContent.replaceAll("\u00a0", " ").trimEnd());
  const text = rows.join("\n").trimEnd();`

// TerminalText is what the terminal shows.
func (p *Page) TerminalText(ctx context.Context) (string, error) {
	text, err := look[string](ctx, p, "at the terminal", `() => { `+rows+` return text || " "; }`)
	return strings.TrimSpace(text), err
}

// WaitTerminalText waits until the terminal shows text that matches, a JavaScript
// and Go regular expression, and returns all that it shows.
func (p *Page) WaitTerminalText(ctx context.Context, re *regexp.Regexp) (string, error) {
	return look[string](ctx, p, fmt.Sprintf("at the terminal for %s", re), `(re) => { `+rows+` return new RegExp(re, "m").test(text) ? text : ""; }`, re.String())
}

// Shell types a command, waits for it to end, and returns what it printed, as
// far as the terminal shows it, and its exit code.
func (p *Page) Shell(ctx context.Context, command string) (output string, code int, err error) {
	p.commands++
	// The word is broken in what is typed, so that only its output matches; the
	// number tells it from the last command's, which may still be shown.
	if err := p.Type(ctx, fmt.Sprintf(`clear; %s; echo "[command"" %d ended with $?]"`, command, p.commands)); err != nil {
		return "", 0, err
	}
	done := regexp.MustCompile(fmt.Sprintf(`\[command %d ended with (\d+)\]`, p.commands))
	text, err := p.WaitTerminalText(ctx, done)
	if err != nil {
		return "", 0, err
	}
	m := done.FindStringSubmatchIndex(text)
	code, err = strconv.Atoi(text[m[2]:m[3]])
	return strings.TrimSpace(text[:m[0]]), code, err
}

// WaitTerminalAgain waits until the terminal, whose connection has broken, is
// attached again.
func (p *Page) WaitTerminalAgain(ctx context.Context) error {
	_, err := look[bool](ctx, p, "for the terminal to be back", `() => { `+rows+`
  return document.querySelector("[data-testid=terminal-status]")?.dataset.phase === "live" && /\[connected again\][^]*\S/.test(text); }`)
	return err
}
