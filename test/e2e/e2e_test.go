// Package e2e tests the whole of Anteroom: the real server and machines, the
// real command-line tools in them, a real browser in front of the real page;
// only the providers are played, by the test identity provider.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/person"
)

// shared is the server that most tests use, each with users of its own, and
// the browser that all tests use.
var shared struct {
	rig     *harness.Rig
	browser *person.Browser
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
	if shared.rig, err = harness.Start(ctx, harness.Config{Sites: sites()}); failed(err) {
		return code
	}
	fmt.Printf("server up in %.1fs\n", time.Since(began).Seconds())
	defer func() {
		failed(shared.rig.Close()) // says what is left behind
	}()
	return m.Run()
}

var errNotYet = errors.New("not yet")

func must(t *testing.T, err error) { t.Helper(); people.Must(t, err) }

func limit(t *testing.T, d time.Duration) context.Context { t.Helper(); return people.Limit(t, d) }

// newPerson makes a user who has signed in to the page. What the page should
// not have done fails the test at its end.
func newPerson(t *testing.T, ctx context.Context, rig *harness.Rig, name string) people.Person {
	t.Helper()
	who := people.New(t, ctx, rig, shared.browser, name)
	t.Cleanup(func() {
		for _, p := range who.Page.Problems() {
			t.Errorf("the page: %s", p)
		}
	})
	return who
}
