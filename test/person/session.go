package person

import (
	"context"
	"fmt"
	"slices"

	"github.com/anteroom/anteroom/internal/session"
)

// Connect presses a provider's Connect button on the page of the connections,
// and returns the id of the session whose page opens.
func (p *Page) Connect(ctx context.Context, provider string) (string, error) {
	before := p.session(ctx)
	if err := p.press(ctx, "connect-"+provider); err != nil {
		return "", err
	}
	return p.opened(ctx, before)
}

// TryAgain presses the button of a session that ended without success.
func (p *Page) TryAgain(ctx context.Context) (string, error) {
	before := p.session(ctx)
	if err := p.press(ctx, "try-again"); err != nil {
		return "", err
	}
	return p.opened(ctx, before)
}

// session is the id of the session that the page shows, or empty.
func (p *Page) session(ctx context.Context) string {
	id, err := look[string](ctx, p, "at the address", `() => (/^\/sessions\/([a-z2-7]+)$/.exec(location.pathname) ?? ["", "-"])[1]`)
	if err != nil || id == "-" {
		return ""
	}
	return id
}

// opened waits for the page of another session than before.
func (p *Page) opened(ctx context.Context, before string) (string, error) {
	id, err := look[string](ctx, p, "for a new session", `(before) => {
  const problem = document.querySelector("p.error[role=alert]");
  if (problem && problem.textContent) throw new Error("the page says: " + problem.textContent);
  const m = /^\/sessions\/([a-z2-7]+)$/.exec(location.pathname);
  return m && m[1] !== before && document.querySelector("[data-testid=session]") ? m[1] : "";
}`, before)
	return id, err
}

// Cancel presses the Cancel button of the session.
func (p *Page) Cancel(ctx context.Context) error { return p.press(ctx, "cancel") }

// seen is what the page of a session tells.
type seen struct {
	State    session.State
	Reason   string
	Sentence string
	Log      string
}

const sessionJS = `const s = document.querySelector("[data-testid=session]");
  const r = document.querySelector("[data-testid=session-reason]");
  const more = r?.nextElementSibling?.matches("p.hint") ? r.nextElementSibling : null;
  const l = document.querySelector("[data-testid=log] pre");
  const it = {State: s?.dataset.state ?? "", Reason: r?.dataset.reason ?? "", Sentence: [r, more].map((p) => p?.textContent.trim() ?? "").join(" ").trim(), Log: l?.textContent ?? ""};`

// State is the session's state that the page shows; empty if it shows none.
func (p *Page) State(ctx context.Context) (session.State, error) {
	it, err := look[seen](ctx, p, "at the session", `() => { `+sessionJS+` return it; }`)
	return it.State, err
}

// WaitState waits until the page shows one of the states, and returns which. It
// fails at once when the session has ended in another one.
func (p *Page) WaitState(ctx context.Context, want ...session.State) (session.State, error) {
	final := slices.DeleteFunc(session.States(), func(s session.State) bool { return !s.Final() })
	it, err := look[seen](ctx, p, fmt.Sprintf("for the session to be %v", want), `(want, final) => { `+sessionJS+`
  if (want.includes(it.State)) return it;
  return final.includes(it.State) && (it.State === "completed" || it.Reason) ? it : null;
}`, want, final)
	if err == nil && !slices.Contains(want, it.State) {
		err = fmt.Errorf("person: the session is %s, not %v: %s (%s); the tool said %q", it.State, want, it.Sentence, it.Reason, it.Log)
	}
	return it.State, err
}

// Reason waits for the page to say why the session ended, and returns the code,
// and the sentence with what more it says.
func (p *Page) Reason(ctx context.Context) (code, sentence string, err error) {
	it, err := look[seen](ctx, p, "for the reason", `() => { `+sessionJS+` return it.Reason ? it : null; }`)
	return it.Reason, it.Sentence, err
}

// WaitLead waits until the sentence at the top of the session's page begins with
// words.
func (p *Page) WaitLead(ctx context.Context, words string) error {
	_, err := look[bool](ctx, p, fmt.Sprintf("to be told %q", words),
		`(words) => document.querySelector("[data-testid=session-state]")?.textContent.startsWith(words)`, words)
	return err
}

// WaitDestroyed waits for the page to say that the browser machine is gone.
func (p *Page) WaitDestroyed(ctx context.Context) error {
	_, err := look[bool](ctx, p, "for the machine to be destroyed", `() => !!document.querySelector("[data-testid=destroyed]")`)
	return err
}
