package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	downloadSite  = "download.test" // behind the test upstream, on this machine
	downloadBytes = 100 * megabyte
)

// sites are the hosts that machines reach beside the providers'.
func sites() map[string]http.Handler {
	block := make([]byte, megabyte) // which divides downloadBytes
	source := rand.NewChaCha8([32]byte{})
	_, _ = source.Read(block) // never fails
	return map[string]http.Handler{viewSite: http.HandlerFunc(codePage), downloadSite: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(downloadBytes))
		for range downloadBytes / len(block) {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	})}
}

// speedRow compares the same download in a machine and on the host.
type speedRow struct {
	scheme      string
	runs        int
	machine     float64 // seconds, the median
	host        float64
	machineBest float64
	hostBest    float64
}

const speedIntro = `
## A download of 100 MB

By curl on a person's CLI machine, through the agent's proxy, the line and the
egress, which goes on to the test upstream; against a client on the host through
the same upstream, a plain forward proxy (Go's net/http) with the site behind it
in the same process. In turn, on the same machine; medians. For https that
upstream ends TLS, so both sides decrypt.

| scheme | runs | in the machine | best | through the plain proxy | best | takes times as long |
|---|---|---|---|---|---|---|
`

func (s speedRow) row() string {
	rate := func(seconds float64) string {
		return fmt.Sprintf("%.2f s (%.0f MB/s)", seconds, downloadBytes/megabyte/seconds)
	}
	return fmt.Sprintf("| %s | %d | %s | %.2f s | %s | %.2f s | %.1f |\n",
		s.scheme, s.runs, rate(s.machine), s.machineBest, rate(s.host), s.hostBest, s.machine/s.host)
}

// download measures both ways of both schemes, in turn.
func (b *bench) download(ctx context.Context, s *subject) error {
	m, err := s.user.EnsureMachine(ctx)
	if err != nil {
		return err
	}
	runs := max(1, b.runs/4)
	for _, scheme := range []string{"http", "https"} {
		var machine, host []float64
		err := b.repeat(ctx, s, "downloads by "+scheme, runs, func(ctx context.Context, _ int) error {
			inside, err := s.downloadInside(ctx, scheme)
			if err != nil {
				return err
			}
			outside, err := s.downloadOutside(ctx, scheme)
			if err != nil {
				return err
			}
			machine, host = append(machine, inside), append(host, outside)
			return nil
		})
		if err != nil {
			return err
		}
		b.report.speed = append(b.report.speed, speedRow{
			scheme: scheme, runs: len(machine),
			machine: percentile(machine, 50), machineBest: percentile(machine, 0),
			host: percentile(host, 50), hostBest: percentile(host, 0),
		})
	}
	return s.user.DestroyMachine(ctx, m.ID)
}

// downloadInside downloads on the CLI machine and returns the seconds that
// curl says it took.
func (s *subject) downloadInside(ctx context.Context, scheme string) (float64, error) {
	command := fmt.Sprintf(`curl -sS -o /dev/null -w '%%{http_code} %%{size_download} %%{time_total}' %s://%s/`, scheme, downloadSite)
	out, code, err := s.user.Shell(ctx, command)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(out)
	if code != 0 || len(fields) != 3 || fields[0] != "200" || fields[1] != strconv.Itoa(downloadBytes) {
		return 0, fmt.Errorf("curl in the machine: exit code %d, %q", code, out)
	}
	return strconv.ParseFloat(fields[2], 64)
}

// downloadOutside downloads on the host, through the upstream alone.
func (s *subject) downloadOutside(ctx context.Context, scheme string) (float64, error) {
	client, err := s.rig.Upstream()
	if err != nil {
		return 0, err
	}
	defer client.CloseIdleConnections() // each run connects anew, as curl does
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+downloadSite+"/", nil)
	if err != nil {
		return 0, err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	n, err := io.Copy(io.Discard, res.Body)
	if err == nil && (res.StatusCode != http.StatusOK || n != downloadBytes) {
		err = fmt.Errorf("the host's download: %s, %d bytes", res.Status, n)
	}
	return time.Since(began).Seconds(), err
}
