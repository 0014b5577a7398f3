package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const readyTimeout = 5 * time.Second

// Healthz says that the process answers.
func (a api) Healthz(w http.ResponseWriter, r *http.Request) {
	a.json(w, r, http.StatusOK, Health{Status: HealthStatusOk})
}

// Readyz says whether the service can take sign-ins.
func (a api) Readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	if err := a.cfg.Ready(ctx); err != nil {
		a.log.WarnContext(ctx, "not ready", slog.Any("error", err))
		a.problem(w, r, ProblemCodeNotReady, "The service cannot take sign-ins now. The server's log says why.")
		return
	}
	a.json(w, r, http.StatusOK, Health{Status: HealthStatusOk})
}

// Metrics shows the metrics of the whole process.
func (a api) Metrics(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	promhttp.HandlerFor(a.cfg.Registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
	}).ServeHTTP(w, r)
}
