// Package egress tests that every user leaves from their own address and nothing
// leaves any other way: the real server, in a network namespace of its own in
// which every packet is captured, with real machines, tools and browsers. Its
// upstreams, each with an address of its own, and the sites behind them are
// played.
package egress

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/e2e/people"
	"github.com/anteroom/anteroom/test/network"
	"github.com/anteroom/anteroom/test/person"
	"github.com/anteroom/anteroom/test/upstream"
)

const (
	// exitSite answers as ip.decodo.com does.
	exitSite = "exit.example.com"
	// reportSite takes what a page in a machine has found out.
	reportSite = "report.example.com"
	// plainSite does so too, and is not there by https: Chromium would prefer that.
	plainSite = "plain.example.com"

	proxyPort = "10001"
)

// schemes are the kinds of the upstreams, in the order in which users are given
// them. The first kinds are all that there are, and two users at once leave
// through two of them.
var schemes = []string{"http", "socks5", "https", "http", "http"}

const kinds = 3

// rig is the server in its world.
type rig struct {
	*harness.Rig
	world   *network.World
	door    *network.Door
	ups     []*upstream.Server
	browser *person.Browser
	probe   string                 // the program that is brought into machines
	pages   atomic.Pointer[string] // what plainSite shows
	reports chan string
}

// shared is what all tests use, one after the other. Each has users of its own,
// who are gone with their machines when it ends.
var shared *rig

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) (code int) {
	r := &rig{reports: make(chan string, 2)}
	shared = r
	defer func() {
		if err := r.close(); err != nil {
			fmt.Fprintln(os.Stderr, "egress:", err)
			code = 1
		}
	}()
	if err := r.start(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "egress:", err)
		return 1
	}
	return m.Run()
}

func (r *rig) start(ctx context.Context) (err error) {
	if r.world, err = network.NewWorld(); err != nil {
		return err
	}
	if r.door, err = r.world.Server.Door(); err != nil {
		return err
	}
	sites, err := r.world.Sites.Listen(sitesAddress())
	if err != nil {
		return err
	}
	var urls []string
	for n, scheme := range schemes {
		up, err := r.startUpstream(n, scheme)
		if err != nil {
			return err
		}
		r.ups = append(r.ups, up)
		urls = append(urls, up.URL())
	}
	if r.browser, err = person.Open(ctx, person.Config{}); err != nil {
		return err
	}
	if r.probe, err = buildProbe(); err != nil {
		return err
	}
	r.Rig, err = harness.Start(ctx, harness.Config{
		Address: r.door.Address(), Listener: sites, Upstreams: urls,
		Start: func(cmd *exec.Cmd) error { return r.world.Server.Do(cmd.Start) },
		Flags: []string{
			"--exit-check", "https://" + exitSite + "/json", "--exit-pointer", "/proxy/ip", "--exit-every", "1s",
			"--metrics-public",
		},
		Sites: map[string]http.Handler{exitSite: http.HandlerFunc(tellExit), reportSite: http.HandlerFunc(r.takeReport), plainSite: http.HandlerFunc(r.takeReport)},
	})
	return err
}

func sitesAddress() string { return netip.AddrPortFrom(network.SitesAddr, 3128).String() }

func (r *rig) startUpstream(n int, scheme string) (*upstream.Server, error) {
	return upstream.Start(upstream.Config{
		Scheme: scheme, Address: net.JoinHostPort(network.ProxyAddr(n).String(), proxyPort), Listen: r.world.Proxies.Listen,
		User: fmt.Sprintf("customer-%d", n), Password: fmt.Sprintf("p@ss:w/rd?%d%%", n),
		Exit: network.ExitAddr(n),
		// It is asked once people leave through it, when there is an authority.
		Certificate: func(host string) (*tls.Certificate, error) { return r.IDP.Certificate(host) },
		Dial: func(ctx context.Context, exit netip.Addr) (net.Conn, error) {
			return r.world.Proxies.Dial(ctx, net.TCPAddrFromAddrPort(netip.AddrPortFrom(exit, 0)), sitesAddress())
		},
	})
}

// buildProbe makes the program that runs on any Linux.
func buildProbe() (string, error) {
	dir, err := os.MkdirTemp("", "anteroom-probe-")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-o", file, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build the probe: %w: %s", err, out), os.RemoveAll(dir))
	}
	return file, nil
}

