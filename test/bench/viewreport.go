package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/anteroom/anteroom/test/person"
)

// What the project wants to reach, in milliseconds where nothing else is said.
const (
	targetStill50, targetStill95   = 35, 60
	targetMoving50, targetMoving95 = 50, 80
	targetBehindUDP                = 10   // of TCP, at the median
	targetIdle                     = 0.01 // of a core, for capture, encoder and server
	targetFirst                    = 300
)

// viewReport is what part view measured.
type viewReport struct {
	floor latency
	rows  []viewRow
}

// latency is of one way, with one kind of screen.
type latency struct {
	clicked person.Clicked
	used    cores // while clicks came
}

// cores are shares of one processor.
type cores struct{ machine, screen, server, viewer float64 }

type viewRow struct {
	transport     person.Transport
	still, moving latency
	idle          cores           // a still screen that nobody touches
	firsts        []time.Duration // from the offer to the first picture, by the page's clock
	serverFirst   time.Duration   // the mean by the server's
}

var viewNames = map[person.Transport]string{person.UDP: "WebRTC, UDP", person.TCP: "WebRTC, ICE-TCP", person.VNC: "noVNC"}

const viewIntro = `
## Input to pixel

A headless Chromium shows Anteroom's page on this machine, at the other end of
loopback, with the screen of a gVisor machine at 1280x800. The page that the
machine's Chromium shows draws, in the animation frame of each mousedown, large
black and white cells with a number and its parity. A script in the viewer's page
dispatches pointerdown and mousedown on the screen and reads the cells from each
picture of the video (requestVideoFrameCallback), or from noVNC's canvas in each
animation frame, until the number is there; all by the page's own clock, 90 to
160 ms apart, after 20 clicks that do not count. The browser's way from a mouse
to an event is not in it. "Moving" is a full-window canvas animation beside the
cells. For ICE-TCP the script takes the UDP candidates out of the answers, for
noVNC it answers that there is no video; the page's own code does the rest. The
floor is the same page in the same browser, without anything between.

Cores are the machine's by its cgroup, the server's and the viewer's by /proc,
while clicks come; the viewer's include the reading. The screen's process is part
of the machine, by the machine's own account in steps of 10 ms.

Not measured yet: Debian's websockify and noVNC beside ours.

`

const viewHead = `| way | screen | clicks | lost | p50 | p95 | p99 | target | met | machine | of it capture and encoder | server | viewer |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
`

func (l latency) row(name, screen string, target50, target95 float64) string {
	took := l.clicked.Took
	if len(took) == 0 {
		return fmt.Sprintf("| %s | %s | 0 | %d | – | – | – | – | not run | – | – | – | – |\n", name, screen, l.clicked.Lost)
	}
	want, verdict := "–", "–"
	if target50 > 0 {
		want = fmt.Sprintf("p50 ≤ %g, p95 ≤ %g", target50, target95)
		verdict = met(percentile(took, 50) <= target50 && percentile(took, 95) <= target95)
	}
	u := l.used
	used := fmt.Sprintf("%.2f | %.2f | %.2f | %.2f", u.machine, u.screen, u.server, u.viewer)
	if u == (cores{}) {
		used = "– | – | – | –"
	}
	return fmt.Sprintf("| %s | %s | %d | %d | %.0f ms | %.0f ms | %.0f ms | %s | %s | %s |\n", name, screen, len(took), l.clicked.Lost,
		percentile(took, 50), percentile(took, 95), percentile(took, 99), want, verdict, used)
}

func (r *viewReport) markdown() string {
	var b strings.Builder
	b.WriteString(viewIntro + viewHead)
	b.WriteString(r.floor.row("the page itself, local", "still", 0, 0))
	for _, row := range r.rows {
		want := [4]float64{}
		if row.transport != person.VNC {
			want = [4]float64{targetStill50, targetStill95, targetMoving50, targetMoving95}
		}
		b.WriteString(row.still.row(viewNames[row.transport], "still", want[0], want[1]))
		b.WriteString(row.moving.row(viewNames[row.transport], "moving", want[2], want[3]))
	}
	b.WriteString("\nNobody touches a still screen for 10 s, in thousandths of a core:\n\n| way | machine, all of it | capture and encoder | server | viewer | target | met |\n|---|---|---|---|---|---|---|\n")
	for _, row := range r.rows {
		if row.idle == (cores{}) {
			continue
		}
		verdict := "–"
		if row.transport != person.VNC {
			verdict = met(row.idle.screen+row.idle.server <= targetIdle)
		}
		fmt.Fprintf(&b, "| %s | %.1f | %.1f | %.1f | %.1f | capture, encoder and server ≤ %.0f | %s |\n", viewNames[row.transport],
			1000*row.idle.machine, 1000*row.idle.screen, 1000*row.idle.server, 1000*row.idle.viewer, 1000*targetIdle, verdict)
	}
	b.WriteString("\nFrom the page's POST of its offer to the first picture that it showed; the server's is\nfrom the offer until the first picture was sent, the mean of the same:\n\n| way | pages | p50 | p95 | server | target | met |\n|---|---|---|---|---|---|---|\n")
	for _, row := range r.rows {
		if row.transport == person.VNC || len(row.firsts) == 0 {
			continue
		}
		p95 := milliseconds(percentile(row.firsts, 95))
		fmt.Fprintf(&b, "| %s | %d | %.0f ms | %.0f ms | %.0f ms | p95 ≤ %d ms | %s |\n", viewNames[row.transport], len(row.firsts),
			milliseconds(percentile(row.firsts, 50)), p95, milliseconds(row.serverFirst), targetFirst, met(p95 <= targetFirst))
	}
	b.WriteString("\n" + r.between())
	return b.String()
}

// between compares the ways with each other.
func (r *viewReport) between() string {
	rows := map[person.Transport]viewRow{}
	for _, row := range r.rows {
		if len(row.still.clicked.Took) > 0 && len(row.moving.clicked.Took) > 0 {
			rows[row.transport] = row
		}
	}
	udp, ok := rows[person.UDP]
	if !ok {
		return ""
	}
	var b strings.Builder
	p50 := func(l latency) float64 { return percentile(l.clicked.Took, 50) }
	if tcp, ok := rows[person.TCP]; ok {
		still, moving := p50(tcp.still)-p50(udp.still), p50(tcp.moving)-p50(udp.moving)
		fmt.Fprintf(&b, "- ICE-TCP behind UDP, p50: still %.0f ms, moving %.0f ms (at most %d: %s)\n", still, moving, targetBehindUDP, met(max(still, moving) <= targetBehindUDP))
	}
	if vnc, ok := rows[person.VNC]; ok {
		u, v := udp.moving.used, vnc.moving.used
		fmt.Fprintf(&b, "- cores while it moves, UDP and noVNC: machine %.2f and %.2f (no more: %s), viewer %.2f and %.2f (no more: %s)\n",
			u.machine, v.machine, met(u.machine <= v.machine), u.viewer, v.viewer, met(u.viewer <= v.viewer))
	}
	return b.String()
}
