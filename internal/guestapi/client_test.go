package guestapi_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine/fake"
	"github.com/anteroom/anteroom/internal/provider"
)

// guest answers every request with the same bytes and closes the stream; what
// was asked is kept.
type guest struct {
	client *guestapi.Client
	line   *line.Line

	mu    sync.Mutex
	asked []string
}

func newGuest(t *testing.T, answer string) *guest {
	t.Helper()
	a, b := net.Pipe()
	host, err := line.Host(a)
	if err != nil {
		t.Fatal(err)
	}
	far, err := line.Guest(b)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{client: guestapi.NewClient(host), line: host}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			stream, err := far.Accept()
			if err != nil {
				return
			}
			work.Go(func() { g.answer(stream, answer) })
		}
	})
	t.Cleanup(func() {
		if err := errors.Join(host.Close(), far.Close()); err != nil {
			t.Error(err)
		}
		work.Wait()
	})
	return g
}

func (g *guest) answer(stream net.Conn, answer string) {
	defer func() { _ = stream.Close() }()
	req, err := http.ReadRequest(bufio.NewReader(stream))
	if err != nil {
		return
	}
	body, _ := io.ReadAll(req.Body)
	g.mu.Lock()
	g.asked = append(g.asked, fmt.Sprintf("%s %s %.40s", req.Method, req.URL.RequestURI(), body))
	g.mu.Unlock()
	_, _ = io.WriteString(stream, answer)
}

func ok(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// calls are all that the client can ask, but the upgrades.
func calls(ctx context.Context, c *guestapi.Client) map[string]func() error {
	file := &provider.File{Name: "x/../y"}
	return map[string]func() error{
		"configure":   func() error { _, err := c.Configure(ctx, guestapi.Configure{}); return err },
		"warm":        func() error { return c.Warm(ctx, guestapi.Warm{}) },
		"auth":        func() error { _, err := c.StartAuth(ctx, guestapi.AuthRequest{Provider: file}); return err },
		"status":      func() error { _, err := c.Status(ctx, 7, 3*time.Second); return err },
		"credentials": func() error { _, err := c.Credentials(ctx); return err },
		"collect":     func() error { _, err := c.Collect(ctx, guestapi.Collect{Provider: file}); return err },
		"deliver":     func() error { _, err := c.Deliver(ctx, guestapi.Delivery{Provider: file}); return err },
		"run":         func() error { _, err := c.Run(ctx, guestapi.RunRequest{}); return err },
	}
}

func TestRequests(t *testing.T) {
	want := map[string]string{
		"configure": "POST /configure ", "warm": "POST /warm ", "auth": "POST /auth/x%2F..%2Fy ", "status": "GET /credentials/status?after=7&wait=3s ",
		"credentials": "GET /credentials/get ", "collect": "POST /credentials/collect ", "deliver": "POST /credentials/put ", "run": "POST /run ",
	}
	g := newGuest(t, ok(`{"files":[{"name":"a","content":"aGk="}]}`))
	for name, call := range calls(t.Context(), g.client) {
		g.asked = nil
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if len(g.asked) != 1 || !strings.HasPrefix(g.asked[0], want[name]) {
			t.Errorf("%s asked %q, want %q", name, g.asked, want[name])
		}
	}
}

func TestRefusedAnswers(t *testing.T) {
	refusal := func(code int) func(error) bool {
		return func(err error) bool {
			var s *guestapi.StatusError
			return errors.As(err, &s) && s.Code == code && len(s.Error()) < 2048
		}
	}
	bad := func(err error) bool { return errors.Is(err, guestapi.ErrResponse) }
	broken := func(err error) bool { return err != nil && !bad(err) }
	for name, test := range map[string]struct {
		answer string
		want   func(error) bool
	}{
		"a refusal":      {"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nno", refusal(409)},
		"a long refusal": {"HTTP/1.1 500 X\r\n\r\n" + strings.Repeat("\x1b[2J", 1<<20), refusal(500)},
		"a redirect":     {"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n", refusal(302)},
		"no content":     {"HTTP/1.1 204 No Content\r\n\r\n", refusal(204)},
		"an upgrade":     {"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", refusal(101)},
		"no JSON":        {ok("<html>"), bad},
		"an empty body":  {ok(""), bad},
		"two values":     {ok("{}{}"), bad},
		"deep":           {ok(strings.Repeat("[", 200_000)), bad},
		"deep, unasked":  {ok(`{"x":` + nested(guestapi.MaxJSONDepth) + `}`), bad},
		"an array":       {ok("[]"), bad},
		"a long body":    {ok(`"` + strings.Repeat("x", guestapi.MaxBodyBytes) + `"`), bad},
		"endless chunks": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("10000\r\n"+strings.Repeat(" ", 0x10000)+"\r\n", 32), bad},
		"a long header":  {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", guestapi.MaxHeaderBytes) + "\r\n\r\n{}", broken},
		"many headers":   {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: x\r\n", 100_000) + "\r\n{}", broken},
		"many 1xx":       {strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 100_000) + ok("{}"), broken},
		"cut short":      {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", broken},
		"a false length": {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}", broken},
		"no HTTP":        {"SSH-2.0-OpenSSH\r\n", broken},
		"nothing":        {"", broken},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t, test.answer)
			for what, call := range calls(t.Context(), g.client) {
				if err := call(); !test.want(err) {
					t.Errorf("%s: %.300v", what, err)
				}
			}
		})
	}
}

