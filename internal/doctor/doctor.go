// Package doctor checks on this computer all that a server needs, and says how
// to mend what is missing. It changes nothing.
package doctor

import (
	"context"

	"github.com/anteroom/anteroom/internal/server"
)

// Status is how a check went.
type Status string

// The ways in which a check can go.
const (
	OK      Status = "ok"
	Warning Status = "warning" // the service runs, but less well
	Missing Status = "missing" // the service cannot run
)

// Result is one check's.
type Result struct {
	Check  string `json:"check"` // what was looked at, stable
	Status Status `json:"status"`
	Found  string `json:"found"`          // what there is
	Mend   string `json:"mend,omitempty"` // what to do about it, in one line
}

func ok(found string) Result            { return Result{Status: OK, Found: found} }
func warning(found, mend string) Result { return Result{Status: Warning, Found: found, Mend: mend} }
func missing(found, mend string) Result { return Result{Status: Missing, Found: found, Mend: mend} }

// exam is one run of the checks.
type exam struct {
	cfg server.Config
	// image says that the golden image is there, so that nothing needs building.
	image bool
	// server says that one is running on the state directory.
	server bool
}

// Examine runs all checks, in an order in which one that fails explains those
// after it. Some ask the network; ctx ends them early.
func Examine(ctx context.Context, cfg server.Config) []Result {
	e := &exam{cfg: cfg}
	checks := []struct {
		name string
		run  func(context.Context) Result
	}{
		{"root", e.root}, {"platform", e.platform}, {"kernel", e.kernel}, {"namespaces", e.namespaces},
		{"memory", e.memory}, {"swap", e.swap}, {"cgroups", e.cgroups}, {"clock", e.clock},
		{"runsc", e.runsc}, {"firecracker", e.firecracker}, {"anteroom-guest", e.guest}, {"golden image", e.goldenImage}, {"build programs", e.buildPrograms}, {"driver", e.driver},
		{"state directory", e.state}, {"database", e.database}, {"root key", e.rootKey}, {"snapshot", e.snapshot}, {"disk", e.disk}, {"homes", e.homes},
		{"listen", e.listen}, {"certificate", e.certificate}, {"CA files", e.caFiles},
		{"provider files", e.providers}, {"egress", e.egress}, {"programs without proxy", e.proxyless},
	}
	out := make([]Result, 0, len(checks))
	for _, c := range checks {
		r := c.run(ctx)
		r.Check = c.name
		out = append(out, r)
	}
	return out
}

// Healthy says that nothing that is needed is missing.
func Healthy(results []Result) bool {
	for _, r := range results {
		if r.Status == Missing {
			return false
		}
	}
	return true
}
