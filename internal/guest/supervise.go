//go:build linux

package guest

import (
	"context"
	"log/slog"
	"time"
)

// backoff is how long a supervised program stays down after it ended: doubled
// from the first to the last with each quick death, back to the first after a
// minute of life.
const (
	backoffFirst = 100 * time.Millisecond
	backoffLast  = 5 * time.Second
	longLife     = time.Minute
)

// supervise runs a program again and again until ctx ends. It returns when the
// program has ended for the last time.
func supervise(ctx context.Context, logger *slog.Logger, name string, run func(context.Context) error) {
	wait := backoffFirst
	for ctx.Err() == nil {
		began := time.Now()
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > longLife {
			wait = backoffFirst
		}
		logger.Warn("program ended, starting it again", "program", name, "err", err, "after", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, backoffLast)
	}
}
