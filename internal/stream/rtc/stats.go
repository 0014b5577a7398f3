package rtc

import (
	"encoding/json"
	"slices"
	"time"
)

// transportVNC is what a page is on without this package; a label.
const transportVNC = "vnc"

const (
	maxSwitches   = 32 // of one connection's that are counted
	maxFirstFrame = 2 * time.Minute
)

// What a page may name; labels of metrics.
var (
	saidTransports = []string{transportUDP, transportTCP, transportVNC}
	// Why a page changed its transport: it found a better one, or what it was on
	// did not come about, stopped, broke off, or was not to be had.
	saidReasons = []string{"better", "unreached", "stalled", "broken", "refused", "replaced", "off", "unsupported"}
)

// stats counts what the page says about itself. It is believed within limits:
// what does not fit is left out.
type stats struct {
	first    []string // the transports whose first picture was seen
	switches int
}

func (c *Conn) stats(words json.RawMessage) {
	var m struct {
		Transport  string   `json:"transport"`
		FirstFrame *float64 `json:"first_frame_ms"`
		Switch     *struct {
			To     string `json:"to"`
			Reason string `json:"reason"`
		} `json:"switch"`
	}
	if json.Unmarshal(words, &m) != nil {
		return
	}
	s := &c.saidStats
	if f := m.FirstFrame; f != nil && *f > 0 && *f <= float64(maxFirstFrame.Milliseconds()) &&
		(m.Transport == transportVNC || m.Transport == c.way()) && !slices.Contains(s.first, m.Transport) {
		s.first = append(s.first, m.Transport)
		c.g.metrics.seen.WithLabelValues(m.Transport).Observe(*f / 1000)
	}
	if w := m.Switch; w != nil && s.switches < maxSwitches && slices.Contains(saidTransports, w.To) && slices.Contains(saidReasons, w.Reason) {
		s.switches++
		c.g.metrics.switches.WithLabelValues(w.To, w.Reason).Inc()
	}
}

// way is the connection's transport; empty before there is one.
func (c *Conn) way() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.transport
}
