package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/machine"
)

// placeMemory is what a machine takes whose person is signing in with the
// largest of the tools (BENCH.md); bytes. What machines may take at most is far
// more, and almost none does.
const placeMemory = 320 << 20

// memoryPlaces is for how many more machines there is memory on the host. It is
// an estimate for the queue: whether a machine is started is the driver's to
// say, which looks at the memory again. Where it cannot be read the driver says
// so too.
func memoryPlaces(cfg Config) int {
	free, err := machine.AvailableMemory()
	if err != nil {
		cfg.Logger.Error("reading how much memory is free", "err", err)
		return 1
	}
	return int(max(0, free-cfg.MinFreeMemory) / placeMemory)
}

// room tells Prometheus, at each scrape, how much room there is for sign-ins.
type room struct {
	service *control.Service
	logger  *slog.Logger
}

var (
	placesDesc = prometheus.NewDesc("anteroom_places_free", "Sign-ins that could start now, beyond those that wait. Machines that are kept ready count as free.", nil, nil)
	queueDesc  = prometheus.NewDesc("anteroom_queue_length", "Sign-ins that wait for a place.", nil, nil)
	poolDesc   = prometheus.NewDesc("anteroom_pool_machines", "Machines of the warm pool, by state: ready, or starting.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (r *room) Describe(out chan<- *prometheus.Desc) {
	out <- placesDesc
	out <- queueDesc
	out <- poolDesc
}

// Collect implements prometheus.Collector.
func (r *room) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	now, err := r.service.Capacity(ctx)
	if err != nil {
		r.logger.Error("reading the capacity for metrics", "err", err)
		return
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(placesDesc, now.Free)
	gauge(queueDesc, now.Waiting)
	gauge(poolDesc, now.Ready, "ready")
	gauge(poolDesc, now.Making, "starting")
}
