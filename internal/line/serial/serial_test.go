package serial

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a channel between a guest that has it open for ever and hosts that
// come and go.
type wire struct {
	mu   sync.Mutex
	host net.Conn // the guest's side of the pipe to the host that is there
	come *sync.Cond
}

func newWire() *wire {
	w := &wire{}
	w.come = sync.NewCond(&w.mu)
	return w
}

// pair is a pair of sockets.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		if conns[i], err = net.FileConn(file); err != nil {
			t.Fatal(err)
		}
		_ = file.Close()
		t.Cleanup(func() { _ = conns[i].Close() })
	}
	return conns[0], conns[1]
}

// plug connects a host in place of the one before.
func (w *wire) plug(t *testing.T) net.Conn {
	t.Helper()
	a, b := pair(t)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.host != nil {
		_ = w.host.Close()
	}
	w.host = b
	w.come.Broadcast()
	return a
}

func (w *wire) there() net.Conn {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.host == nil {
		w.come.Wait()
	}
	return w.host
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.there().Read(p)
	if err != nil {
		return n, io.EOF // as a port says of a host that is away
	}
	return n, nil
}

// Write loses what it cannot send, as QEMU does.
func (w *wire) Write(p []byte) (int, error) {
	_, _ = w.there().Write(p)
	return len(p), nil
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, w *wire, port *Port) (host, guest net.Conn) {
	t.Helper()
	host, err := Open(within(t), w.plug(t))
	if err != nil {
		t.Fatal(err)
	}
	guest, err = port.Accept(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return host, guest
}

// noise is data with more escape bytes than chance has.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		if b[i] = byte(rand.UintN(256)); b[i] < 64 {
			b[i] = escape
		}
	}
	return b
}

func TestBothWays(t *testing.T) {
	w := newWire()
	port, _ := Listen(w)
	host, guest := connect(t, w, port)
	for what, ends := range map[string][2]net.Conn{"to the guest": {host, guest}, "to the host": {guest, host}} {
		want := noise(5*chunk + 7)
		go func() {
			if n, err := ends[0].Write(want); n != len(want) || err != nil {
				t.Errorf("%s: wrote %d: %v", what, n, err)
			}
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(ends[1], got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: other data arrives: %v", what, err)
		}
	}
}

// TestAgain: a new connection ends the one before, and nothing of that is in it,
// wherever it was cut off.
func TestAgain(t *testing.T) {
	w := newWire()
	port, _ := Listen(w)
	_, guest := connect(t, w, port)
	for round := range 50 {
		writing := make(chan struct{})
		go func() {
			defer close(writing)
			for {
				if _, err := guest.Write(noise(rand.IntN(3 * chunk))); err != nil {
					return
				}
			}
		}()
		host, next := connect(t, w, port)
		if _, err := io.Copy(io.Discard, guest); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Errorf("round %d: the connection before ends with %v", round, err)
		}
		<-writing
		want := []byte("round")
		go func() { _, _ = next.Write(want) }()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(host, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("round %d: the host reads %q, %v", round, got, err)
		}
		guest = next
	}
}

// TestCut: the host's stream may be cut anywhere.
func TestCut(t *testing.T) {
	whole := append(mark(opens, "0123456789abcdef0123456789abcdef"), encode(nil, []byte{1, escape, 2})...)
	for cut := range whole {
		w := newWire()
		port, _ := Listen(w)
		before := w.plug(t)
		go func() { _, _ = io.Copy(io.Discard, before) }()
		ctx, cancel := context.WithCancel(within(t))
		got := make(chan string)
		go func() { // a guest takes each connection as it comes
			defer close(got)
			for {
				guest, err := port.Accept(ctx)
				if err != nil {
					return
				}
				b, _ := io.ReadAll(io.LimitReader(guest, 5)) // one that was cut off ends
				got <- string(b)
			}
		}()
		if _, err := before.Write(whole[:cut]); err != nil {
			t.Fatal(err)
		}
		host, err := Open(within(t), w.plug(t))
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		go func() { _, _ = host.Write([]byte("hello")) }()
		arrived := false
		for !arrived {
			text, ok := <-got
			if !ok {
				t.Fatalf("cut at %d: what was sent over the second connection did not come", cut)
			}
			arrived = text == "hello"
		}
		cancel()
		<-got
	}
}

func TestHostileGuest(t *testing.T) {
	for name, say := range map[string][]byte{
		"no mark": {escape, 'x'}, "no number": append([]byte{escape, accepts}, "what"...),
		"accepted twice": mark(accepts, "0123456789abcdef0123456789abcdef"), "it opens": mark(opens, "0123456789abcdef0123456789abcdef"),
	} {
		w := newWire()
		port, _ := Listen(w)
		host, _ := connect(t, w, port)
		go func() { _, _ = w.Write(say) }()
		if n, err := host.Read(make([]byte, 100)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	a, b := pair(t)
	defer func() { _ = b.Close() }()
	go func() {
		for { // garbage, for ever
			if _, err := b.Write(noise(100)); err != nil {
				return
			}
		}
	}()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Open(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(nil, noise(50)), 3)
	f.Add(append(mark(accepts, "0123456789abcdef0123456789abcdef"), 1, escape), 1)
	f.Fuzz(func(t *testing.T, stream []byte, step int) {
		if step < 1 {
			step = 1
		}
		var d decoder
		total := 0
		for rest := stream; len(rest) > 0; {
			piece := rest[:min(step, len(rest))]
			rest = rest[len(piece):]
			for len(piece) > 0 {
				data, _, id, left, _ := d.next(piece)
				if len(left) > len(piece) || len(d.id) > idLength || id != "" && len(id) != idLength {
					t.Fatalf("%q: %d bytes left of %d, number %q", piece, len(left), len(piece), id)
				}
				total += len(data)
				piece = left
			}
		}
		if total > len(stream) {
			t.Fatalf("%d bytes of data in %d", total, len(stream))
		}
		// What is encoded comes out again.
		var got []byte
		var back decoder
		for rest := encode(nil, stream); len(rest) > 0; {
			var data []byte
			var err error
			if data, _, _, rest, err = back.next(rest); err != nil {
				t.Fatal(err)
			}
			got = append(got, data...)
		}
		if !bytes.Equal(got, stream) {
			t.Fatalf("%q becomes %q", stream, got)
		}
	})
}
