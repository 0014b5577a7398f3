package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

const token = "anteroom_token-of-the-tests"

// fake is a server that answers as the real one's document says.
type fake struct {
	terminal func(ctx context.Context, ws *websocket.Conn)

	mu       sync.Mutex
	requests []string
	hello    string
	query    string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, r.Method+" "+r.URL.Path)
	f.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"status":401,"code":"unauthenticated","detail":"You are not signed in."}`)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v1/machines":
		_, _ = io.WriteString(w, `{"id":"machine1","kind":"cli"}`)
	case "POST /api/v1/machines/machine1/tickets":
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"ticket":"once"}`)
	case "GET /api/v1/machines/machine1/terminal":
		f.serveTerminal(w, r)
	case "DELETE /api/v1/sessions/gone":
		w.WriteHeader(http.StatusConflict)
		_, _ = io.WriteString(w, `{"status":409,"code":"conflict","detail":"It has ended."}`)
	case "DELETE /api/v1/sessions/elsewhere":
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	case "DELETE /api/v1/sessions/odd":
		w.WriteHeader(http.StatusBadGateway)
		_, _ = io.WriteString(w, "<html>")
	case "DELETE /api/v1/sessions/one":
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (f *fake) serveTerminal(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	_, hello, err := ws.Read(r.Context())
	if err != nil {
		return
	}
	f.mu.Lock()
	f.hello, f.query = string(hello), r.URL.RawQuery
	f.mu.Unlock()
	f.terminal(r.Context(), ws)
}

func start(t *testing.T, f *fake) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	c, err := New(s.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNew(t *testing.T) {
	for address, good := range map[string]bool{
		"http://127.0.0.1:8080":        true,
		"http://[::1]:8080/":           true,
		"http://localhost":             true,
		"https://anteroom.example":     true,
		"http://anteroom.example":      false,
		"http://10.0.0.1:8080":         false,
		"ftp://127.0.0.1":              false,
		"127.0.0.1:8080":               false,
		"https://u:p@anteroom.example": false,
		"https://anteroom.example/a":   false,
		"https://anteroom.example?a":   false,
		"":                             false,
	} {
		if _, err := New(address, token); (err == nil) != good || err != nil && !errors.Is(err, ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestCancel(t *testing.T) {
	c := start(t, &fake{})
	if err := c.CancelSession(t.Context(), "one"); err != nil {
		t.Error(err)
	}
	for id, want := range map[string]Problem{
		"gone":      {Status: 409, Code: "conflict", Detail: "It has ended."},
		"odd":       {Status: 502},
		"elsewhere": {Status: 307}, // and the token went nowhere
		"a/../../b": {Status: 404},
	} {
		var p *Problem
		if err := c.CancelSession(t.Context(), id); !errors.As(err, &p) || *p != want {
			t.Errorf("%s: %v, want %+v", id, err, want)
		}
	}
}

func TestWrongToken(t *testing.T) {
	c := start(t, &fake{})
	c.token = "another"
	_, err := c.EnsureMachine(t.Context())
	if err == nil || err.Error() != "You are not signed in." || strings.Contains(err.Error(), "another") {
		t.Error(err)
	}
}

func TestUnreachable(t *testing.T) {
	s := httptest.NewServer(&fake{})
	s.Close()
	c, err := New(s.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnsureMachine(t.Context()); err == nil || !strings.Contains(err.Error(), "is the server running there?") || strings.Contains(err.Error(), token) {
		t.Error(err)
	}
}

// input is a reader whose last Read waits until done is called.
type input struct {
	*strings.Reader
	ended chan struct{}
}

func (i input) Read(b []byte) (int, error) {
	n, err := i.Reader.Read(b)
	if errors.Is(err, io.EOF) {
		<-i.ended
	}
	return n, err
}

func TestTerminal(t *testing.T) {
	f := &fake{terminal: func(ctx context.Context, ws *websocket.Conn) {
		var typed bytes.Buffer
		resized := false
		for typed.String() != "ls\n" || !resized {
			kind, msg, err := ws.Read(ctx)
			if err != nil {
				return
			}
			if kind == websocket.MessageText {
				resized = string(msg) == `{"resize":{"cols":120,"rows":40}}`
				continue
			}
			typed.Write(msg)
		}
		_ = ws.Write(ctx, websocket.MessageBinary, []byte("a file\r\n"))
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"something":"else"}`))
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"exit":{"code":7}}`))
		_ = ws.Close(websocket.StatusNormalClosure, "The shell has ended.")
	}}
	c := start(t, f)
	id, err := c.EnsureMachine(t.Context())
	if err != nil || id != "machine1" {
		t.Fatal(id, err)
	}
	in := input{strings.NewReader("ls\n"), make(chan struct{})}
	sizes := make(chan Size, 1)
	sizes <- Size{120, 40}
	var out bytes.Buffer
	code, err := c.Terminal(t.Context(), id, in, &out, Size{90, 30}, sizes, func() { close(in.ended) })
	if err != nil || code != 7 || out.String() != "a file\r\n" {
		t.Errorf("code %d, %v, %q", code, err, out.String())
	}
	if f.hello != `{"ticket":"once"}` || f.query != "cols=90&rows=30" {
		t.Errorf("began with %q, %q", f.hello, f.query)
	}
}

// What is typed has an end: the shell sees Ctrl-D.
func TestEndOfInput(t *testing.T) {
	f := &fake{terminal: func(ctx context.Context, ws *websocket.Conn) {
		if _, msg, err := ws.Read(ctx); err == nil && string(msg) == "\x04" {
			_ = ws.Write(ctx, websocket.MessageText, []byte(`{"exit":{"code":0}}`))
		}
	}}
	c := start(t, f)
	code, err := c.Terminal(t.Context(), "machine1", strings.NewReader(""), io.Discard, Size{80, 24}, nil, func() {})
	if err != nil || code != 0 {
		t.Error(code, err)
	}
}

func TestTerminalIsCutOff(t *testing.T) {
	f := &fake{terminal: func(_ context.Context, ws *websocket.Conn) {
		_ = ws.Close(4409, "The machine is not running.")
	}}
	c := start(t, f)
	in := input{strings.NewReader(""), make(chan struct{})}
	_, err := c.Terminal(t.Context(), "machine1", in, io.Discard, Size{80, 24}, nil, func() { close(in.ended) })
	if !errors.Is(err, ErrTerminal) || !strings.Contains(err.Error(), "The machine is not running.") {
		t.Error(err)
	}
	ended := false
	if _, err = c.Terminal(t.Context(), "no-machine", in, io.Discard, Size{80, 24}, nil, func() { ended = true }); err == nil || !ended {
		t.Errorf("no ticket: %v, done called: %v", err, ended)
	}
}

func TestTerminalEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{terminal: func(ctx context.Context, ws *websocket.Conn) {
		cancel()
		_, _, _ = ws.Read(ctx)
	}}
	c := start(t, f)
	in := input{strings.NewReader(""), make(chan struct{})}
	if _, err := c.Terminal(ctx, "machine1", in, io.Discard, Size{80, 24}, nil, func() { close(in.ended) }); !errors.Is(err, ErrTerminal) {
		t.Error(err)
	}
}
