package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/steps"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

const (
	email    = "demo@example.com"
	password = idp.DefaultPassword
	// stepTime is how long one step may take, on a machine that is busy.
	stepTime = 2 * time.Minute
)

// tool is how one of the real tools is used after the sign-in.
type tool struct {
	provider idp.Provider
	name     string
	status   string // its own status command; empty if it has none
	says     string // what that says of somebody who is signed in
	prompt   string // asks it one thing
}

var tools = []tool{
	{provider: idp.Claude, name: "Claude Code", status: "claude auth status", says: `"loggedIn": true`, prompt: "claude -p hello"},
	{provider: idp.Codex, name: "Codex", status: "codex login status", says: "Logged in using ChatGPT", prompt: "codex exec --skip-git-repo-check hello"},
	{provider: idp.Gemini, name: "Gemini CLI", prompt: "gemini -p hello --skip-trust"},
}

// demo is one run: a server, a browser, and a person in front of it.
type demo struct {
	cfg     config
	steps   *steps.Printer
	began   time.Time
	rig     *harness.Rig
	user    *harness.User
	browser *person.Browser
	page    *person.Page
	shots   int
}

// step runs one step and prints it.
func (d *demo) step(name string, work func() error) error {
	return d.steps.Do(name, func(steps.Status) error { return work() })
}

// timed is a step with a time limit. The name is said with the tool's.
func (d *demo) timed(ctx context.Context, t tool, name string, work func(ctx context.Context) error) error {
	return d.step(t.name+": "+name, func() error {
		ctx, cancel := context.WithTimeout(ctx, stepTime)
		defer cancel()
		return work(ctx)
	})
}

// shoot writes a screenshot of the stage that has been reached.
func (d *demo) shoot(ctx context.Context, name string) error {
	d.shots++
	return d.page.Screenshot(ctx, filepath.Join(d.cfg.out, fmt.Sprintf("%02d-%s.png", d.shots, name)))
}

// stage is one step with one tool.
type stage struct {
	name string
	work func(ctx context.Context, t tool, r *result) error
}

// signIn does with one tool all that a person does. What failed is in the
// result and has been printed.
func (d *demo) signIn(ctx context.Context, t tool) result {
	r := result{tool: t, began: time.Now()}
	stages := []stage{
		{"Connect", d.connect},
		{"a live screen", d.awaitViewer},
		{"its sign-in page", d.awaitSignInPage},
		{"signing in by hand", d.fillIn},
		{"captured, stored, delivered", d.awaitCompleted},
		{"machine destroyed", d.awaitDestroyed},
		{"own terminal", d.openTerminal},
	}
	if t.status != "" {
		stages = append(stages, stage{t.status, d.askStatus})
	}
	stages = append(stages, stage{t.prompt, d.askPrompt})
	for _, s := range stages {
		r.err = d.timed(ctx, t, s.name, func(ctx context.Context) error { return s.work(ctx, t, &r) })
		if r.err != nil {
			r.failedAt = s.name
			d.afterFailure(ctx, t)
			break
		}
	}
	r.total = time.Since(r.began)
	return r
}

func (d *demo) connect(ctx context.Context, t tool, r *result) error {
	if err := d.page.Home(ctx); err != nil {
		return err
	}
	r.began = time.Now()
	id, err := d.page.Connect(ctx, string(t.provider))
	if err != nil {
		return err
	}
	r.session, r.started = id, time.Since(r.began)
	return d.shoot(ctx, string(t.provider)+"-starting")
}

func (d *demo) awaitViewer(ctx context.Context, t tool, r *result) error {
	took, err := d.page.ViewerTook(ctx)
	if err != nil {
		return err
	}
	r.viewer = took
	return d.shoot(ctx, string(t.provider)+"-viewer")
}

func (d *demo) awaitSignInPage(ctx context.Context, t tool, r *result) error {
	took, err := d.page.SignInPageTook(ctx, t.provider)
	if err != nil {
		return err
	}
	r.signInPage = took
	return d.shoot(ctx, string(t.provider)+"-sign-in-page")
}

func (d *demo) fillIn(ctx context.Context, t tool, _ *result) error {
	return d.page.SignInAt(ctx, t.provider, email, password)
}

// awaitCompleted waits for the page to show the end, and reads when each step
// was done from the session's events.
func (d *demo) awaitCompleted(ctx context.Context, t tool, r *result) error {
	if _, err := d.page.WaitState(ctx, session.Completed); err != nil {
		return err
	}
	err := d.user.Follow(ctx, r.session, func(e harness.Event) bool {
		at := e.At.Sub(r.began)
		switch e.State {
		case session.Capturing:
			r.signedIn = at
		case session.Delivering:
			r.stored = at
		case session.Completed:
			r.delivered = at
		}
		return e.State == session.Completed
	})
	if err != nil {
		return err
	}
	return d.shoot(ctx, string(t.provider)+"-completed")
}

// awaitDestroyed believes neither the page nor the server alone: the host must
// hold nothing of the machine either.
func (d *demo) awaitDestroyed(ctx context.Context, t tool, _ *result) error {
	if err := d.page.WaitDestroyed(ctx); err != nil {
		return err
	}
	if err := d.rig.WaitNoBrowserMachines(ctx); err != nil {
		return err
	}
	return d.shoot(ctx, string(t.provider)+"-destroyed")
}

func (d *demo) openTerminal(ctx context.Context, _ tool, _ *result) error {
	return d.page.OpenTerminal(ctx)
}

func (d *demo) askStatus(ctx context.Context, t tool, _ *result) error {
	if err := d.ask(ctx, t.status, t.says); err != nil {
		return err
	}
	return d.shoot(ctx, string(t.provider)+"-status")
}

func (d *demo) askPrompt(ctx context.Context, t tool, _ *result) error {
	if err := d.ask(ctx, t.prompt, t.provider.Answer()); err != nil {
		return err
	}
	return d.shoot(ctx, string(t.provider)+"-prompt")
}

// ask types a command into the terminal and wants its output to contain want.
func (d *demo) ask(ctx context.Context, command, want string) error {
	output, code, err := d.page.Shell(ctx, command)
	if err == nil && (code != 0 || !strings.Contains(output, want)) {
		err = fmt.Errorf("%s: exit code %d and %q; want 0 and %q", command, code, output, want)
	}
	return err
}

// afterFailure leaves a screenshot and the server's last words.
func (d *demo) afterFailure(ctx context.Context, t tool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := d.shoot(ctx, string(t.provider)+"-failed"); err != nil {
		d.steps.Note("%v", err)
	}
	d.steps.Note("The server's log ends with:\n%s", d.rig.LogTail(15))
}

// finish looks at the connections once more, and at what the page should not
// have done.
func (d *demo) finish(ctx context.Context) error {
	return d.step("The connections at the end", func() error {
		ctx, cancel := context.WithTimeout(ctx, stepTime)
		defer cancel()
		if err := d.page.Home(ctx); err != nil {
			return err
		}
		if err := d.shoot(ctx, "connections"); err != nil {
			return err
		}
		if problems := d.page.Problems(); len(problems) > 0 {
			return fmt.Errorf("the page did what it should not have: %s", strings.Join(problems, "; "))
		}
		return nil
	})
}

// close removes all that the demo has made, but for the screenshots.
func (d *demo) close() error {
	var errs []error
	if d.browser != nil {
		errs = append(errs, d.browser.Close())
	}
	if d.rig != nil {
		errs = append(errs, d.rig.Close())
	}
	return errors.Join(errs...)
}
