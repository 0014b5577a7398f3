package egress

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has no label that a guest could choose, and none that names a
// person, a machine or a destination. Upstreams are named by host and port.
type metrics struct {
	decisions *prometheus.CounterVec
	connects  *prometheus.CounterVec
	latency   *prometheus.HistogramVec
	up, down  prometheus.Counter
	active    prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "anteroom_egress_bytes_total",
		Help: "Bytes that passed between machines and the internet, by direction (up: from a machine).",
	}, []string{"direction"})
	m := &metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_egress_requests_total",
			Help: "Requests of machines to reach something, by decision.",
		}, []string{"decision"}),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_egress_upstream_connects_total",
			Help: "Connections that an upstream was asked for, by how that ended.",
		}, []string{"upstream", "result"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "anteroom_egress_upstream_connect_seconds",
			Help:    "Time until an upstream had connected to a destination.",
			Buckets: []float64{.005, .025, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"upstream"}),
		up:   bytes.WithLabelValues("up"),
		down: bytes.WithLabelValues("down"),
		active: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "anteroom_egress_active_connections",
			Help: "Connections that machines hold to the egress proxy.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.decisions, m.connects, m.latency, bytes, m.active} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("%w: metrics: %w", ErrConfig, err)
		}
	}
	return m, nil
}

// upstream counts one connection that an upstream was asked for.
func (m *metrics) upstream(up Upstream, result Code, took time.Duration) {
	m.connects.WithLabelValues(up.Addr(), string(result)).Inc()
	if result == Allowed {
		m.latency.WithLabelValues(up.Addr()).Observe(took.Seconds())
	}
}
