package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// metrics tells Prometheus what the service does. Labels come from fixed sets:
// providers of the configuration, states, reasons, kinds.
type metrics struct {
	ended    *prometheus.CounterVec
	took     *prometheus.HistogramVec
	steps    *prometheus.HistogramVec
	machines *prometheus.HistogramVec
	takes    *prometheus.CounterVec
	taking   prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, db *sqlite.DB, logger *slog.Logger) (*metrics, error) {
	seconds := []float64{0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 60, 300, 1800}
	m := &metrics{
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_sessions_ended_total", Help: "Sessions that ended, by provider, final state and reason.",
		}, []string{"provider", "state", "reason"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "anteroom_session_seconds", Help: "Time from the request for a session to its end.", Buckets: seconds,
		}, []string{"provider", "state"}),
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "anteroom_step_seconds", Help: "Time that a session spent in a state.", Buckets: seconds,
		}, []string{"state"}),
		machines: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "anteroom_machine_start_seconds", Help: "Time to start a machine, by kind, way (restored, cold) and result (ok, failed).", Buckets: seconds,
		}, []string{"kind", "way", "result"}),
		takes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "anteroom_pool_takes_total", Help: "Machines that sign-ins asked the warm pool for, by result: hit, miss (it had none) or failed.",
		}, []string{"result"}),
		taking: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "anteroom_pool_take_seconds", Help: "Time until a machine of the warm pool was a sign-in's, configured.",
			Buckets: []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 5},
		}),
	}
	for _, result := range []string{control.TakeHit, control.TakeMiss, control.TakeFailed} {
		m.takes.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{m.ended, m.took, m.steps, m.machines, m.takes, m.taking, &counts{db: db, logger: logger}} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) SessionEnded(provider string, state session.State, reason session.Reason, took time.Duration) {
	m.ended.WithLabelValues(provider, string(state), string(reason)).Inc()
	m.took.WithLabelValues(provider, string(state)).Observe(took.Seconds())
}

func (m *metrics) MachineStarted(kind machine.Kind, restored bool, took time.Duration, err error) {
	way, result := "cold", "ok"
	if restored {
		way = "restored"
	}
	if err != nil {
		result = "failed"
	}
	m.machines.WithLabelValues(string(kind), way, result).Observe(took.Seconds())
}

func (m *metrics) StepTook(step session.State, took time.Duration) {
	m.steps.WithLabelValues(string(step)).Observe(took.Seconds())
}

func (m *metrics) SpareTaken(result string, took time.Duration) {
	m.takes.WithLabelValues(result).Inc()
	if result == control.TakeHit {
		m.taking.Observe(took.Seconds())
	}
}

// counts reads what is in the database at each scrape.
type counts struct {
	db     *sqlite.DB
	logger *slog.Logger
}

var (
	sessionsDesc    = prometheus.NewDesc("anteroom_sessions", "Sessions by state.", []string{"state"}, nil)
	machinesDesc    = prometheus.NewDesc("anteroom_machines", "Machines by kind and state.", []string{"kind", "state"}, nil)
	credentialsDesc = prometheus.NewDesc("anteroom_credentials", "Active credentials by provider.", []string{"provider"}, nil)
	usersDesc       = prometheus.NewDesc("anteroom_users", "Users.", nil, nil)
	portsDesc       = prometheus.NewDesc("anteroom_egress_ports", "Upstream ports of users' own, by state; none where all share one way out.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (c *counts) Describe(out chan<- *prometheus.Desc) {
	out <- sessionsDesc
	out <- machinesDesc
	out <- credentialsDesc
	out <- usersDesc
	out <- portsDesc
}

// Collect implements prometheus.Collector.
func (c *counts) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	stats, err := c.db.Stats(ctx)
	if err != nil {
		c.logger.Error("reading counts for metrics", "err", err)
		return
	}
	gauge := func(d *prometheus.Desc, n int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	for state, n := range stats.Sessions {
		gauge(sessionsDesc, n, string(state))
	}
	for _, vm := range stats.VMs {
		gauge(machinesDesc, vm.Count, vm.Kind, string(vm.State))
	}
	for provider, n := range stats.Active {
		gauge(credentialsDesc, n, provider)
	}
	gauge(usersDesc, stats.Users)
	for state, n := range stats.Ports {
		gauge(portsDesc, n, string(state))
	}
}
