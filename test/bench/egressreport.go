package main

import (
	"fmt"
	"strings"
	"time"
)

// targetAdded is what the egress path may add to a request, at the median.
const targetAdded = 300 * time.Microsecond

const egressIntro = `
## The egress path beside other proxies

From a program to a site that is one network namespace away: with no proxy,
through Anteroom's path without the machine around it (the agent's port, a line
of yamux, the egress, in one process), through tinyproxy and through squid, both
Debian's. Each has the same connections, all tunnels by CONNECT, and they take
turns; site and clients run on the same processors. Throughput is the median of
the rounds, of 1 MiB pages; the time is the median of all requests for 200 bytes
on tunnels that are open.

| connections | | ` + "%s |\n|---|---|" + `
`

func (r *egressReport) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, strings.TrimSuffix(egressIntro, "\n"), strings.Join(r.names, " | "))
	b.WriteString(strings.Repeat("---|", len(r.names)) + "\n")
	for _, n := range r.counts {
		fmt.Fprintf(&b, "| %d | throughput, MB/s |", n)
		for _, name := range r.names {
			fmt.Fprintf(&b, " %.0f |", percentile(r.loads[name][n].perSecond, 50)/1e6)
		}
		fmt.Fprintf(&b, "\n| %d | time of a request, p50 |", n)
		for _, name := range r.names {
			fmt.Fprintf(&b, " %.3f ms |", milliseconds(percentile(r.loads[name][n].request, 50)))
		}
		b.WriteString("\n")
	}
	b.WriteString("\n" + r.verdicts())
	b.WriteString("\n| memory of 1,000 idle tunnels (Pss) | MB |\n|---|---|\n")
	for _, name := range r.names[1:] {
		fmt.Fprintf(&b, "| %s | %.1f |\n", name, r.idle[name]/1e6)
	}
	fmt.Fprintf(&b, "\n| what | runs | p50 | p95 | most |\n|---|---|---|---|---|\n| %s | %d | %.1f ms | %.1f ms | %.1f ms |\n", r.gate.what, len(r.gate.took),
		milliseconds(percentile(r.gate.took, 50)), milliseconds(percentile(r.gate.took, 95)), milliseconds(percentile(r.gate.took, 100)))
	b.WriteString("\nThe last one: a row in SQLite, the exit address asked through the port and every\nhost of Claude Code reached, with upstream and sites on this machine. To a real\nupstream it takes two to three round trips more.\n")
	return b.String()
}

// verdicts say whether the path does what it should.
func (r *egressReport) verdicts() string {
	const us, them = "Anteroom", "tinyproxy"
	var b strings.Builder
	for _, n := range r.counts {
		ratio := percentile(r.loads[us][n].perSecond, 50) / percentile(r.loads[them][n].perSecond, 50)
		fmt.Fprintf(&b, "- %d connections: %.2f times the throughput of tinyproxy (at least 1: %s)\n", n, ratio, met(ratio >= 1))
	}
	added := percentile(r.loads[us][1].request, 50) - percentile(r.loads["no proxy"][1].request, 50)
	fmt.Fprintf(&b, "- it adds %.3f ms to a request at the median, on one connection (under 0.3 ms: %s)\n", milliseconds(added), met(added < targetAdded))
	return b.String()
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
