package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// What the project wants to reach, at the 95th percentile.
const (
	targetRestored = 1500 * time.Millisecond // POST to the first frame, alone
	targetWarm     = 400 * time.Millisecond  // the same, from the warm pool
	targetTen      = 6 * time.Second         // ten asked for at once
	targetStart    = time.Second             // of the server with 1,000 sessions
	targetKill     = 3 * time.Second         // from kill -9 to usable again
	targetMemory   = 220 * megabyte          // of each waiting machine
)

// megabyte is the MB of every table: 10^6 bytes.
const megabyte = 1_000_000

// report is what BENCH.md is made of.
type report struct {
	host    host
	times   []*measure
	memory  []memoryRow
	speed   []speedRow
	egress  *egressReport
	view    *viewReport
	streams []streamsRow
	far     []farRow

	leftOut []string // what was not measured, or not as often as it was to be
}

// leaveOut notes that something is not in the report, or less of it.
func (r *report) leaveOut(format string, args ...any) {
	line, _, _ := strings.Cut(fmt.Sprintf(format, args...), "\n")
	r.leftOut = append(r.leftOut, line)
}

// omissions says what is missing of a whole measurement.
func (r *report) omissions() string {
	if len(r.leftOut) == 0 {
		return "Nothing was left out: all parts were run, each as often as is usual.\n\n"
	}
	return "**This is not a whole measurement.** Left out:\n\n- " + strings.Join(r.leftOut, "\n- ") + "\n\n"
}

// measure is one thing whose time was taken again and again.
type measure struct {
	what   string
	target time.Duration // of the 95th percentile; 0: none
	took   []time.Duration
	failed int
}

// measure adds one to the report.
func (r *report) measure(what string, target time.Duration) *measure {
	m := &measure{what: what, target: target}
	r.times = append(r.times, m)
	return m
}

func (m *measure) add(d time.Duration) { m.took = append(m.took, d) }

// percentile is the smallest value that p percent of the values do not exceed.
func percentile[T int64 | float64 | time.Duration](values []T, p float64) T {
	var zero T
	if len(values) == 0 {
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(p/100*float64(len(sorted))))-1)]
}

func (m *measure) row() string {
	if len(m.took) == 0 {
		verdict := "not run"
		if m.failed > 0 {
			verdict = fmt.Sprintf("**all %d runs failed**", m.failed)
		}
		return fmt.Sprintf("| %s | 0 | – | – | – | – | %s | %s |\n", m.what, bound(m.target), verdict)
	}
	p95 := percentile(m.took, 95)
	verdict := "–"
	if m.target > 0 {
		verdict = met(p95 <= m.target)
	}
	if m.failed > 0 {
		verdict += fmt.Sprintf(", %d failed", m.failed)
	}
	return fmt.Sprintf("| %s | %d | %s | %s | %s | %s | %s | %s |\n", m.what, len(m.took),
		seconds(slices.Min(m.took)), seconds(percentile(m.took, 50)), seconds(p95), seconds(slices.Max(m.took)), bound(m.target), verdict)
}

func met(yes bool) string {
	if yes {
		return "yes"
	}
	return "**no**"
}

func bound(target time.Duration) string {
	if target == 0 {
		return "–"
	}
	return fmt.Sprintf("p95 ≤ %g s", target.Seconds())
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

// markdown is the whole of BENCH.md.
func (r *report) markdown() string {
	var b strings.Builder
	b.WriteString(`# Measurements

Written by ` + "`make bench`" + ` (test/bench). Everything in it is real: the server, gVisor
machines restored from the snapshot or started cold, the command-line tools, and
for "page" a headless Chromium that shows Anteroom's page. Only the providers
are played, by the test identity provider on the same machine. What stands here
holds for the machine below, and a target that was missed says so. MB are of
10^6 bytes. Of each machine that is called restored or cold, the server was asked
whether it was; a run with another one counts as failed.

`)
	b.WriteString(r.omissions())
	b.WriteString(r.host.markdown())
	if len(r.times) > 0 {
		b.WriteString(timesIntro)
		for _, m := range r.times {
			b.WriteString(m.row())
		}
	}
	if len(r.memory) > 0 {
		b.WriteString(memoryIntro)
		for _, m := range r.memory {
			b.WriteString(m.row())
		}
	}
	if len(r.speed) > 0 {
		b.WriteString(speedIntro)
		for _, s := range r.speed {
			b.WriteString(s.row())
		}
	}
	if r.view != nil {
		b.WriteString(r.view.markdown())
	}
	if len(r.far) > 0 {
		b.WriteString(farMarkdown(r.far))
	}
	if len(r.streams) > 0 {
		b.WriteString(streamsMarkdown(r.streams))
	}
	if r.egress != nil {
		b.WriteString(r.egress.markdown())
	}
	return b.String()
}

const timesIntro = `
## Times

- *page*: by the page's own clock, from its POST of the session until its canvas
  shows more than one colour (first frame) or the tool's sign-in page. The
  browser runs on the measured machine, beside everything else.
- *API*: a program POSTs, follows the events, connects to the screen as soon as
  there is one, and asks for the whole of it, uncompressed, until more than one
  colour has come; then for the line down its middle until the sign-in page has.
- *from the warm pool*: two machines are ready when the sign-in is asked for; the
  server's metrics are asked whether it was given one of them.
- One after the other, each with nothing else running, unless it says otherwise.
  Percentiles are of the nearest rank.

| what | runs | least | p50 | p95 | most | target | met |
|---|---|---|---|---|---|---|---|
`
