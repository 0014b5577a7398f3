package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// limit is how long a test waits for what must come.
const limit = 20 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// rig is a server on loopback with a real store behind its authentication and
// two users.
type rig struct {
	*testing.T
	uc         *fake
	db         *sqlite.DB
	server     *Server
	http       *httptest.Server
	log        *syncBuffer
	alice, bob person
}

type person struct {
	user    store.User
	token   string
	session session.ID
	cred    string
	machine string
	more    others // of the real service
}

// syncBuffer is a log that tests read while the server writes it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := startRig(t, change)
	r.http.Start()
	return r
}

// startRig makes everything but does not start the HTTP server.
func startRig(t *testing.T, change func(*Config)) *rig {
	t.Helper()
	r := openRig(t)
	r.uc = newFake()
	r.mount(r.uc, change)
	r.alice, r.bob = r.person("alice"), r.person("bob")
	return r
}

// openRig makes a rig that has a store and nothing else yet.
func openRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, log: &syncBuffer{}}
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	r.db = db
	return r
}

func (r *rig) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// mount puts the API before use cases.
func (r *rig) mount(uc UseCases, change func(*Config)) {
	t := r.T
	t.Helper()
	cfg := Config{
		UseCases: uc, Outward: newOutward(t, r.db, "http://u:hush@proxy.example:10001-10002"), Auth: r.db, Version: "test", Logger: r.logger(),
		Page: fstest.MapFS{
			"index.html":         {Data: []byte("<!doctype html>the page")},
			"assets/main-1a2.js": {Data: []byte("/* " + strings.Repeat("script ", 300) + "*/")},
		},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if r.server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	r.http = httptest.NewUnstartedServer(nil)
	addr := r.http.Listener
	r.http.Config = r.server.HTTPServer()
	r.http.Listener = addr
	t.Cleanup(r.http.Close)
	t.Cleanup(func() { // before Close, which waits for the streams
		if err := r.server.Shutdown(testContextFor(t)); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
}

// testContextFor is for cleanups, where t.Context has ended.
func testContextFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// person makes a user with a token, a session, a credential and a machine.
func (r *rig) person(name string) person {
	r.Helper()
	u, err := r.db.CreateUser(r.Context(), name)
	if err != nil {
		r.Fatal(err)
	}
	p := person{user: u, token: r.secret(u, store.TokenAPI, time.Hour)}
	s, _, err := r.uc.StartSession(r.Context(), u.ID, "claude", "", r.uc.view)
	if err != nil {
		r.Fatal(err)
	}
	p.session, p.cred, p.machine = s.ID, string(session.NewID()), string(session.NewID())
	now := time.Now()
	r.uc.credentials[p.cred] = store.Credential{
		ID: p.cred, UserID: u.ID, Provider: "claude", Version: 1, Active: true, CreatedAt: now,
		Sealed: store.Sealed{KEKID: "CANARY", Ciphertext: []byte("CANARY"), WrappedDEK: []byte("CANARY")},
	}
	r.uc.machines[p.machine] = store.VM{ID: p.machine, UserID: u.ID, Kind: "cli", Driver: "fake", State: store.VMRunning, CreatedAt: now, Ref: json.RawMessage(`"CANARY"`)}
	return p
}

func (r *rig) secret(u store.User, kind store.TokenKind, ttl time.Duration) string {
	r.Helper()
	secret, hash := store.NewSecret("")
	if _, err := r.db.CreateToken(r.Context(), store.Token{UserID: u.ID, Kind: kind, ExpiresAt: time.Now().Add(ttl)}, hash); err != nil {
		r.Fatal(err)
	}
	return secret.Reveal()
}

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   string
}

type edit func(*http.Request)

func bearer(token string) edit {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func header(name, value string) edit {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(h string) edit { return func(r *http.Request) { r.Host = h } }

// do sends one request without a cookie jar.
func (r *rig) do(method, path, body string, edits ...edit) answer {
	r.Helper()
	return r.send(&http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, method, path, body, edits...)
}

func (r *rig) send(c *http.Client, method, path, body string, edits ...edit) answer {
	r.Helper()
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(testContext(r.T), method, r.http.URL+path, rd)
	if err != nil {
		r.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, e := range edits {
		e(req)
	}
	if c.Transport == nil {
		c.Transport = r.http.Client().Transport
	}
	res, err := c.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.Fatal(err)
	}
	return answer{res.StatusCode, res.Header, string(b)}
}

// browser is a client that keeps cookies, signed in by a link.
func (r *rig) browser(p person) *http.Client {
	r.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		r.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: r.http.Client().Transport}
	a := r.send(c, "POST", "/api/v1/login", `{"code":"`+r.secret(p.user, store.TokenLink, time.Minute)+`"}`)
	if a.status != http.StatusOK {
		r.Fatalf("login: %d %s", a.status, a.body)
	}
	return c
}

// problem checks that an answer is a problem with that code, and well made.
func (r *rig) problem(a answer, want ProblemCode) {
	r.Helper()
	var p Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil {
		r.Errorf("not a problem document (%d): %q", a.status, a.body)
		return
	}
	status, title := problemKind(want)
	if a.status != status || p.Code != want || p.Status != status || p.Title != title || p.Detail == "" || p.Type != "urn:anteroom:problem:"+string(want) {
		r.Errorf("got %d %+v, want %d %s", a.status, p, status, want)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		r.Errorf("Content-Type is %q", ct)
	}
}
