package rtc

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// What a page says of itself is counted as far as it can be true, and makes no
// series that are not foreseen.
func TestStats(t *testing.T) {
	reg := prometheus.NewRegistry()
	g := newGateway(t, func(c *Config) { c.Registerer = reg })
	v, gst := connect(t, g, viewerOptions{only: transportUDP})
	told := gst.film(100)
	v.json("role")
	for _, words := range []string{
		`{}`, `null`, `1`, `[]`, `"x"`, `{"transport":7}`, `{"switch":7}`, `{"first_frame_ms":"1"}`,
		`{"transport":"udp","first_frame_ms":-1}`, `{"transport":"udp","first_frame_ms":1e300}`, `{"transport":"udp","first_frame_ms":0}`,
		`{"transport":"tcp","first_frame_ms":100}`, `{"transport":"evil","first_frame_ms":100}`,
		`{"switch":{"to":"evil","reason":"stalled"}}`, `{"switch":{"to":"vnc","reason":"evil"}}`, `{"switch":{"to":"vnc"}}`,
		`{"transport":"udp","first_frame_ms":250}`, `{"transport":"udp","first_frame_ms":250}`,
		`{"transport":"vnc","first_frame_ms":400,"switch":{"to":"vnc","reason":"unreached"}}`,
	} {
		v.say(`{"stats":` + words + `}`)
	}
	for range 2 * maxSwitches {
		v.say(`{"stats":{"switch":{"to":"udp","reason":"better"}}}`)
	}
	v.do(guestapi.Input{Type: guestapi.InputKey, ID: 1, Down: true}) // comes after them
	until(t, "a key", told, func(m toldGuest) bool { return m.typ == guestapi.InputKey })
	want := map[string]float64{
		"anteroom_viewer_first_frame_seconds udp": 1, "anteroom_viewer_first_frame_seconds vnc": 1,
		"anteroom_viewer_switches_total unreached vnc": 1, "anteroom_viewer_switches_total better udp": maxSwitches - 1,
	}
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() != "anteroom_viewer_first_frame_seconds" && family.GetName() != "anteroom_viewer_switches_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			name, n := family.GetName(), m.GetCounter().GetValue()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if h := m.GetHistogram(); h != nil {
				n = float64(h.GetSampleCount())
			}
			if want[name] != n {
				t.Errorf("%s: %g, want %g", name, n, want[name])
			}
			delete(want, name)
		}
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}
