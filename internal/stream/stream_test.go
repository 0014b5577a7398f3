package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// limit is how long a test waits for what must come.
const limit = 20 * time.Second

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

// rig is a real WebSocket whose server end is served, and the machine's end.
type rig struct {
	viewer  *websocket.Conn
	machine net.Conn // the machine's own end
	stats   chan Stats
	cancel  context.CancelCauseFunc
}

type server func(context.Context, *websocket.Conn, Opener, Options) Stats

// dial serves one connection. open may be nil: then it connects to rig.machine.
func dial(t *testing.T, serve server, open Opener, opts Options) *rig {
	t.Helper()
	host, guest := net.Pipe()
	t.Cleanup(func() { _ = guest.Close() })
	if open == nil {
		open = func(context.Context, string) (io.ReadWriteCloser, error) { return host, nil }
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	r := &rig{machine: guest, stats: make(chan Stats, 1), cancel: cancel}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		ws, err := websocket.Accept(w, req, nil)
		if err != nil {
			t.Errorf("accept: %v", err)
			return
		}
		r.stats <- serve(ctx, ws, open, opts)
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { cancel(nil) })
	ws, _, err := websocket.Dial(testContext(t), "ws"+strings.TrimPrefix(srv.URL, "http"), nil)
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(1 << 20)
	t.Cleanup(func() { _ = ws.CloseNow() })
	r.viewer = ws
	return r
}

func (r *rig) send(t *testing.T, typ websocket.MessageType, msg string) {
	t.Helper()
	if err := r.viewer.Write(testContext(t), typ, []byte(msg)); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) sendTicket(t *testing.T) {
	t.Helper()
	secret, _ := NewTicket()
	r.send(t, websocket.MessageText, fmt.Sprintf(`{"ticket":%q}`, secret))
}

// closed waits for the end and checks the code that the page sees.
func (r *rig) closed(t *testing.T, want websocket.StatusCode) Stats {
	t.Helper()
	ctx := testContext(t)
	for {
		_, _, err := r.viewer.Read(ctx)
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if !errors.As(err, &ce) {
			t.Fatalf("the connection ended with %v, want code %d", err, want)
		}
		if ce.Code != want {
			t.Fatalf("closed with %d %q, want %d", ce.Code, ce.Reason, want)
		}
		if ce.Reason == "" {
			t.Error("closed without a reason")
		}
		break
	}
	select {
	case s := <-r.stats:
		if s.Code != want {
			t.Errorf("the server says %d, the page saw %d", s.Code, want)
		}
		return s
	case <-ctx.Done():
		t.Fatal("the server's end did not return")
	}
	return Stats{}
}

func TestVNCCarriesBytes(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{})
	r.sendTicket(t)
	if _, err := r.machine.Write([]byte("RFB 003.008\n")); err != nil {
		t.Fatal(err)
	}
	typ, got, err := r.viewer.Read(testContext(t))
	if err != nil || typ != websocket.MessageBinary || string(got) != "RFB 003.008\n" {
		t.Fatalf("the viewer got %v %q, %v", typ, got, err)
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 16<<10) // more than one buffer
	go func() { _ = r.viewer.Write(t.Context(), websocket.MessageBinary, big) }()
	in := make([]byte, len(big))
	if _, err := io.ReadFull(r.machine, in); err != nil || !bytes.Equal(in, big) {
		t.Fatalf("the machine got other bytes, %v", err)
	}
	_ = r.machine.Close()
	s := r.closed(t, websocket.StatusTryAgainLater)
	if s.ToViewer != 12 || s.FromViewer != int64(len(big)) || s.Err != nil {
		t.Errorf("stats are %+v", s)
	}
}

func TestViewerClosesMachineToo(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{})
	r.sendTicket(t)
	if err := r.viewer.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := r.machine.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the machine's end read %v, want EOF", err)
	}
	if s := <-r.stats; s.Code != websocket.StatusNormalClosure || s.Err != nil {
		t.Errorf("stats are %+v", s)
	}
}