// close ends all that start has started, in reverse.
func (r *rig) close() error {
	var err error
	if r.Rig != nil {
		err = r.Close()
	}
	if r.probe != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Dir(r.probe)))
	}
	if r.browser != nil {
		err = errors.Join(err, r.browser.Close())
	}
	for _, up := range r.ups {
		err = errors.Join(err, up.Close())
	}
	if r.door != nil {
		err = errors.Join(err, r.door.Close())
	}
	if r.world != nil {
		err = errors.Join(err, r.world.Close())
	}
	return err
}

// tellExit tells who asks where they come from, and which of their headers say
// something of it too.
func tellExit(w http.ResponseWriter, r *http.Request) {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"proxy":   map[string]string{"ip": host},
		"headers": map[string]string{"Proxy-Authorization": r.Header.Get("Proxy-Authorization")},
	})
}

func (r *rig) takeReport(w http.ResponseWriter, req *http.Request) {
	if req.Host == plainSite && req.TLS != nil {
		panic(http.ErrAbortHandler)
	}
	if page := r.pages.Load(); req.Method == http.MethodGet && page != nil {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, *page)
		return
	}
	body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
	if err != nil || req.Method != http.MethodPost {
		return
	}
	select {
	case r.reports <- string(body):
	default:
	}
}

// until looks again and again until check finds nothing wrong.
func until(ctx context.Context, check func() error) error { return harness.Until(ctx, check) }

func must(t *testing.T, err error) { t.Helper(); people.Must(t, err) }

func limit(t *testing.T, d time.Duration) context.Context { t.Helper(); return people.Limit(t, d) }

// someone is a user with the page open, who leaves through one of our upstreams.
type someone struct {
	people.Person
	id string
}

// newPerson makes a user who has signed in to the page. They, their machines and
// their upstream's port are given back when the test has ended.
func newPerson(t *testing.T, ctx context.Context, name string) someone {
	t.Helper()
	var s someone
	t.Cleanup(func() { // after all else of theirs: no machine asks for another port
		if s.id != "" {
			must(t, s.giveBack())
		}
	})
	s.Person = people.New(t, ctx, shared.Rig, shared.browser, name)
	u, err := shared.DB().UserByName(ctx, s.Name)
	must(t, err)
	s.id = u.ID
	return s
}

// port is the upstream port that the user has, and its number among ours.
func (s someone) port(t *testing.T, ctx context.Context) (store.Port, int) {
	t.Helper()
	p, err := shared.DB().PortOf(ctx, s.id)
	must(t, err)
	for n := range shared.ups {
		if p.Host == network.ProxyAddr(n).String() {
			return p, n
		}
	}
	t.Fatalf("%s has %s, which is none of ours", s.Name, p.PortKey)
	return p, 0
}

// give gives the user an upstream, which nobody has, as an administrator does.
func (s someone) give(t *testing.T, ctx context.Context, n int) store.Port {
	t.Helper()
	p, err := shared.DB().AssignPort(ctx, s.id, portKey(n), 0)
	must(t, err)
	return p
}

// giveBack frees the user's upstream for others, if they have one.
func (s someone) giveBack() error {
	ctx := context.Background()
	p, err := shared.DB().PortOf(ctx, s.id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return shared.DB().ReleasePort(ctx, p.PortKey, 0)
}

// portKey names an upstream.
func portKey(n int) store.PortKey {
	at := shared.ups[n].Address()
	return store.PortKey{Host: at.Addr().String(), Port: int(at.Port())}
}

// capture captures all that is sent where the server runs. Expected are what
// comes through the door, and the given upstreams' connections.
func capture(t *testing.T, ups ...*upstream.Server) *network.Capture {
	t.Helper()
	c, err := shared.world.Server.Capture(func(p network.Packet) bool {
		for _, up := range ups {
			if p.Between(network.ServerAddr, up.Address()) {
				return true
			}
		}
		return shared.door.Expects(p)
	})
	must(t, err)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// clean wants nothing to have been captured but what is expected, and that not
// to be nothing.
func clean(t *testing.T, ctx context.Context, c *network.Capture) {
	t.Helper()
	strange, expected, err := c.Strange(ctx)
	must(t, err)
	t.Logf("%d packets went where they should", expected)
	if expected == 0 {
		t.Error("the capture has seen nothing at all")
	}
	for _, p := range strange {
		t.Errorf("leaked: %s", p)
	}
}
