package line_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

// pair is the two ends of a line.
func pair(t *testing.T) (host, guest *line.Line) {
	t.Helper()
	a, b := net.Pipe()
	host, err := line.Host(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err = line.Guest(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(host.Close(), guest.Close()); err != nil {
			t.Error(err)
		}
	})
	return host, guest
}

func TestBothWays(t *testing.T) {
	host, guest := pair(t)
	for name, ends := range map[string][2]*line.Line{"host to guest": {host, guest}, "guest to host": {guest, host}} {
		want := bytes.Repeat([]byte("0123456789abcdef"), line.Window/4) // more than a window
		var accepted sync.WaitGroup
		accepted.Go(func() {
			stream, err := ends[1].Accept()
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := io.Copy(stream, stream); err != nil {
				t.Error(err)
			}
			if err := stream.Close(); err != nil {
				t.Error(err)
			}
		})
		stream, err := ends[0].Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		accepted.Go(func() {
			if _, err := stream.Write(want); err != nil {
				t.Error(err)
			}
			_ = stream.Close() // the sending direction
		})
		got, err := io.ReadAll(stream)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came back, want %d: %v", name, len(got), len(want), err)
		}
		accepted.Wait()
	}
}

func TestEnds(t *testing.T) {
	host, guest := pair(t)
	stream, err := host.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := guest.Close(); err != nil {
		t.Fatal(err)
	}
	<-host.Done()
	if _, err := stream.Read(make([]byte, 1)); err == nil {
		t.Error("a stream of a broken line still reads")
	}
	for name, try := range map[string]func() (net.Conn, error){
		"dial":   func() (net.Conn, error) { return host.Dial(t.Context()) },
		"accept": host.Accept,
	} {
		if _, err := try(); !errors.Is(err, line.ErrClosed) || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s on a broken line: %v", name, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := host.Dial(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("dial with a context that has ended: %v", err)
	}
}

func TestClient(t *testing.T) {
	host, guest := pair(t)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/long":
			w.Header().Set("X-Long", strings.Repeat("x", 64<<10))
		default:
			_, _ = io.WriteString(w, r.Host+r.URL.Path)
		}
	})}
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(guest) })
	defer served.Wait()
	defer func() { _ = server.Close() }()
	client := host.Client(16 << 10)
	get := func(path string) (*http.Response, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://anything"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err == nil {
			t.Cleanup(func() { _ = res.Body.Close() })
		}
		return res, err
	}
	res, err := get("/here")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(res.Body); string(body) != "anything/here" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	if res, err := get("/away"); err != nil || res.StatusCode != http.StatusFound {
		t.Errorf("a redirect was followed: %v, %v", res, err)
	}
	if _, err := get("/long"); err == nil {
		t.Error("a header over the limit was taken")
	}
}

// frame is a header of yamux.
func frame(kind byte, flags uint16, stream, length uint32) []byte {
	b := []byte{0, kind, 0, 0}
	binary.BigEndian.PutUint16(b[2:], flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

// TestFlood: a guest that sends more than any use needs loses its line, even
// where it never reads.
func TestFlood(t *testing.T) {
	for name, what := range map[string][]byte{
		"pings":               frame(2, 1, 0, 1),
		"empty frames":        frame(0, 0, 0, 0),
		"frames of a byte":    append(frame(0, 0, 99, 1), 'x'),
		"frames for nothing":  frame(1, 0, 99, 1),
		"answers to no pings": frame(2, 2, 0, 1),
		"an unknown type":     frame(9, 0, 0, 0),
		"another version":     {7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"a duplicate":         append(frame(1, 1, 2, 0), frame(1, 1, 2, 0)...),
		"beyond the window":   frame(0, 1, 2, line.Window+1),
		"2 GiB for nothing":   frame(0, 0, 99, 1<<31),
	} {
		t.Run(name, func(t *testing.T) {
			fake.Bubble(t, func(t *testing.T) {
				a, b := net.Pipe()
				host, err := line.Host(a)
				if err != nil {
					t.Fatal(err)
				}
				for {
					if _, err := b.Write(what); err != nil {
						break
					}
				}
				<-host.Done()
			})
		})
	}
}

// TestKeepalive: what an honest line needs while nothing happens is not a
// flood, and a guest that does not answer loses its line.
func TestKeepalive(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		host, _ := pair(t)
		<-time.After(24 * time.Hour)
		select {
		case <-host.Done():
			t.Error("an idle line has ended")
		default:
		}
		a, b := net.Pipe()
		mute, err := line.Host(a)
		if err != nil {
			t.Fatal(err)
		}
		var read sync.WaitGroup
		read.Go(func() { _, _ = io.Copy(io.Discard, b) })
		began := time.Now()
		<-mute.Done()
		if took := time.Since(began); took > 3*line.Patience {
			t.Errorf("a mute guest had its line for %s", took)
		}
		_ = b.Close()
		read.Wait()
	})
}

// TestStreamsLeftOpen: a guest that never closes its side of the host's streams
// loses its line at a limit, and loses each after a while.
func TestStreamsLeftOpen(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		host, guest := pair(t)
		var kept []net.Conn
		open := func() error {
			stream, err := host.Dial(t.Context())
			if err != nil {
				return err
			}
			got, err := guest.Accept()
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, got)
			return stream.Close()
		}
		for range line.MaxStreams / 2 {
			if err := open(); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(2 * time.Minute)
		for range line.MaxStreams {
			if err := open(); err != nil {
				t.Fatalf("after the first have been given up: %v", err)
			}
		}
		if err := open(); !errors.Is(err, line.ErrClosed) {
			t.Errorf("one more: %v", err)
		}
		<-host.Done()
	})
}

// FuzzHost: whatever a guest writes to its line, the host's end neither
// panics, nor hangs, nor keeps more of it than its windows hold.
func FuzzHost(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add(make([]byte, 256))
	f.Add(bytes.Join([][]byte{frame(1, 1, 2, 0), frame(0, 0, 2, 5), []byte("hello"), frame(0, 4, 2, 0)}, nil))
	f.Add(bytes.Join([][]byte{frame(2, 1, 0, 7), frame(2, 2, 0, 7), frame(3, 0, 0, 0)}, nil))
	f.Add(frame(0, 1, 2, 1<<31))
	f.Add(frame(1, 8, 1, 0xffffffff))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, guest := net.Pipe()
		host, err := line.Host(a)
		if err != nil {
			t.Fatal(err)
		}
		var work sync.WaitGroup
		work.Go(func() { // the egress
			for {
				stream, err := host.Accept()
				if err != nil {
					return
				}
				work.Go(func() {
					_, _ = io.CopyN(io.Discard, stream, 1<<10)
					_ = stream.Close()
				})
			}
		})
		work.Go(func() { // a request
			if stream, err := host.Dial(t.Context()); err == nil {
				_, _ = io.CopyN(io.Discard, stream, 1<<10)
				_ = stream.Close()
			}
		})
		work.Go(func() { _, _ = io.Copy(io.Discard, guest) })
		_, _ = guest.Write(b)
		_ = guest.Close()
		select {
		case <-host.Done():
		case <-time.After(30 * time.Second):
			t.Fatal("the line outlives its connection")
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
		work.Wait()
	})
}
