package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// result is how it went with one tool. The times count from the press on
// Connect; viewer and sign-in page by the page's own clock from its request. 0
// is what was not reached.
type result struct {
	tool    tool
	session string
	began   time.Time

	started    time.Duration // the page of the session is open
	viewer     time.Duration // the first picture of the screen
	signInPage time.Duration // the tool's sign-in page is on it
	signedIn   time.Duration // the tool has its credentials
	stored     time.Duration // they are sealed in the vault
	delivered  time.Duration // the person's own machine has them
	total      time.Duration // with machine destroyed, terminal and prompt

	err      error
	failedAt string
}

func printTable(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "\nPROVIDER\tSTARTED\tVIEWER\tSIGN-IN PAGE\tSIGNED IN\tSTORED\tDELIVERED\tTOTAL\tRESULT")
	for _, r := range results {
		_, _ = fmt.Fprintf(w, "%s", r.tool.provider)
		for _, d := range []time.Duration{r.started, r.viewer, r.signInPage, r.signedIn, r.stored, r.delivered, r.total} {
			_, _ = fmt.Fprintf(w, "\t%s", seconds(d))
		}
		_, _ = fmt.Fprintf(w, "\t%s\n", r.words())
	}
	_, _ = fmt.Fprintln(w)
	return w.Flush()
}

func (r result) words() string {
	if r.err != nil {
		return "FAILED: " + r.failedAt
	}
	return "ok"
}

func seconds(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}