func nested(levels int) string { return strings.Repeat("[", levels) + strings.Repeat("]", levels) }

// As deep as is allowed, and brackets that are text, are no fault.
func TestDepth(t *testing.T) {
	for name, x := range map[string]string{
		"as deep as allowed": nested(guestapi.MaxJSONDepth - 1),
		"side by side":       "[" + strings.Repeat(nested(3)+",", 100) + "1]",
		"in a text":          `"\"` + strings.Repeat("[{", 100) + `\\"`,
	} {
		g := newGuest(t, ok(`{"x":`+x+`}`))
		if _, err := g.client.Configure(t.Context(), guestapi.Configure{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCredentialLimits(t *testing.T) {
	file := `{"name":"a","content":"` + strings.Repeat("AAAA", guestapi.MaxFileBytes/3+1) + `"}`
	for name, body := range map[string]string{
		"no files":   `{"files":[]}`,
		"null":       `null`,
		"many files": `{"files":[` + strings.TrimSuffix(strings.Repeat("{},", guestapi.MaxFiles+1), ",") + `]}`,
		"a big file": `{"files":[` + file + `]}`,
	} {
		g := newGuest(t, ok(body))
		if _, err := g.client.Credentials(t.Context()); !errors.Is(err, guestapi.ErrResponse) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := g.client.Collect(t.Context(), guestapi.Collect{}); !errors.Is(err, guestapi.ErrResponse) {
			t.Errorf("%s, collected: %v", name, err)
		}
	}
}

// TestContextEnds: a guest that does not answer holds nobody for longer than
// they wait, and a stream that was opened outlives the wait for it.
func TestContextEnds(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		a, b := net.Pipe()
		host, err := line.Host(a)
		if err != nil {
			t.Fatal(err)
		}
		far, err := line.Guest(b)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = errors.Join(host.Close(), far.Close()) }()
		client := guestapi.NewClient(host)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		for name, call := range calls(ctx, client) {
			if err := call(); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := client.VNC(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("vnc: %v", err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestUpgrade(t *testing.T) {
	g := newGuest(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+line.Upgrade+"\r\n\r\nRFB 003.008\n")
	ctx, cancel := context.WithCancel(t.Context())
	for name, open := range map[string]func() (io.ReadWriteCloser, error){
		"GET /vnc ":                      func() (io.ReadWriteCloser, error) { return g.client.VNC(ctx) },
		"GET /terminal?cols=80&rows=24 ": func() (io.ReadWriteCloser, error) { return g.client.Terminal(ctx, 80, 24) },
	} {
		g.asked = nil
		stream, err := open()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer func() { _ = stream.Close() }()
		if len(g.asked) != 1 || g.asked[0] != name {
			t.Errorf("asked %q, want %q", g.asked, name)
		}
		if got, err := io.ReadAll(stream); string(got) != "RFB 003.008\n" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	cancel()
	if _, err := g.client.VNC(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	refused := newGuest(t, "HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\n\r\n")
	var status *guestapi.StatusError
	if _, err := refused.client.VNC(t.Context()); !errors.As(err, &status) || status.Code != 503 {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := newGuest(t, ok("{}")).client.VNC(t.Context()); !errors.As(err, &status) || status.Code != 200 {
		t.Errorf("an answer that is no upgrade: %v", err)
	}
}

// FuzzResponse: whatever a guest answers, the client gives an error or a value
// within the limits, and comes back.
func FuzzResponse(f *testing.F) {
	f.Add("")
	f.Add(ok("{}"))
	f.Add(ok(`{"seq":9223372036854775807,"phase":"captured","log":["a"],"log_from":-1}`))
	f.Add(ok(`{"files":[{"name":"a","content":"aGk="}],"expires_at":"2030-01-01T00:00:00Z"}`))
	f.Add("HTTP/1.1 409 Conflict\r\n\r\nno")
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: anteroom-stream\r\n\r\nx")
	f.Add("HTTP/1.0 200\r\nConnection: keep-alive\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b")
	f.Fuzz(func(t *testing.T, answer string) {
		g := newGuest(t, answer)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		creds, err := g.client.Credentials(ctx)
		if err == nil && (len(creds.Files) == 0 || len(creds.Files) > guestapi.MaxFiles) {
			t.Errorf("%d files", len(creds.Files))
		}
		for _, f := range creds.Files {
			if len(f.Content) > guestapi.MaxFileBytes {
				t.Errorf("a file of %d bytes", len(f.Content))
			}
		}
		_, _ = g.client.Configure(ctx, guestapi.Configure{})
		_, _ = g.client.Status(ctx, 0, 0)
		if stream, err := g.client.VNC(ctx); err == nil {
			_, _ = io.CopyN(io.Discard, stream, 1<<10)
			_ = stream.Close()
		}
		if ctx.Err() != nil {
			t.Error("it did not come back in time")
		}
	})
}
