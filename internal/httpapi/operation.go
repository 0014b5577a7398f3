package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/anteroom/anteroom/internal/session"
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
		a.problem(w, r, ProblemCodeNotReady, notReady(err))
		return
	}
	a.json(w, r, http.StatusOK, Health{Status: HealthStatusOk})
}

// ErrMachines is what Config.Ready says when no machine could be made.
var ErrMachines = errors.New("httpapi: machines cannot be made")

// notReady is the sentence for whoever asks, who may be anybody.
func notReady(err error) string {
	switch {
	case errors.Is(err, session.ErrNotReady):
		return "The server has not taken over from its last run yet, or is stopping."
	case errors.Is(err, ErrMachines):
		return "The server cannot make machines now. Its log says why."
	}
	return "The service cannot take sign-ins now. The server's log says why."
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
