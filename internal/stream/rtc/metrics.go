package rtc

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Why a connection failed, or ended other than by the viewer's leaving; labels
// of a metric.
const (
	failedOffer   = "offer"   // it was not acceptable
	failedLimit   = "limit"   // too many viewers
	failedOpen    = "machine" // no screen was opened
	failedICE     = "ice"     // no check of the viewer's arrived, or none was nominated
	failedDTLS    = "dtls"    // checks arrived, and no keys were agreed on
	failedFrame   = "frame"   // the machine sent no picture
	failedLost    = "lost"    // the connection broke off
	failedViewer  = "viewer"  // it broke the rules
	failedGuest   = "guest"   // the machine broke the rules
	failedStalled = "stalled" // the machine takes no input
)

// metrics has no label that a viewer or a guest could choose.
type metrics struct {
	offers     prometheus.Counter
	checks     *prometheus.CounterVec
	connected  *prometheus.CounterVec
	failures   *prometheus.CounterVec
	firstFrame *prometheus.HistogramVec
	active     *prometheus.GaugeVec
	bytes      prometheus.Counter
	frames     *prometheus.CounterVec
	keyframes  prometheus.Counter
	target     prometheus.Histogram
	seen       *prometheus.HistogramVec
	switches   *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		offers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "anteroom_webrtc_offers_total",
			Help: "Offers of viewers that were answered: connections that were tried.",
		}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_webrtc_tried_total",
			Help: "Connections that a viewer was heard to try over a transport (udp, tcp).",
		}, []string{"transport"}),
		connected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_webrtc_connections_total",
			Help: "Connections that were made, by transport (udp, tcp).",
		}, []string{"transport"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_webrtc_failures_total",
			Help: "Connections that were refused, not made or broke off, by reason.",
		}, []string{"reason"}),
		firstFrame: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "anteroom_webrtc_first_frame_seconds",
			Help:    "Time from a viewer's offer until its first picture was sent.",
			Buckets: []float64{.05, .1, .15, .2, .3, .5, .75, 1, 2, 5, 10},
		}, []string{"transport"}),
		active: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anteroom_webrtc_viewers",
			Help: "Viewers that are connected.",
		}, []string{"transport"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "anteroom_webrtc_video_bytes_total",
			Help: "Bytes of video sent to viewers; its rate is the bitrate.",
		}),
		frames: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_webrtc_frames_total",
			Help: "Pictures from machines, by what became of them (sent, dropped).",
		}, []string{"result"}),
		keyframes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "anteroom_webrtc_keyframe_requests_total",
			Help: "Keyframes that machines were asked for.",
		}),
		target: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "anteroom_webrtc_target_bits",
			Help:    "Bitrates that encoders were told.",
			Buckets: []float64{150e3, 300e3, 600e3, 1e6, 1.5e6, 2.5e6, 4e6, 6e6, 8e6},
		}),
		seen: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "anteroom_viewer_first_frame_seconds",
			Help:    "Time from a page's first try of a transport (udp, tcp, vnc) until it showed a picture, as the page says; its count is how many did. Pages that never had video say nothing.",
			Buckets: []float64{.05, .1, .15, .2, .3, .5, .75, 1, 2, 3, 5, 10},
		}, []string{"transport"}),
		switches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_viewer_switches_total",
			Help: "Changes of a page's transport, by the new one (udp, tcp, vnc) and the reason, as the page says once it has video.",
		}, []string{"to", "reason"}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.offers, m.checks, m.connected, m.failures, m.firstFrame, m.active, m.bytes, m.frames, m.keyframes, m.target, m.seen, m.switches} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) failed(reason string) { m.failures.WithLabelValues(reason).Inc() }

// viewer counts a connected viewer until what it returns is called.
func (m *metrics) viewer(transport string) (left func()) {
	m.connected.WithLabelValues(transport).Inc()
	g := m.active.WithLabelValues(transport)
	g.Inc()
	return g.Dec
}

func (m *metrics) first(transport string, took time.Duration) {
	m.firstFrame.WithLabelValues(transport).Observe(took.Seconds())
}
