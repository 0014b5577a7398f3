package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/client"
)

// terminal returns both ends of a pseudo-terminal of 90 by 30.
func terminal(t *testing.T) (outer, inner *os.File) {
	t.Helper()
	outer, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = outer.Close() })
	if err := unix.IoctlSetPointerInt(int(outer.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(outer.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	inner, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = inner.Close() })
	resize(t, inner, 90, 30)
	return outer, inner
}

func resize(t *testing.T, tty *os.File, cols, rows uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: cols, Row: rows}); err != nil {
		t.Fatal(err)
	}
}

// echoes says whether a terminal shows what is typed, as one that is not raw does.
func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// machine is a server whose terminals are served by a function.
func machine(t *testing.T, serve func(ctx context.Context, ws *websocket.Conn, query string)) *client.Client {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/machines"):
			_, _ = io.WriteString(w, `{"id":"m"}`)
		case strings.HasSuffix(r.URL.Path, "/tickets"):
			_, _ = io.WriteString(w, `{"ticket":"t"}`)
		default:
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer func() { _ = ws.CloseNow() }()
			if _, _, err := ws.Read(r.Context()); err == nil {
				serve(r.Context(), ws, r.URL.RawQuery)
			}
		}
	}))
	t.Cleanup(s.Close)
	c, err := client.New(s.URL, "token")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestShell(t *testing.T) {
	outer, inner := terminal(t)
	var query, resized string
	var raw bool
	c := machine(t, func(ctx context.Context, ws *websocket.Conn, q string) {
		query, raw = q, !echoes(t, inner)
		resize(t, inner, 120, 40)
		if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
			return
		}
		_, msg, err := ws.Read(ctx)
		if err != nil {
			return
		}
		resized = string(msg)
		// Ctrl-C is the shell's, not ours.
		if _, err := outer.Write([]byte{3}); err != nil {
			return
		}
		_, msg, err = ws.Read(ctx)
		if err != nil {
			return
		}
		_ = ws.Write(ctx, websocket.MessageBinary, fmt.Appendf(nil, "got %q\r\n", msg))
		_ = ws.Write(ctx, websocket.MessageText, []byte(`{"exit":{"code":5}}`))
	})
	a := &app{in: inner, out: inner, err: inner}
	if err := a.shell(t.Context(), c); exitCode(err) != 5 {
		t.Fatalf("%v", err)
	}
	if query != "cols=90&rows=30" || !raw || resized != `{"resize":{"cols":120,"rows":40}}` {
		t.Errorf("%q, raw %v, then %q", query, raw, resized)
	}
	shown := make([]byte, 100)
	n, err := outer.Read(shown)
	if err != nil || !strings.Contains(string(shown[:n]), `got "\x03"`) {
		t.Errorf("%q, %v", shown[:n], err)
	}
	if !echoes(t, inner) {
		t.Error("the terminal was left raw")
	}
}

func TestShellThatIsCutOffLeavesTheTerminalAsItWas(t *testing.T) {
	_, inner := terminal(t)
	c := machine(t, func(context.Context, *websocket.Conn, string) {})
	a := &app{in: inner, out: inner, err: inner}
	if err := a.shell(t.Context(), c); exitCode(err) != exitFailure {
		t.Errorf("%v", err)
	}
	if !echoes(t, inner) {
		t.Error("the terminal was left raw")
	}
}
