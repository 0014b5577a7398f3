//go:build linux

package catch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv says that this is the process with a network of its own.
const insideEnv = "ANTEROOM_TEST_NETWORK"

// TestTUN tries a real device of a real kernel, in a network namespace that
// has nothing else in it.
func TestTUN(t *testing.T) {
	if os.Getenv(insideEnv) != "" {
		testTUN(t)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can make a network namespace and a TUN device")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestTUN$", "-test.v", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func testTUN(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(unix.RTM_NEWLINK, 0, up(int32(lo.Index))); err != nil { // for the other side
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", "192.0.2.1:443"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Fatalf("this is no network of its own: %v, %v", conn, err)
	}
	device, err := Open()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENODEV) {
		t.Skipf("SKIPPED: this kernel has no TUN devices: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if second, err := Open(); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a second device: %v, %v", second, err)
	}
	o := &out{serve: echo}
	c, err := New(device, Config{Dial: o.dial, Join: join, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("names", testRealNames)
	t.Run("connections", func(t *testing.T) { testRealConnections(t, o) })
	t.Run("refusals", func(t *testing.T) { testRealRefusals(t, o) })
	t.Run("datagrams", testRealDatagrams)
	t.Run("echo requests", testRealEcho)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	o.serving.Wait()
	if _, err := net.InterfaceByName(DeviceName); err == nil {
		t.Error("the device is still there")
	}
}

// resolver asks the Catcher, as ResolvConf says.
func resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, ask4)
	}}
}

func testRealNames(t *testing.T) {
	if ResolvConf() != "nameserver 198.18.0.2\n" {
		t.Errorf("%q", ResolvConf())
	}
	all, err := resolver().LookupNetIP(t.Context(), "ip", "names.example.com")
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, a := range all {
		if _, synthetic := numberOf(a.Unmap()); !synthetic {
			t.Errorf("an address is %s", a)
		}
	}
	for _, name := range []string{"printer.local", "metadata.google.internal"} {
		var failed *net.DNSError
		if all, err := resolver().LookupNetIP(t.Context(), "ip", name); !errors.As(err, &failed) || !failed.IsNotFound {
			t.Errorf("%s: %v, %v", name, all, err)
		}
	}
}

func dialer() *net.Dialer { return &net.Dialer{Resolver: resolver(), Timeout: patience} }

func testRealConnections(t *testing.T, o *out) {
	data := make([]byte, 3<<20)
	for _, try := range []struct{ network, to, want string }{
		{"tcp4", "real.example.com:443", "real.example.com:443"},
		{"tcp6", "real.example.com:80", "real.example.com:80"},
		{"tcp", "192.0.2.1:25", "192.0.2.1:25"},
		{"tcp", "[2001:db8::1]:443", "[2001:db8::1]:443"},
	} {
		conn, err := dialer().Dial(try.network, try.to)
		if err != nil {
			t.Fatalf("%v: %v", try, err)
		}
		if asked := o.asked(); asked[len(asked)-1] != try.want {
			t.Errorf("%v: the way out was asked for %q", try, asked)
		}
		sent := make(chan error, 1)
		go func() {
			_, err := conn.Write(data)
			sent <- errors.Join(err, conn.(*net.TCPConn).CloseWrite())
		}()
		got, err := io.ReadAll(conn)
		if err := errors.Join(err, <-sent, conn.Close()); err != nil || !slices.Equal(got, data) {
			t.Errorf("%v: %d of %d bytes came back: %v", try, len(got), len(data), err)
		}
	}
}

func testRealRefusals(t *testing.T, o *out) {
	o.becomes(nil)
	defer o.becomes(echo)
	unknown := netip.AddrPortFrom(address4(numbers-1), 443).String()
	for _, to := range []string{"refused.example.com:443", "192.0.2.1:22", "[2001:db8::1]:443", "169.254.169.254:80", unknown} {
		began := time.Now()
		if conn, err := dialer().Dial("tcp", to); !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > patience/4 {
			t.Errorf("%s: %v, %v after %s", to, conn, err, time.Since(began))
		}
	}
}

func testRealDatagrams(t *testing.T) {
	for _, to := range []string{"192.0.2.1:443", "[2001:db8::1]:443", "192.0.2.1:3478"} {
		conn, err := net.Dial("udp", to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", to, err)
		}
		_ = conn.Close()
	}
}

// An answer to a question that was asked later has come, and none to the
// requests.
func testRealEcho(t *testing.T) {
	for network, try := range map[string]struct {
		to   string
		kind byte
	}{"ip4:icmp": {"192.0.2.1", 8}, "ip6:ipv6-icmp": {"2001:db8::1", 128}} {
		conn, err := net.Dial(network, try.to)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte{try.kind, 0, 0xf7 - try.kind, 0xff, 0, 0, 0, 0}); err != nil {
			t.Fatal(err)
		}
		if _, err := resolver().LookupNetIP(t.Context(), "ip", "later.example.com"); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := conn.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %d bytes, %v", network, n, err)
		}
		_ = conn.Close()
	}
}
