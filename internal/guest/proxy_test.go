//go:build linux

package guest

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// host answers what comes over a stream with the same bytes.
func host(t *testing.T, answer string) (dial func(context.Context) (net.Conn, error), asked <-chan *http.Request) {
	t.Helper()
	requests := make(chan *http.Request, 1)
	return func(context.Context) (net.Conn, error) {
		here, there := net.Pipe()
		t.Cleanup(func() { _ = there.Close() })
		go func() {
			req, err := http.ReadRequest(bufio.NewReader(there))
			if err != nil {
				return
			}
			requests <- req
			_, _ = io.WriteString(there, answer)
		}()
		return here, nil
	}, requests
}

func TestConnectTo(t *testing.T) {
	dial, asked := host(t, "HTTP/1.1 200 Connection established\r\n\r\nright behind")
	conn, err := connectTo(t.Context(), "[2001:db8::1]:443", dial)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if req := <-asked; req.Method != http.MethodConnect || req.RequestURI != "[2001:db8::1]:443" || req.Host != req.RequestURI || len(req.Header) != 0 {
		t.Errorf("the host was asked %+v", req)
	}
	got := make([]byte, len("right behind"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "right behind" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConnectToRefused(t *testing.T) {
	for answer, want := range map[string]error{
		"HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n\r\nno\n": errNoWay,
		"HTTP/1.1 502 Bad Gateway\r\n\r\n":                        errNoWay,
		"HTTP/1.1 204 No Content\r\n\r\n":                         errNoWay,
		"SSH-2.0-OpenSSH_9.2\r\n\r\n":                             nil, // any
	} {
		dial, _ := host(t, answer)
		conn, err := connectTo(t.Context(), "example.com:443", dial)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%q: %v, %v", answer, conn, err)
		}
	}
	noLine := errors.New("no line")
	if _, err := connectTo(t.Context(), "example.com:443", func(context.Context) (net.Conn, error) { return nil, noLine }); !errors.Is(err, noLine) {
		t.Errorf("without a line: %v", err)
	}
}

// A host that does not answer is not waited for longer than there is time.
func TestConnectToEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	dial, _ := host(t, "")
	if conn, err := connectTo(ctx, "example.com:443", dial); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, %v", conn, err)
	}
}

// Everything that runs as the person gets all spellings of the proxy variables.
func TestProxyVariables(t *testing.T) {
	env := baseEnv(map[string]string{"TERM": "xterm"})
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"} {
		want := "http://127.0.0.1:3128"
		if name == "NO_PROXY" {
			want = "localhost,127.0.0.1,::1"
		}
		for _, spelling := range []string{name, strings.ToLower(name)} {
			if got := getEnv(env, spelling); got != want {
				t.Errorf("%s is %q, want %q", spelling, got, want)
			}
		}
	}
}
