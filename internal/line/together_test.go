package line

import (
	"io"
	"net"
	"path/filepath"
	"testing"

	"github.com/hashicorp/yamux"
)

// counted counts what is read at once.
type counted struct {
	net.Conn
	reads [][]byte
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.reads = append(c.reads, append([]byte(nil), p[:n]...))
	return n, err
}

// A frame's header never arrives without its body, and all arrives as it is.
func TestFramesArriveWhole(t *testing.T) {
	// Packets: what is read is what was written at once.
	l, err := net.Listen("unixpacket", filepath.Join(t.TempDir(), "line"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := net.Dial("unixpacket", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	end := &counted{Conn: other}
	cfg := yamux.DefaultConfig()
	cfg.EnableKeepAlive, cfg.LogOutput = false, io.Discard
	host, err := yamux.Client(&together{Conn: conn}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := yamux.Server(end, cfg)
	if err != nil {
		t.Fatal(err)
	}
	out, err := host.Open()
	if err != nil {
		t.Fatal(err)
	}
	in, err := guest.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a", "line of text", "x"} {
		if _, err := io.WriteString(out, want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != want {
			t.Fatalf("%q, %v", got, err)
		}
	}
	_ = host.Close()
	_ = guest.Close() // after it nothing is read any more
	for _, r := range end.reads {
		if len(r) == frameHeader && r[1] == frameData && r[11] != 0 {
			t.Errorf("a header came alone: %x", r)
		}
	}
}