func TestCloseCodes(t *testing.T) {
	refuse := func(err error) Opener {
		return func(context.Context, string) (io.ReadWriteCloser, error) { return nil, err }
	}
	good, _ := NewTicket()
	ticket := fmt.Sprintf(`{"ticket":%q}`, good)
	tests := []struct {
		name  string
		open  Opener
		opts  Options
		first string
		typ   websocket.MessageType
		want  websocket.StatusCode
	}{
		{"not JSON", nil, Options{}, "hello", websocket.MessageText, CodeBadMessage},
		{"not a ticket", nil, Options{}, `{"ticket":"abc"}`, websocket.MessageText, CodeBadMessage},
		{"another field", nil, Options{}, `{"ticket":"` + good + `","x":1}`, websocket.MessageText, CodeBadMessage},
		{"binary", nil, Options{}, ticket, websocket.MessageBinary, CodeBadMessage},
		{"too long", nil, Options{}, ticket + strings.Repeat(" ", MaxTicketMessage), websocket.MessageText, websocket.StatusMessageTooBig},
		{"no message", nil, Options{FirstMessage: time.Millisecond}, "", 0, CodeNoTicket},
		{"wrong ticket", refuse(ErrTicket), Options{}, ticket, websocket.MessageText, CodeBadTicket},
		{"no session", refuse(store.ErrNotFound), Options{}, ticket, websocket.MessageText, CodeNotFound},
		{"session ended", refuse(&session.ConflictError{}), Options{}, ticket, websocket.MessageText, CodeEnded},
		{"machine gone", refuse(fmt.Errorf("x: %w", machine.ErrGone)), Options{}, ticket, websocket.MessageText, CodeEnded},
		{"not ready", refuse(fmt.Errorf("x: %w", session.ErrNotReady)), Options{}, ticket, websocket.MessageText, websocket.StatusTryAgainLater},
		{"server's fault", refuse(errors.New("secret internals")), Options{}, ticket, websocket.MessageText, websocket.StatusInternalError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			open := tt.open
			if open == nil {
				open = func(context.Context, string) (io.ReadWriteCloser, error) {
					t.Error("opened without a ticket")
					return nil, ErrTicket
				}
			}
			r := dial(t, ServeVNC, open, tt.opts)
			if tt.first != "" {
				r.send(t, tt.typ, tt.first)
			}
			r.closed(t, tt.want)
		})
	}
}

func TestCancelSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		cause  error
		ticket bool
		want   websocket.StatusCode
	}{
		{ErrSignedOut, true, CodeBadTicket},
		{ErrStopping, true, websocket.StatusGoingAway},
		{ErrStopping, false, websocket.StatusGoingAway},
	} {
		t.Run(fmt.Sprintf("%v %v", tt.cause, tt.ticket), func(t *testing.T) {
			r := dial(t, ServeVNC, nil, Options{})
			if tt.ticket {
				r.sendTicket(t)
				r.send(t, websocket.MessageBinary, "x")
				if _, err := io.ReadFull(r.machine, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			r.cancel(tt.cause)
			r.closed(t, tt.want)
		})
	}
}

func TestEndedIsNotBroken(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{Ended: func(context.Context) bool { return true }})
	r.sendTicket(t)
	_ = r.machine.Close()
	r.closed(t, CodeEnded)
}

func TestVNCRefusesText(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{})
	r.sendTicket(t)
	r.send(t, websocket.MessageText, `{"resize":{"cols":1,"rows":1}}`)
	r.closed(t, CodeBadMessage)
}

func TestMessageTooBig(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{})
	r.sendTicket(t)
	go func() { _, _ = io.Copy(io.Discard, r.machine) }()
	go func() { _ = r.viewer.Write(t.Context(), websocket.MessageBinary, make([]byte, maxMessage+1)) }()
	r.closed(t, websocket.StatusMessageTooBig)
}

// A viewer that does not read costs a bounded time, and the machine's end is
// closed with it.
func TestStalledViewer(t *testing.T) {
	r := dial(t, ServeVNC, nil, Options{Write: 50 * time.Millisecond, Pong: 50 * time.Millisecond, Ping: 20 * time.Millisecond})
	r.sendTicket(t)
	chunk := make([]byte, 1<<20)
	for {
		_ = r.machine.SetWriteDeadline(time.Now().Add(limit))
		if _, err := r.machine.Write(chunk); err != nil {
			if !errors.Is(err, io.ErrClosedPipe) {
				t.Fatalf("writing ended with %v, want a closed pipe", err)
			}
			break
		}
	}
	select {
	case <-r.stats:
	case <-testContext(t).Done():
		t.Fatal("still served")
	}
}

// A viewer that vanished without closing is found by the keepalive.
func TestKeepalive(t *testing.T) {
	// net/http's client side answers pings only while something reads; nobody does.
	r := dial(t, ServeVNC, nil, Options{Ping: 10 * time.Millisecond, Pong: 30 * time.Millisecond})
	r.sendTicket(t)
	if _, err := r.machine.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("the machine's end read %v, want EOF", err)
	}
	if s := <-r.stats; s.Code != websocket.StatusGoingAway || s.Err == nil {
		t.Errorf("stats are %+v", s)
	}
}

