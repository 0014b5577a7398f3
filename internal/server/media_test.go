package server

import (
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// A media port that is in use is an error where it was asked for.
func TestMediaPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	c := Defaults()
	c.Logger = slog.New(slog.DiscardHandler)
	c.MediaAddress = l.Addr().String()
	if _, err := newGateway(c, prometheus.NewRegistry()); err == nil || !strings.Contains(err.Error(), "give another address with --media-address") {
		t.Errorf("%v", err)
	}
	c.MediaAddress = mediaOff
	if g, err := newGateway(c, prometheus.NewRegistry()); g != nil || err != nil {
		t.Errorf("%v, %v", g, err)
	}
}

func TestMediaAddress(t *testing.T) {
	for _, tt := range []struct {
		listen, media, want string
		chosen              bool
	}{
		{"127.0.0.1:8080", "", "127.0.0.1:8081", true},
		{"127.0.0.1:0", "", "127.0.0.1:0", true},
		{"0.0.0.0:443", "", "0.0.0.0:8081", false},
		{":443", "", ":8081", false},
		{"127.0.0.1:8080", "0.0.0.0:9", "0.0.0.0:9", false},
	} {
		c := Config{Listen: tt.listen, Media: Media{MediaAddress: tt.media}}
		if got, chosen := c.mediaAddress(); got != tt.want || chosen != tt.chosen {
			t.Errorf("%+v: %s, %v", tt, got, chosen)
		}
	}
}
