package httpapi

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/stream"
)

// metrics are the server's. Routes are patterns, so that nobody can make
// series by asking for addresses.
type metrics struct {
	requests    *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	streams     *prometheus.GaugeVec
	streamBytes *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_http_requests_total",
			Help: "Requests answered, by route, method and status.",
		}, []string{"route", "method", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "anteroom_http_request_duration_seconds",
			Help:    "Time to answer a request; streams are left out.",
			Buckets: []float64{0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 60},
		}, []string{"route", "method"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "anteroom_http_streams",
			Help: "Open event streams, viewers and terminals.",
		}, []string{"kind"}),
		streamBytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_http_stream_bytes_total",
			Help: "Bytes carried between viewers and machines, counted when a connection ends.",
		}, []string{"kind", "direction"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.streams, m.streamBytes} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) request(method, pattern string, status int, took time.Duration) {
	path := pattern
	if _, p, ok := strings.Cut(pattern, " "); ok {
		path = p
	}
	switch method {
	case "GET", "HEAD", "POST", "PATCH", "DELETE":
	default:
		method = "other"
	}
	if path == "" {
		path = "none"
	}
	m.requests.WithLabelValues(path, method, strconv.Itoa(status)).Inc()
	if !isStream(path) {
		m.duration.WithLabelValues(path, method).Observe(took.Seconds())
	}
}

func isStream(path string) bool {
	return strings.HasSuffix(path, "/events") || strings.HasSuffix(path, "/vnc") || strings.HasSuffix(path, "/terminal")
}

// stream counts an open stream until what it returns is called.
func (m *metrics) stream(kind string) func() {
	g := m.streams.WithLabelValues(kind)
	g.Inc()
	return g.Dec
}

func (m *metrics) bytes(kind string, s stream.Stats) {
	m.streamBytes.WithLabelValues(kind, "to_viewer").Add(float64(s.ToViewer))
	m.streamBytes.WithLabelValues(kind, "from_viewer").Add(float64(s.FromViewer))
}