func TestTerminal(t *testing.T) {
	r := dial(t, ServeTerminal, nil, Options{})
	r.sendTicket(t)
	expect := func(typ guestapi.TermFrameType, want string) {
		t.Helper()
		_ = r.machine.SetReadDeadline(time.Now().Add(limit))
		got, payload, err := guestapi.ReadTermFrame(r.machine, nil)
		if err != nil || got != typ || string(payload) != want {
			t.Fatalf("the machine got type %d %q, %v; want type %d %q", got, payload, err, typ, want)
		}
	}
	r.send(t, websocket.MessageBinary, "ls\r")
	expect(guestapi.TermData, "ls\r")
	r.send(t, websocket.MessageText, `{"resize":{"cols":120,"rows":40}}`)
	expect(guestapi.TermResize, "\x00\x78\x00\x28")
	if err := guestapi.WriteTermFrame(r.machine, guestapi.TermData, []byte("a b\r\n")); err != nil {
		t.Fatal(err)
	}
	if typ, got, err := r.viewer.Read(testContext(t)); err != nil || typ != websocket.MessageBinary || string(got) != "a b\r\n" {
		t.Fatalf("the viewer got %v %q, %v", typ, got, err)
	}
	if err := guestapi.WriteTermFrame(r.machine, guestapi.TermExit, guestapi.EncodeTermExit(3)); err != nil {
		t.Fatal(err)
	}
	if typ, got, err := r.viewer.Read(testContext(t)); err != nil || typ != websocket.MessageText || string(got) != `{"exit":{"code":3}}` {
		t.Fatalf("the viewer got %v %q, %v", typ, got, err)
	}
	if s := r.closed(t, websocket.StatusNormalClosure); s.ToViewer != 5 || s.FromViewer != 3 {
		t.Errorf("stats are %+v", s)
	}
}

func TestTerminalRefuses(t *testing.T) {
	for _, msg := range []string{
		"", "{}", `{"resize":{}}`, `{"resize":{"cols":0,"rows":24}}`, `{"resize":{"cols":80,"rows":1001}}`,
		`{"resize":{"cols":80,"rows":24}} x`, `{"resize":{"cols":80,"rows":24},"run":"x"}`, strings.Repeat(" ", maxControl) + "{}",
	} {
		t.Run(msg, func(t *testing.T) {
			r := dial(t, ServeTerminal, nil, Options{})
			r.sendTicket(t)
			r.send(t, websocket.MessageText, msg)
			r.closed(t, CodeBadMessage)
		})
	}
}

// A machine that sends nonsense ends its own terminal, with an error for the
// log.
func TestHostileMachine(t *testing.T) {
	for _, sent := range []string{"\x00\xff\xff\xff\xff", "\x07\x00\x00\x00\x00", "\x01\x00\x00\x00\x04\x00\x01\x00\x01"} {
		t.Run(fmt.Sprintf("%x", sent), func(t *testing.T) {
			r := dial(t, ServeTerminal, nil, Options{})
			r.sendTicket(t)
			if _, err := r.machine.Write([]byte(sent)); err != nil {
				t.Fatal(err)
			}
			if s := r.closed(t, websocket.StatusTryAgainLater); !errors.Is(s.Err, guestapi.ErrTermFrame) {
				t.Errorf("the log gets %v", s.Err)
			}
		})
	}
}

func TestTicket(t *testing.T) {
	secret, hash := NewTicket()
	if other, _ := NewTicket(); other == secret {
		t.Fatal("two tickets are the same")
	}
	if got, err := HashTicket(secret); err != nil || got != hash {
		t.Fatalf("hash is %x, %v; want %x", got, err, hash)
	}
	for _, bad := range []string{"", "abc", secret + "A", secret[1:], secret[:42] + "\n", "=" + secret[1:], strings.Repeat("+", 43), secret[:42] + "_"} {
		if _, err := HashTicket(bad); !errors.Is(err, ErrTicket) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzTicketMessage: a first message that is accepted holds a ticket that has
// one hash and one spelling.
func FuzzTicketMessage(f *testing.F) {
	secret, _ := NewTicket()
	f.Add([]byte(`{"ticket":"` + secret + `"}`))
	f.Add([]byte(`{"ticket":""}`))
	f.Add([]byte(`{"ticket":null}{"ticket":1}`))
	f.Add([]byte(`[[[[[[`))
	f.Fuzz(func(t *testing.T, msg []byte) {
		ticket, err := parseTicket(msg)
		if err != nil {
			if ticket != "" {
				t.Fatalf("refused, but %q came back", ticket)
			}
			return
		}
		if len(msg) > MaxTicketMessage || len(ticket) != 43 {
			t.Fatalf("accepted %q", msg)
		}
		if _, err := HashTicket(ticket); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzResize: a size that is accepted is within bounds.
func FuzzResize(f *testing.F) {
	f.Add([]byte(`{"resize":{"cols":120,"rows":40}}`))
	f.Add([]byte(`{"resize":{"cols":1e3,"rows":-1}}`))
	f.Fuzz(func(t *testing.T, msg []byte) {
		cols, rows, err := parseResize(msg)
		if err != nil {
			return
		}
		if _, _, err := guestapi.DecodeTermSize(guestapi.EncodeTermSize(cols, rows)); err != nil || cols < 1 || rows < 1 || cols > 1000 || rows > 1000 {
			t.Fatalf("accepted %d by %d", cols, rows)
		}
	})
}
