package egress

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics has no label that a guest could choose, and none that names a
// person, a machine or a destination.
type metrics struct {
	decisions *prometheus.CounterVec
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
	for _, c := range []prometheus.Collector{m.decisions, bytes, m.active} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("%w: metrics: %w", ErrConfig, err)
		}
	}
	return m, nil
}
