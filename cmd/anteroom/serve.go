package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/steps"
)

func serveCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service until it gets SIGINT or SIGTERM; a second one ends it at once.
Machines run on, and the next server takes them over.

Every setting is a flag, an environment variable and a key of the YAML file
(--config): the key is the flag's name with underscores for dashes; upstreams
and upstreams_file are below "egress:". A flag goes before the environment,
that before the file.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			cfg := s.Server
			cfg.Logger, cfg.Steps = a.logger(s), steps.New(a.err)
			cfg.WithoutLink = isJournal(a.out)
			cfg.Ready = func(address, link string) { a.ready(cfg, address, link) }
			return server.Run(cmd.Context(), cfg)
		},
	}
	s.Flags(cmd.Flags())
	return cmd
}

// ready tells the person at the terminal how to reach the service.
func (a *app) ready(cfg server.Config, address, link string) {
	_, _ = fmt.Fprintf(a.out, "\nAnteroom is ready at %s\n", address)
	if link == "" {
		_, _ = fmt.Fprintln(a.out, "anteroom user link NAME prints a sign-in link, anteroom user add NAME makes a user.")
		return
	}
	_, _ = fmt.Fprintf(a.out, "Sign in as %s (good once, for 15 minutes; anteroom user link %s makes another):\n\n  %s\n\n", cfg.User, cfg.User, link)
}

// isJournal says whether a file leads into systemd's journal, which is kept, and
// read by more people than may sign in. systemd names it so, by its device and
// inode, to whatever it starts.
func isJournal(f *os.File) bool {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false
	}
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
