package machinetest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
)

// wayOut is the host's end of a line for what the guest sends: it connects to
// port 80 of whatever name, where a page says hello, and refuses all else.
type wayOut struct {
	mu    sync.Mutex // guards what follows
	asked []string
	conns sync.WaitGroup
}

func (w *wayOut) serve(l *line.Line) {
	for {
		stream, err := l.Accept()
		if err != nil {
			w.conns.Wait()
			return
		}
		w.conns.Go(func() {
			defer func() { _ = stream.Close() }()
			w.answer(stream)
		})
	}
}

func (w *wayOut) answer(stream io.ReadWriter) {
	in := bufio.NewReader(stream)
	req, err := http.ReadRequest(in)
	if err != nil {
		return
	}
	w.mu.Lock()
	w.asked = append(w.asked, req.Method+" "+req.RequestURI)
	w.mu.Unlock()
	if req.Method != http.MethodConnect || !strings.HasSuffix(req.RequestURI, ":80") {
		_, _ = io.WriteString(stream, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	_, _ = io.WriteString(stream, "HTTP/1.1 200 Connection established\r\n\r\n")
	if req, err = http.ReadRequest(in); err == nil {
		hello := "hello " + req.Host
		_, _ = fmt.Fprintf(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(hello), hello)
	}
}

// testCatch: programs that know nothing of a proxy leave over the line too, and
// what cannot leave is refused at once.
func testCatch(t *testing.T, s Setup) {
	if s.Exec == nil {
		t.Skip("SKIPPED: these machines have no kernel of their own")
	}
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.CLI, Home: t.TempDir()})
	client, l := guest(t, s.Driver, id, created.Ref)
	out := &wayOut{}
	served := make(chan struct{})
	go func() { defer close(served); out.serve(l) }()
	t.Cleanup(func() { _ = l.Close(); <-served })
	if ack := configure(t, s, client, id, machine.CLI); ack.Uncaught != "" {
		t.Fatalf("they are not caught: %s", ack.Uncaught)
	}
	for _, test := range []struct{ what, command, want string }{
		{"a name", "getent ahostsv4 www.example.com | grep -c '^198[.]1[89][.]'", "3"},
		{"a name, IPv6", "getent ahostsv6 www.example.com | grep -c '^fd61:6e74:6572::'", "3"},
		{"a name that is not public", "getent hosts printer.local; echo $?", "2"},
		{"the machine itself", "getent hosts localhost >/dev/null; echo $?", "0"},
		{"a page", "curl --noproxy '*' -sS http://www.example.com/", "hello www.example.com"},
		{"a page, IPv6", "curl --noproxy '*' -6 -sS http://six.example.com/", "hello six.example.com"},
		{"a page by its address", "curl --noproxy '*' -sS http://192.0.2.7/", "hello 192.0.2.7"},
		{"a page by its address, IPv6", "curl --noproxy '*' -gsS http://[2001:db8::7]/", "hello [2001:db8::7]"},
		{"node", `node -e 'require("http").get("http://node.example.com/", r => r.pipe(process.stdout))'`, "hello node.example.com"},
		{"a port that is refused", bashSays("exec 3<>/dev/tcp/www.example.com/25"), "Connection refused"},
		{"an address that is refused", bashSays("exec 3<>/dev/tcp/169.254.169.254/443"), "Connection refused"},
		{"a datagram", bashSays("exec 3<>/dev/udp/192.0.2.7/443; echo hello >&3; read -t 10 <&3"), "Connection refused"},
		{"a datagram, IPv6", bashSays("exec 3<>/dev/udp/2001:db8::7/3478; echo hello >&3; read -t 10 <&3"), "Connection refused"},
		{"who", "id -u", "1000"},
		{"the device", perlSays(`$r = pack("a16Sx22", "anteroom0", 0x1001); open(F, "+<", "/dev/net/tun") && ioctl(F, 0x400454ca, $r)`), refused},
		{"another device", perlSays(`$r = pack("a16Sx22", "tun9", 0x1001); open(F, "+<", "/dev/net/tun") && ioctl(F, 0x400454ca, $r)`), refused},
		{"packets of one's own", perlSays(`use Socket; socket(S, PF_INET, SOCK_RAW, 1)`), refused},
	} {
		got := person(limited(t, s.Driver), t, client, test.command)
		if got != test.want && (test.want != refused || got != "Permission denied") {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
	out.mu.Lock()
	defer out.mu.Unlock()
	want := []string{
		"CONNECT www.example.com:80", "CONNECT six.example.com:80", "CONNECT 192.0.2.7:80", "CONNECT [2001:db8::7]:80",
		"CONNECT node.example.com:80", "CONNECT www.example.com:25", "CONNECT 169.254.169.254:443",
	}
	if got := slices.Compact(out.asked); !slices.Equal(got, want) {
		t.Errorf("the host was asked\n%q, want\n%q", got, want)
	}
}

// refused is what a system call says to somebody without a capability, where they
// may not open the file in the first place "Permission denied".
const refused = "Operation not permitted"

// bashSays is a command that prints what bash says of an error.
func bashSays(script string) string {
	return fmt.Sprintf(`bash -c '%s' 2>&1 | sed -n 's/.*: //;$p'`, script)
}

// perlSays is a command that prints why the last of some statements fails.
func perlSays(script string) string { return fmt.Sprintf(`perl -e '%s or print $!'`, script) }

// person runs a shell command as the person in a CLI machine, with the proxy
// variables that it gets set.
func person(ctx context.Context, t *testing.T, client *guestapi.Client, command string) string {
	t.Helper()
	result, err := client.Run(ctx, guestapi.RunRequest{Argv: []string{"sh", "-c", command}, Timeout: "2m"})
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return strings.TrimSpace(result.Stdout + result.Stderr)
}
