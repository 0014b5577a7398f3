// Package e2e tests the whole of Anteroom: the real server and machines, the
// real command-line tools in them, a real browser in front of the real page;
// only the providers are played, by the test identity provider.
package e2e

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

// shared is the server that most tests use, each with users of its own, and
// the browser that all tests use.
var shared struct {
	rig     *harness.Rig
	browser *person.Browser
	people  atomic.Int64
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	ctx := context.Background()
	failed := func(err error) bool {
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
		return err != nil
	}
	var err error
	if shared.browser, err = person.Open(ctx, person.Config{}); failed(err) {
		return code
	}
	defer func() { failed(shared.browser.Close()) }()
	began := time.Now()
	if shared.rig, err = harness.Start(ctx, harness.Config{Sites: endingSites()}); failed(err) {
		return code
	}
	fmt.Printf("server up in %.1fs\n", time.Since(began).Seconds())
	defer func() {
		failed(shared.rig.Close()) // says what is left behind
	}()
	return m.Run()
}

var errNotYet = errors.New("not yet")

// limit is the time that one test's waits may take together.
func limit(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// someone is a user with the page open.
type someone struct {
	*harness.User
	page *person.Page
}

// newPerson makes a user who has signed in to the page. What the page should
// not have done fails the test at its end; a failed test leaves a screenshot.
func newPerson(t *testing.T, ctx context.Context, rig *harness.Rig, name string) someone {
	t.Helper()
	// Numbered, so that a test can be run more than once.
	u, err := rig.User(ctx, fmt.Sprintf("%s-%d", name, shared.people.Add(1)))
	must(t, err)
	link, err := u.Link(ctx)
	must(t, err)
	page, err := shared.browser.SignIn(ctx, link)
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			screenshot(t, page)
			t.Logf("the server's log ends with:\n%s", rig.LogTail(30))
			retire(t, u)
		}
		for _, p := range page.Problems() {
			t.Errorf("the page: %s", p)
		}
		if err := page.Close(); err != nil {
			t.Error(err)
		}
	})
	return someone{u, page}
}

// retire ends what a failed test has left running, for those after it.
func retire(t *testing.T, u *harness.User) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := u.Retire(ctx); err != nil {
		t.Log(err)
	}
}

func screenshot(t *testing.T, page *person.Page) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	file := filepath.Join(os.TempDir(), "anteroom-"+strings.ReplaceAll(t.Name(), "/", "-")+".png")
	if err := page.Screenshot(ctx, file); err != nil {
		t.Log(err)
		return
	}
	t.Logf("what the person saw: %s", file)
}

// signIn has the person sign in to a provider through the page, up to the
// sign-in form being sent, and returns the session's id.
func (s someone) signIn(t *testing.T, ctx context.Context, provider idp.Provider) string {
	t.Helper()
	id, err := s.page.Connect(ctx, string(provider))
	must(t, err)
	must(t, s.page.WaitSignInPage(ctx, provider))
	must(t, s.page.SignInAt(ctx, provider, s.email(), idp.DefaultPassword))
	return id
}

func (s someone) email() string { return s.Name + "@example.com" }

// completed waits for the session that the page shows to be completed.
func (s someone) completed(t *testing.T, ctx context.Context) {
	t.Helper()
	_, err := s.page.WaitState(ctx, session.Completed)
	must(t, err)
	must(t, s.page.WaitDestroyed(ctx))
}

// shell runs a command on the person's CLI machine and wants it to succeed.
func (s someone) shell(t *testing.T, ctx context.Context, command string) string {
	t.Helper()
	out, code, err := s.Shell(ctx, command)
	if err == nil && code != 0 {
		err = errors.New("it failed")
	}
	if err != nil {
		t.Fatalf("%s: exit code %d: %v\n%s", command, code, err, out)
	}
	return out
}
