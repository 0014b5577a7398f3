// Package live tests the live view in networks of all kinds: the real server
// with real machines, tools and browsers, and a person whose browser reaches it
// over a network of its own, in which packets are dropped, lost, late and few.
package live

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/network"
	"github.com/anteroom/anteroom/test/person"
)

// mediaPort is the server's for screens, UDP and TCP.
const mediaPort = 8081

// What of the link's packets is one of the ways of the live view.
var (
	videoUDP = fmt.Sprintf("udp PORT %d", mediaPort)
	videoTCP = fmt.Sprintf("tcp PORT %d", mediaPort)
)

// shared is what all tests use, one after the other.
var shared rig

type rig struct {
	*harness.Rig
	link    *network.Link
	door    *network.Door
	browser *person.Browser
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	failed := func(err error) bool {
		if err != nil {
			fmt.Fprintln(os.Stderr, "live:", err)
			code = 1
		}
		return err != nil
	}
	defer func() { failed(shared.close()) }()
	if failed(shared.start(context.Background())) {
		return code
	}
	return m.Run()
}

func (r *rig) start(ctx context.Context) error {
	var err error
	if r.link, err = network.NewLink(); err != nil {
		return err
	}
	if r.door, err = r.link.Server.Door(); err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(r.door.Address())
	if err != nil {
		return err
	}
	if err := r.link.Open(at.Port()); err != nil {
		return err
	}
	provider, err := r.link.Server.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	if r.browser, err = person.Open(ctx, person.Config{Within: r.link.Person.Within()}); err != nil {
		return errors.Join(err, provider.Close())
	}
	r.Rig, err = harness.Start(ctx, harness.Config{
		Address: r.door.Address(), Listener: provider,
		Start: func(cmd *exec.Cmd) error { return r.link.Server.Do(cmd.Start) },
		Flags: []string{"--media-address", netip.AddrPortFrom(network.LinkServerAddr, mediaPort).String()},
	})
	return err
}

// close ends all that start has started, in reverse.
func (r *rig) close() error {
	var err error
	if r.Rig != nil {
		err = r.Close()
	}
	if r.browser != nil {
		err = errors.Join(err, r.browser.Close())
	}
	if r.door != nil {
		err = errors.Join(err, r.door.Close())
	}
	if r.link != nil {
		err = errors.Join(err, r.link.Close())
	}
	return err
}

func must(t *testing.T, err error) { t.Helper(); people.Must(t, err) }

func limit(t *testing.T, d time.Duration) context.Context { t.Helper(); return people.Limit(t, d) }

// newPerson makes a user who has signed in to the page, over a link in good
// weather, as it is again when the test has ended.
func newPerson(t *testing.T, ctx context.Context, name string) people.Person {
	t.Helper()
	who := people.New(t, ctx, shared.Rig, shared.browser, name)
	t.Cleanup(func() {
		must(t, shared.link.Fair())
		for _, p := range who.Page.Problems() {
			t.Errorf("the page: %s", p)
		}
	})
	return who
}

// by waits until the screen comes by a transport.
func by(t *testing.T, ctx context.Context, page *person.Page, transport person.Transport) person.Arrival {
	t.Helper()
	got, err := page.WaitTransport(ctx, transport)
	must(t, err)
	return got
}

// signIn signs in at the page, whose first field holds what the test has typed,
// and wants the provider to have been sent exactly that.
func signIn(t *testing.T, ctx context.Context, page *person.Page, provider idp.Provider, typed string) {
	t.Helper()
	seen := len(shared.IDP.Events())
	must(t, page.SendPassword(ctx, provider, idp.DefaultPassword))
	e, err := shared.IDP.WaitFor(ctx, seen, func(e idp.Event) bool {
		return e.Kind == idp.SignedIn || e.Kind == idp.SignInRefused
	})
	must(t, err)
	if e.Kind != idp.SignedIn || e.Account != typed {
		t.Errorf("the provider got (%s)\n%q, want\n%q", e.Kind, e.Account, typed)
	}
}
