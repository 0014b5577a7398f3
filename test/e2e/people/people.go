// Package people has tests use a running Anteroom as persons do: each has a user
// of their own, the page open in a real browser, and a machine to run commands
// on. What does not work fails the test.
package people

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/person"
)

// retireTime limits what is done for a person when their test has ended.
const retireTime = 30 * time.Second

// Must fails the test if there is an error.
func Must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Limit is the time that one test's waits may take together.
func Limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// Person is a user with the page open.
type Person struct {
	*harness.User
	Page *person.Page
}

// number tells people of one name apart, so that a test can run more than once.
var number atomic.Int64

// New makes a user who has signed in to the page. When the test has ended, their
// sessions and machines are gone. If it has failed, it says what they saw last
// and how the server's log ends.
func New(t *testing.T, ctx context.Context, rig *harness.Rig, browser *person.Browser, name string) Person {
	t.Helper()
	u, err := rig.User(ctx, fmt.Sprintf("%s-%d", name, number.Add(1)))
	Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the server's log ends with:\n%s", rig.LogTail(40))
		}
		ctx, cancel := context.WithTimeout(context.Background(), retireTime)
		defer cancel()
		if err := errors.Join(u.Retire(ctx), rig.WaitNoBrowserMachines(ctx)); err != nil {
			t.Error(err)
		}
	})
	link, err := u.Link(ctx)
	Must(t, err)
	page, err := browser.SignIn(ctx, link)
	Must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			screenshot(t, page)
		}
		if err := page.Close(); err != nil {
			t.Error(err)
		}
	})
	return Person{u, page}
}

func screenshot(t *testing.T, page *person.Page) {
	ctx, cancel := context.WithTimeout(context.Background(), retireTime)
	defer cancel()
	file := filepath.Join(os.TempDir(), "anteroom-"+strings.ReplaceAll(t.Name(), "/", "-")+".png")
	if err := page.Screenshot(ctx, file); err != nil {
		t.Log(err)
		return
	}
	t.Logf("what the person saw: %s", file)
}

// Email is the person's address at the providers.
func (p Person) Email() string { return p.Name + "@example.com" }

// Connect has the person press Connect, and returns the session's id.
func (p Person) Connect(t *testing.T, ctx context.Context, provider idp.Provider) (id string) {
	t.Helper()
	Must(t, p.Page.Home(ctx))
	id, err := p.Page.Connect(ctx, string(provider))
	Must(t, err)
	return id
}

// Begin is Connect, until the sign-in page shows.
func (p Person) Begin(t *testing.T, ctx context.Context, provider idp.Provider) (id string) {
	t.Helper()
	id = p.Connect(t, ctx, provider)
	Must(t, p.Page.WaitSignInPage(ctx, provider))
	return id
}

// Finish has the person sign in at the sign-in page that shows, and waits until
// the session is completed.
func (p Person) Finish(t *testing.T, ctx context.Context, provider idp.Provider) {
	t.Helper()
	Must(t, p.Page.SignInAt(ctx, provider, p.Email(), idp.DefaultPassword))
	p.Completed(t, ctx)
}

// SignIn is Begin and Finish.
func (p Person) SignIn(t *testing.T, ctx context.Context, provider idp.Provider) (id string) {
	t.Helper()
	id = p.Begin(t, ctx, provider)
	p.Finish(t, ctx, provider)
	return id
}

// Completed waits until the session that the page shows is completed and its
// machine is gone.
func (p Person) Completed(t *testing.T, ctx context.Context) {
	t.Helper()
	_, err := p.Page.WaitState(ctx, session.Completed)
	Must(t, err)
	Must(t, p.Page.WaitDestroyed(ctx))
}

// Ended waits for the page to say that the session has ended for a reason, and
// wants its sentence there.
func (p Person) Ended(t *testing.T, ctx context.Context, want session.Reason) {
	t.Helper()
	reason, sentence, err := p.Page.Reason(ctx)
	Must(t, err)
	if reason != string(want) || !strings.HasPrefix(sentence, want.Sentence()) {
		t.Errorf("the page says %q (%s), want %q (%s)", sentence, reason, want.Sentence(), want)
	}
}

// Run runs a command on the person's CLI machine, wants it to succeed, and
// returns what it printed.
func (p Person) Run(t *testing.T, ctx context.Context, command string) string {
	t.Helper()
	out, code, err := p.Shell(ctx, command)
	if err == nil && code != 0 {
		err = errors.New("it failed")
	}
	if err != nil {
		t.Fatalf("%s: exit code %d: %v\n%s", command, code, err, out)
	}
	return out
}
