package harness

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Metric is one of the server's metrics, added up over its labels; 0 if the
// server does not show it.
func (u *User) Metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.rig.URL()+"/metrics", nil)
	if err != nil {
		return 0, fmt.Errorf("harness: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("harness: metrics: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("harness: metrics: %s", res.Status)
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return 0, fmt.Errorf("harness: metrics: %w", err)
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			return 0, fmt.Errorf("harness: metrics: %w", err)
		}
		sum += v
	}
	return sum, nil
}
