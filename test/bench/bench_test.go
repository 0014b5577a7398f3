package main

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

func TestPercentile(t *testing.T) {
	twenty := make([]float64, 20)
	for i := range twenty {
		twenty[i] = float64(20 - i)
	}
	for _, tt := range []struct {
		values  []float64
		p, want float64
	}{
		{nil, 50, 0}, {[]float64{7}, 0, 7}, {[]float64{7}, 95, 7},
		{twenty, 0, 1}, {twenty, 50, 10}, {twenty, 95, 19}, {twenty, 100, 20},
	} {
		if got := percentile(tt.values, tt.p); got != tt.want {
			t.Errorf("percentile %g of %v is %g, want %g", tt.p, tt.values, got, tt.want)
		}
	}
}

func TestMeasureRow(t *testing.T) {
	s := time.Second
	for _, tt := range []struct {
		m    measure
		want string
	}{
		{measure{what: "w", target: 2 * s, took: []time.Duration{s, 2 * s}}, "| w | 2 | 1.00 s | 1.00 s | 2.00 s | 2.00 s | p95 ≤ 2 s | yes |\n"},
		{measure{what: "w", target: s, took: []time.Duration{2 * s}, failed: 1}, "| w | 1 | 2.00 s | 2.00 s | 2.00 s | 2.00 s | p95 ≤ 1 s | **no**, 1 failed |\n"},
		{measure{what: "w", took: []time.Duration{s}}, "| w | 1 | 1.00 s | 1.00 s | 1.00 s | 1.00 s | – | – |\n"},
		{measure{what: "w", failed: 3}, "| w | 0 | – | – | – | – | – | **all 3 runs failed** |\n"},
		{measure{what: "w"}, "| w | 0 | – | – | – | – | – | not run |\n"},
	} {
		if got := tt.m.row(); got != tt.want {
			t.Errorf("got  %swant %s", got, tt.want)
		}
	}
}

func TestChoose(t *testing.T) {
	if all, err := choose(""); err != nil || len(all) != len(parts()) {
		t.Errorf("nothing chosen: %d parts, %v", len(all), err)
	}
	if two, err := choose("kill, cold"); err != nil || len(two) != 2 || two[0].name != "kill" {
		t.Errorf("two chosen: %v, %v", two, err)
	}
	if _, err := choose("restored"); err == nil || !strings.Contains(err.Error(), "restore, ten") {
		t.Errorf("an unknown part: %v", err)
	}
}

// serve plays an RFB server of a small screen, which answers the first request
// with what it is given.
func serve(t *testing.T, width, height uint16, update []byte) *screen {
	t.Helper()
	client, server := net.Pipe()
	done := make(chan struct{})
	t.Cleanup(func() { _ = client.Close(); <-done })
	go func() {
		defer close(done)
		defer func() { _ = server.Close() }()
		init := binary.BigEndian.AppendUint16(nil, width)
		init = binary.BigEndian.AppendUint16(init, height)
		init = append(append(init, make([]byte, 16)...), 0, 0, 0, 2, 'x', 'y')
		for _, turn := range []struct {
			say  []byte
			hear int
		}{{[]byte("RFB 003.008\n"), 12}, {[]byte{1, 1}, 1}, {make([]byte, 4), 1}, {init, 20 + 8 + 10}, {update, 0}} {
			if _, err := server.Write(turn.say); err != nil {
				return
			}
			if skip(server, int64(turn.hear)) != nil {
				return
			}
		}
	}()
	s, err := watch(client)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rectangle is an update of one rectangle in one colour, after a bell and a cut
// text.
func rectangle(x, y, w, h int, encoding uint32, r, g, b byte) []byte {
	msg := []byte{2, 3, 0, 0, 0, 0, 0, 0, 1, 'c', 0, 0, 0, 1}
	for _, n := range []int{x, y, w, h} {
		msg = binary.BigEndian.AppendUint16(msg, uint16(n))
	}
	msg = binary.BigEndian.AppendUint32(msg, encoding)
	for range w * h {
		msg = append(msg, b, g, r, 0)
	}
	return msg
}

func TestScreen(t *testing.T) {
	r, g, b := idp.Codex.Band()
	s := serve(t, 100, 100, rectangle(0, 10, 100, 60, 0, r, g, b))
	if s.painted() || s.shows(idp.Codex) {
		t.Error("a black screen shows something")
	}
	if err := s.until(s.painted); err != nil {
		t.Fatal(err)
	}
	if !s.shows(idp.Codex) || s.shows(idp.Claude) {
		t.Errorf("shows codex: %t, claude: %t", s.shows(idp.Codex), s.shows(idp.Claude))
	}
}

func TestScreenRefuses(t *testing.T) {
	for name, update := range map[string][]byte{
		"beyond the edge":  rectangle(99, 0, 2, 1, 0, 1, 1, 1),
		"below the screen": rectangle(0, 99, 1, 2, 0, 1, 1, 1),
		"not raw":          rectangle(0, 0, 1, 1, 7, 1, 1, 1),
		"unknown message":  {9},
		"cut short":        rectangle(0, 0, 10, 10, 0, 1, 1, 1)[:40],
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, 100, 100, update)
			if err := s.until(s.painted); err == nil {
				t.Error("it was taken")
			}
		})
	}
}
