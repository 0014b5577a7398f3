//go:build linux

package guest

import (
	"context"
	"strings"
	"testing"
)

func TestReach(t *testing.T) {
	for address, want := range map[string]bool{"unix:/run/line.sock": false, "virtio:anteroom.line": true, "vsock:7411": true} {
		dial, virtual, err := Reach(address)
		if err != nil || virtual != want || dial == nil {
			t.Errorf("%s: virtual %v, %v", address, virtual, err)
		}
	}
	for _, address := range []string{"", "unix:", "virtio", "vsock:", "vsock:x", "vsock:4294967296", "tcp:1", "/run/line.sock"} {
		if _, _, err := Reach(address); err == nil || !strings.Contains(err.Error(), address) {
			t.Errorf("%q: %v", address, err)
		}
	}
	dial, _, err := Reach("virtio:no.such.port")
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := dial(t.Context()); err == nil {
		_ = conn.Close()
		t.Error("a port that is not there")
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if dial, _, err = Reach("vsock:7411"); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(ended); err == nil {
		t.Error("it dials with a context that has ended")
	}
}
