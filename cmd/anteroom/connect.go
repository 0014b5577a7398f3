package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/localhome"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/settings"
)

func connectCommand(a *app) *cobra.Command {
	s := settings.New()
	s.LogLevel = "error" // what a person must know is printed
	var home string
	var force bool
	cmd := &cobra.Command{
		Use:   "connect PROVIDER",
		Short: "Sign in this computer's own tool, from a browser elsewhere",
		Long: `Sign in a tool on this computer, which has no browser, from a browser elsewhere.
No server is needed: everything is started for this one sign-in, one link is
printed, and when the person behind it has signed in, the tool's credential
files are written into the home directory of the user who started this (through
sudo too). Then all of it is gone again.

Where the tool's own variable (CLAUDE_CONFIG_DIR, CODEX_HOME, GEMINI_CLI_HOME) is
set, the files are written to where it leads, unless --home is given. sudo takes
it away: sudo --preserve-env=CODEX_HOME keeps it.

Needs root and the golden image (anteroom image build).`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			return a.connect(cmd.Context(), s, args[0], home, force)
		},
	}
	s.Flags(cmd.Flags(), "listen", "tls-cert", "tls-key", "acme-domain", "behind-proxy", "hosts", "media-address", "media-public",
		"upstreams", "upstreams-file",
		"ca-files", "providers-dir", "image-dir", "guest", "driver", "runsc", "qemu", "locale", "languages", "session-time",
		"machine-memory", "machine-cpus", "min-free-memory", "log-format", "log-level")
	cmd.Flags().StringVar(&home, "home", "", "home `directory` to write to (default: where the user who started this has the tool keep its files)")
	cmd.Flags().BoolVar(&force, "force", false, "replace a sign-in that is there already")
	return cmd
}

func (a *app) connect(ctx context.Context, s *settings.Settings, name, dir string, force bool) error {
	providers, err := provider.Load(s.Server.ProvidersDir)
	if err != nil {
		return err
	}
	file, err := providers.Get(name)
	if errors.Is(err, provider.ErrUnknown) {
		var names []string
		for _, f := range providers.All() {
			names = append(names, f.Name)
		}
		return usagef("there is no provider %q; known are: %s", name, strings.Join(names, ", "))
	}
	if err != nil {
		return err
	}
	home, err := localhome.Find(dir, file)
	if err != nil {
		return err
	}
	// Now, and not only when the person has already signed in.
	if err := home.Live(file); err != nil && (!force || !errors.Is(err, localhome.ErrLive)) {
		return liveError(err, file)
	}
	ctx, stop := hangup(ctx)
	defer stop()
	delivered, notes, undelivered := false, []string(nil), error(nil)
	c := server.Connect{
		Config: s.Server, Provider: file.Name,
		Deliver: func(ctx context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error) {
			ack, said, err := home.Deliver(ctx, in, force)
			delivered, notes, undelivered = err == nil, said, err
			return ack, err
		},
		Link:     func(address net.Addr, link string) { a.printConnectLink(file, address, link) },
		Progress: a.progress,
	}
	c.Logger = a.logger(s)
	ended, err := server.RunConnect(ctx, c)
	switch {
	case delivered: // whatever became of the rest
		a.connected(home, file, notes)
		return ignoreCancel(ctx, err)
	case ctx.Err() != nil:
		_, _ = fmt.Fprintln(a.err, "\nStopped. Nothing was written.")
		if err := ignoreCancel(ctx, err); err != nil {
			return err
		}
		return exitError(exitFailure)
	case err != nil:
		return err
	}
	return connectFailed(ended, undelivered, file)
}

// ignoreCancel drops an error that says no more than that ctx has ended.
func ignoreCancel(ctx context.Context, err error) error {
	if err != nil && errors.Is(err, ctx.Err()) && err.Error() == ctx.Err().Error() {
		return nil
	}
	return err
}

// hangup ends ctx also when the terminal goes away, as it does with ssh; not
// where whoever started this has said to ignore that (nohup).
func hangup(ctx context.Context) (context.Context, func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	return signal.NotifyContext(ctx, syscall.SIGHUP)
}

// liveError says what replacing a sign-in would mean.
func liveError(err error, file *provider.File) error {
	if !errors.Is(err, localhome.ErrLive) {
		return err
	}
	text := fmt.Sprintf("%s: %v.\nIf it works, there is nothing to do. --force replaces it with a new sign-in; the old one then stays valid at %s until it is ended there", file.Title, err, file.Vendor)
	if len(file.Refresh.Revokes) > 0 {
		text += " (" + strings.Join(file.Refresh.Revokes, ", or ") + ", run before, ends it)"
	}
	return errors.New(text + ".")
}

func (a *app) printConnectLink(file *provider.File, address net.Addr, link string) {
	_, _ = fmt.Fprintf(a.out, "\nSign in to %s at (good once):\n\n  %s\n\n", file.Title, link)
	at, err := url.Parse(link)
	if tcp, ok := address.(*net.TCPAddr); ok && err == nil && net.ParseIP(at.Hostname()).IsLoopback() {
		host, err := os.Hostname()
		if err != nil {
			host = "this-computer"
		}
		_, _ = fmt.Fprintf(a.out, "It answers on this computer only. From another one, first run there:\n\n  ssh -L %d:127.0.0.1:%d %s\n\nand open the link in that one's browser. Ctrl-C here stops it all.\n\n", tcp.Port, tcp.Port, host)
	}
}

// progress prints what happens, but for the tool's own output.
func (a *app) progress(e session.Event) {
	switch e.Kind {
	case session.EventState, session.EventProgress:
		_, _ = fmt.Fprintf(a.out, "%s  %s\n", e.At.Local().Format("15:04:05"), printable(e.Message))
	}
}

func connectFailed(ended session.Session, undelivered error, file *provider.File) error {
	if undelivered != nil {
		return fmt.Errorf("you have signed in, but the files could not be written, and nothing of them was kept: %w", liveError(undelivered, file))
	}
	text := ended.Reason.Sentence()
	if ended.Detail != "" {
		text += " (" + printable(ended.Detail) + ")"
	}
	if ended.Reason == session.ReasonMachineStart || ended.Reason == session.ReasonInternal {
		text += " Here, --log-level info shows more, and anteroom doctor checks what is needed."
	}
	return errors.New(text)
}

// connected says where the files are and what may not be done with them.
func (a *app) connected(home localhome.Home, file *provider.File, notes []string) {
	_, _ = fmt.Fprintf(a.out, "\n%s is signed in on this computer. In %s:\n", file.Title, home.Dir)
	for _, c := range file.Files {
		_, _ = fmt.Fprintf(a.out, "  %s\n", home.Path(c.Path))
	}
	for _, n := range notes {
		_, _ = fmt.Fprintf(a.out, "\nNote: %s\n\n", printable(n))
	}
	_, _ = fmt.Fprintln(a.out, "The browser and everything else of it are gone; no copy was kept.")
	if len(file.Target.Status) > 0 {
		_, _ = fmt.Fprintf(a.out, "%s tells whether it works.\n", strings.Join(file.Target.Status, " "))
	}
	if file.Refresh.Rotates {
		_, _ = fmt.Fprintf(a.out, `
Do not copy these files to a second computer. %s replaces its refresh token
each time it renews the sign-in, and %s takes a used one for a stolen one:
whichever computer renews second is signed out. Run anteroom connect there too.
`, file.Title, file.Vendor)
	}
}
