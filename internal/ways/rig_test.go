package ways_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/ways"
)

const (
	firstURL  = "https://first.example/json"
	secondURL = "https://second.example/text"
)

// net is the world outside: where each upstream leaves from, what it refuses,
// whether it answers. It implements the proxy.
type world struct {
	*testing.T
	db *sqlite.DB

	mu      sync.Mutex // guards what follows
	exits   map[string]string
	second  map[string]string // what the second opinion says, if something else
	refuses map[string]bool   // "upstream name"
	dead    map[string]bool
	ways    map[string]string // open, by user
	fetched int
	lost    []string
	news    []string
}

func (w *world) Expect(string) {}

func (w *world) Open(userID string, up egress.Upstream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ways[userID] = up.Addr()
}

func (w *world) Shut(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.ways, userID)
}

func (w *world) Fetch(_ context.Context, up egress.Upstream, url string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetched++
	if w.dead[up.Addr()] || w.dead[up.Addr()+" "+url] {
		return nil, &egress.Error{Code: egress.UpstreamUnreachable}
	}
	exit := w.exits[up.Addr()]
	if url == firstURL {
		return []byte(`{"proxy":{"ip":"` + exit + `"}}`), nil
	}
	if other := w.second[up.Addr()]; other != "" {
		exit = other
	}
	return []byte(exit + "\n"), nil
}

func (w *world) Reaches(_ context.Context, up egress.Upstream, name string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dead[up.Addr()]:
		return &egress.Error{Code: egress.UpstreamUnreachable}
	case w.refuses[up.Addr()+" "+name]:
		return &egress.Error{Code: egress.UpstreamRefused}
	}
	return nil
}

// set changes the world.
func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// leaves is where a user's machines leave through; "" if they do not.
func (w *world) leaves(u store.User) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ways[u.ID]
}

func (w *world) user(name string) store.User {
	w.Helper()
	u, err := w.db.CreateUser(w.Context(), name)
	if err != nil {
		w.Fatal(err)
	}
	return u
}

func addr(i int) string { return fmt.Sprintf("proxy.example:%d", 10000+i) }
func key(i int) store.PortKey {
	return store.PortKey{Host: "proxy.example", Port: 10000 + i}
}

// inWorld runs a test with n upstream ports that leave from 203.0.113.1 on.
func inWorld(t *testing.T, n int, test func(w *world)) {
	t.Helper()
	fake.Bubble(t, func(t *testing.T) {
		db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "anteroom.db")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		w := &world{T: t, db: db, exits: map[string]string{}, second: map[string]string{}, refuses: map[string]bool{}, dead: map[string]bool{}, ways: map[string]string{}}
		for i := 1; i <= n; i++ {
			w.exits[addr(i)] = fmt.Sprintf("203.0.113.%d", i)
		}
		test(w)
	})
}

// serve makes the ways over the world, and runs them until the test ends.
func (w *world) serve(change ...func(*ways.Config)) *ways.Ways {
	w.Helper()
	ups, err := egress.ParseUpstreams([]egress.UpstreamURL{egress.UpstreamURL(fmt.Sprintf("http://u:hush@proxy.example:10001-%d", 10000+len(w.exits)))})
	if err != nil {
		w.Fatal(err)
	}
	cfg := ways.Config{
		Database: w.db, Proxy: w, Upstreams: ups, Rest: time.Hour,
		Exit: ways.Exit{URL: firstURL, Pointer: "/proxy/ip", SecondURL: secondURL},
		Lost: func(_ string, why *ways.Error) { w.set(func() { w.lost = append(w.lost, string(why.Code)) }) },
		News: func(_, s string) { w.set(func() { w.news = append(w.news, s) }) },
	}
	for _, c := range change {
		c(&cfg)
	}
	all, err := ways.New(w.Context(), cfg)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- all.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			w.Error(err)
		}
	})
	return all
}

// pass lets time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func file(t *testing.T, name string) *provider.File {
	t.Helper()
	set, err := provider.Load("")
	if err != nil {
		t.Fatal(err)
	}
	f, err := set.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func code(err error) ways.Code {
	var e *ways.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}
