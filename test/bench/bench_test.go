package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/steps"
	"github.com/anteroom/anteroom/test/e2e/harness"
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

func TestGroups(t *testing.T) {
	total := 0
	for _, g := range groups(parts()) {
		total += len(g)
		for _, p := range g {
			if !slices.Equal(p.flags, g[0].flags) {
				t.Errorf("%s and %s share a server", p.name, g[0].name)
			}
		}
	}
	if total != len(parts()) || len(groups(parts())) != 3 {
		t.Errorf("%d parts in %d groups", total, len(groups(parts())))
	}
}

func TestAsMeant(t *testing.T) {
	all := []harness.Machine{{ID: "cold"}, {ID: "warm", Restored: true}}
	for _, tt := range []struct {
		id       string
		restored bool
		want     string // in the error; "" for none
	}{
		{"warm", true, ""}, {"cold", false, ""},
		{"cold", true, "was to be restored"}, {"warm", false, "was to be started cold"}, {"gone", true, "cannot be said"}, {"", false, "cannot be said"},
	} {
		err := asMeant(all, tt.id, tt.restored)
		if got := fmt.Sprint(err); (err == nil) != (tt.want == "") || !strings.Contains(got, tt.want) && err != nil {
			t.Errorf("%q, restored %t: %v, want %q", tt.id, tt.restored, err, tt.want)
		}
	}
}

// quiet shows steps to nobody.
func quiet(t *testing.T) *steps.Printer {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	return steps.New(null)
}

// What is not measured, or less often, must not look like a whole measurement.
func TestOmissions(t *testing.T) {
	whole := &bench{runs: 2, steps: quiet(t)}
	if err := whole.repeat(t.Context(), nil, "things", 2, func(context.Context, int) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if text := whole.report.markdown(); !strings.Contains(text, "Nothing was left out") {
		t.Errorf("a whole measurement says:\n%s", text)
	}

	ctx, cancel := context.WithCancel(t.Context())
	broken := &bench{runs: 3, steps: quiet(t)}
	err := broken.repeat(ctx, nil, "things", 3, func(_ context.Context, i int) error {
		if i == 1 {
			cancel()
		}
		return ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("broken off: %v", err)
	}
	broken.report.leaveOut("another part: %v", errors.New("this\nand that"))
	text := broken.report.markdown()
	for _, want := range []string{"not a whole measurement", "- things: 1 of 3 runs went well.\n", "- another part: this\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "Nothing was left out") || strings.Contains(text, "and that") {
		t.Errorf("it says\n%s", text)
	}
}

func TestMemoryRow(t *testing.T) {
	row := memoryRow{tool: idp.Codex, machines: 2, total: pss{all: 440e6, anon: 100e6, file: 200e6, shmem: 140e6}, server: pss{all: 40e6}, host: 500e6, counts: 38}
	if got, want := row.row(), "| codex | 2 | 220 MB | 50 MB | 100 MB | 70 MB | 19.0 | 250 MB | 40 MB | ≤ 220 MB | yes |\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	row.total.all = 220<<20 + 220<<20
	if got := row.row(); !strings.Contains(got, "231 MB") || !strings.Contains(got, "**no**") {
		t.Errorf("220 MiB: %s", got)
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
	if err := s.until(s.whole(), s.painted); err != nil {
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
			if err := s.until(s.whole(), s.painted); err == nil {
				t.Error("it was taken")
			}
		})
	}
}
