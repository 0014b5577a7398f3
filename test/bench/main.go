// Command bench measures Anteroom on this machine and writes BENCH.md. It runs
// the real server, machines and tools, and asks for them as a person does
// (through the page, in a real browser) and as a program does (by the API).
//
//	go run ./test/bench [--only PARTS] [--runs N] [--out FILE]
//
// It is no test: a target that is missed is written down and nothing fails.
// Only what did not work at all ends it with a non-zero exit code.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/steps"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/person"
)

// runTime limits one run of whatever is measured.
const runTime = 3 * time.Minute

// usualRuns is how many runs of each start a whole measurement has.
const usualRuns = 20

// bench is one run of the program.
type bench struct {
	runs    int
	steps   *steps.Printer
	browser *person.Browser
	report  report
}

// part is one thing that can be measured alone.
type part struct {
	name  string
	does  string
	flags []string                                              // of anteroom serve
	work  func(b *bench, ctx context.Context, s *subject) error //nolint:revive // as a method expression has it
}

func parts() []part {
	return []part{
		{"restore", "POST to the first frame, restored", nil, starts("restored", targetRestored)},
		{"ten", "ten asked for at once", nil, (*bench).ten},
		{"cold", "POST to the first frame, cold", []string{"--cold"}, starts("cold", 0)},
		{"warm", "POST to the first frame, from the warm pool", []string{warmFlag, strconv.Itoa(warmMachines)}, starts("from the warm pool", targetWarm)},
		{"memory", "memory of waiting machines", nil, (*bench).memory},
		{"kill", "kill -9, restart, usable again", nil, (*bench).kill},
		{"download", "100 MB through line and egress", nil, (*bench).download},
		{"view", "input to pixel, by each transport", nil, (*bench).view},
		{"far", "input to pixel from far away", nil, (*bench).far},
		{"streams", "several screens that move at once", nil, (*bench).streams},
		{"egress", "the egress path beside tinyproxy and squid", nil, (*bench).egressPath},
		{"start", "start of the server with 1,000 sessions", nil, (*bench).serverStart}, // last: the sessions stay
	}
}

// subject is what a part measures: a server, and somebody who uses it.
type subject struct {
	rig  *harness.Rig
	user *harness.User
	cold bool // its machines are to be started cold, and otherwise restored
	warm bool // its machines are to come from the warm pool
	hits int  // how many have, before the run that is under way
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == egressProxyCommand {
		if err := egressProxy(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var only, out string
	b := &bench{steps: steps.New(os.Stderr)}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&only, "only", "", "`parts` to run, with commas between; what is measured then only goes to standard output, unless --out says otherwise")
	flags.IntVar(&b.runs, "runs", usualRuns, "`number` of runs of each start; the longer ones are made less often")
	flags.StringVar(&out, "out", "", "`file` to write (default BENCH.md, where all parts are run)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.runs < 1 || b.runs > 1000 {
		return fmt.Errorf("--runs %d: give 1 to 1000", b.runs)
	}
	chosen, err := choose(only)
	if err != nil {
		return err
	}
	if out == "" && only == "" {
		out = "BENCH.md"
	}
	if b.runs < usualRuns {
		b.report.leaveOut("%d runs of each start were asked for, not %d.", b.runs, usualRuns)
	}
	for _, p := range parts() {
		if !slices.ContainsFunc(chosen, func(c part) bool { return c.name == p.name }) {
			b.report.leaveOut("%s (%s): not asked for.", p.does, p.name)
		}
	}
	failed := b.measure(ctx, chosen)
	text := b.report.markdown()
	if out == "" {
		_, err = fmt.Print(text)
	} else {
		err = os.WriteFile(out, []byte(text), 0o644)
	}
	return errors.Join(failed, err)
}

func choose(only string) ([]part, error) {
	all := parts()
	if only == "" {
		return all, nil
	}
	var chosen []part
	for name := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(p part) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			return nil, fmt.Errorf("--only %s: the parts are %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// measure runs the parts, one server after the other: parts that want the same
// flags share one. It goes on after a part that failed. The report says what was
// left out.
func (b *bench) measure(ctx context.Context, chosen []part) (err error) {
	done := map[string]bool{}
	defer func() {
		for _, p := range chosen {
			if !done[p.name] {
				b.report.leaveOut("%s (%s): not run.", p.does, p.name)
			}
		}
	}()
	root, err := harness.Root()
	if err != nil {
		return err
	}
	if b.report.host, err = describeHost(ctx, root); err != nil {
		return err
	}
	b.browser, err = person.Open(ctx, person.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.browser.Close()) }()
	for _, group := range groups(chosen) {
		err = errors.Join(err, b.group(ctx, group, done))
	}
	return err
}

// groups puts parts together that want the same flags.
func groups(chosen []part) [][]part {
	var all [][]part
	for _, p := range chosen {
		i := slices.IndexFunc(all, func(g []part) bool { return slices.Equal(g[0].flags, p.flags) })
		if i < 0 {
			all = append(all, []part{p})
		} else {
			all[i] = append(all[i], p)
		}
	}
	return all
}

// group runs parts on one server, and notes in done which have had their turn.
func (b *bench) group(ctx context.Context, group []part, done map[string]bool) (err error) {
	s := &subject{cold: slices.Contains(group[0].flags, "--cold"), warm: slices.Contains(group[0].flags, warmFlag)}
	defer func() {
		if s.rig != nil {
			err = errors.Join(err, b.steps.Do("Removing the server and its machines", func(steps.Status) error { return s.rig.Close() }))
		}
	}()
	err = b.steps.Do("Starting a server "+strings.Join(group[0].flags, " "), func(steps.Status) error {
		var err error
		s.rig, err = harness.Start(ctx, harness.Config{Flags: group[0].flags, Sites: sites()})
		if err == nil {
			s.user, err = s.rig.User(ctx, "bench")
		}
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range group {
		done[p.name] = true
		err := b.steps.Do(p.does, func(steps.Status) error { return p.work(b, ctx, s) })
		if err != nil {
			b.report.leaveOut("%s (%s): broken off, %v", p.does, p.name, err)
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
			b.steps.Note("The server's log ends with:\n%s", s.rig.LogTail(15))
			if err := s.endAll(ctx); err != nil { // what it has left is not the next one's
				errs = append(errs, err)
			}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// repeat makes n runs of what, each with its own time limit, and counts those
// that failed in the measures; after such a one it ends the sessions that are
// open, so that the next is alone. The report says if fewer than n went well. It
// fails when ctx ends or no run went well.
func (b *bench) repeat(ctx context.Context, s *subject, what string, n int, run func(ctx context.Context, i int) error, into ...*measure) error {
	var last error
	failed, well := 0, 0
	defer func() {
		if well < n {
			b.report.leaveOut("%s: %d of %d runs went well.", what, well, n)
		}
	}()
	for i := range n {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, runTime)
			defer cancel()
			return run(ctx, i)
		}()
		if err == nil {
			well++
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			failed++
			last = err
			for _, m := range into {
				m.failed++
			}
			b.steps.Note("  run %d failed: %v", i+1, err)
			if err := s.endAll(ctx); err != nil {
				return fmt.Errorf("cleaning up after a failed run: %w", err)
			}
		}
	}
	if failed == n {
		return fmt.Errorf("none of %d runs went well; the last: %w", n, last)
	}
	return nil
}

// binDir is where the harness takes the programs from.
func binDir(root string) string {
	if dir := os.Getenv(harness.EnvBin); dir != "" {
		return dir
	}
	return filepath.Join(root, "bin")
}
