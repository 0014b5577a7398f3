// Command anteroom-demo does by itself all that a person does with Anteroom,
// without the internet: it starts a real server, opens its page in a real
// browser, and signs in with the real command-line tools by mouse and keyboard.
// Only the providers are played, by the test identity provider.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/steps"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/person"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// config is what the demo is told.
type config struct {
	out   string // directory of the screenshots
	tools []tool
	keep  bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := mainCode(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func mainCode(ctx context.Context, args []string, stdout, stderr *os.File) int {
	cfg, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		_, _ = fmt.Fprintln(stderr, "anteroom-demo:", err)
		return exitUsage
	}
	if err := run(ctx, cfg, stdout); err != nil {
		_, _ = fmt.Fprintln(stderr, "anteroom-demo:", err)
		return exitFailure
	}
	return 0
}

func parse(args []string, stderr io.Writer) (config, error) {
	flags := flag.NewFlagSet("anteroom demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var cfg config
	var providers string
	flags.StringVar(&cfg.out, "out", "demo-out", "`directory` for the screenshots")
	flags.StringVar(&providers, "provider", "claude,codex,gemini", "`providers` to sign in to, with commas between")
	flags.BoolVar(&cfg.keep, "keep", false, "let the server run on at the end, until Ctrl-C, to look around in it")
	if err := flags.Parse(args); err != nil {
		return config{}, err
	}
	if flags.NArg() > 0 {
		return config{}, fmt.Errorf("there is no argument %q (--help lists what can be given)", flags.Arg(0))
	}
	for name := range strings.SplitSeq(providers, ",") {
		i := slices.IndexFunc(tools, func(t tool) bool { return string(t.provider) == strings.TrimSpace(name) })
		if i < 0 {
			return config{}, fmt.Errorf("the demo knows no provider %q: it knows claude, codex and gemini", name)
		}
		cfg.tools = append(cfg.tools, tools[i])
	}
	return cfg, nil
}

// run does the demo. The error says that something failed; what it was has
// been printed.
func run(ctx context.Context, cfg config, out *os.File) (err error) {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.out, 0o755); err != nil {
		return fmt.Errorf("the directory for the screenshots: %w", err)
	}
	if err := removeShots(cfg.out); err != nil {
		return err
	}
	d := &demo{cfg: cfg, steps: steps.New(out), began: time.Now()}
	defer func() {
		err = errors.Join(err, d.step("Removing all of it again", d.close))
		d.steps.Note("Took %.1f s in all. The screenshots are in %s.", time.Since(d.began).Seconds(), cfg.out)
	}()
	if err := d.setUp(ctx, filepath.Dir(exe)); err != nil {
		return err
	}
	results := make([]result, 0, len(cfg.tools))
	failed := 0
	for _, t := range cfg.tools {
		r := d.signIn(ctx, t)
		if r.err != nil {
			failed++
		}
		results = append(results, r)
		if ctx.Err() != nil {
			break
		}
	}
	if err := d.finish(ctx); err != nil {
		failed++
	}
	if err := printTable(out, results); err != nil {
		return err
	}
	if cfg.keep && ctx.Err() == nil {
		d.stay(ctx)
	}
	if failed > 0 {
		return errors.New("not everything worked")
	}
	return nil
}

// removeShots removes the screenshots of an earlier run, and nothing else.
func removeShots(dir string) error {
	old, err := filepath.Glob(filepath.Join(dir, "[0-9][0-9]-*.png"))
	if err != nil {
		return err
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			return fmt.Errorf("a screenshot of an earlier run: %w", err)
		}
	}
	return nil
}

// setUp starts the server and the browser, and signs in to the page.
func (d *demo) setUp(ctx context.Context, bin string) error {
	err := d.step("Starting anteroom serve", func() error {
		var err error
		if d.rig, err = harness.Start(ctx, harness.Config{Bin: bin}); err != nil {
			return err
		}
		d.user, err = d.rig.User(ctx, "demo")
		return err
	})
	if err != nil {
		return err
	}
	return d.step("Opening the sign-in link", func() error {
		link, err := d.user.Link(ctx)
		if err != nil {
			return err
		}
		if d.browser, err = person.Open(ctx, person.Config{}); err != nil {
			return err
		}
		if d.page, err = d.browser.SignIn(ctx, link); err != nil {
			return err
		}
		return d.shoot(ctx, "connections")
	})
}

// stay keeps the server until ctx ends.
func (d *demo) stay(ctx context.Context) {
	link, err := d.user.Link(ctx)
	if err != nil {
		d.steps.Note("No sign-in link could be made: %v", err)
		return
	}
	d.steps.Note("\nThe server runs on until Ctrl-C (state in %s, any email address, password %q):\n\n  %s\n", d.rig.StateDir(), password, link)
	<-ctx.Done()
}
