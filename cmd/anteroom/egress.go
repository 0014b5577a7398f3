package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

func egressCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "egress",
		Short: "List, assign, release and check the upstream ports that users leave through",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(egressListCommand(a), egressAssignCommand(a), egressReleaseCommand(a), egressQuarantineCommand(a), egressPinCommand(a), egressCheckCommand(a))
	return cmd
}

// onPorts makes a command that works on the database's ports; a running server
// follows what is changed within a second or two.
func (a *app) onPorts(cmd *cobra.Command, run func(ctx context.Context, s *settings.Settings, db *sqlite.DB, args []string) error) *cobra.Command {
	s := settings.New()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error { return run(cmd.Context(), s, db, args) })
	}
	s.Flags(cmd.Flags(), "state", "port-rest")
	return cmd
}

func egressListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List all upstream ports and who has which", Args: cobra.NoArgs}
	return a.onPorts(cmd, func(ctx context.Context, _ *settings.Settings, db *sqlite.DB, _ []string) error {
		ports, err := db.Ports(ctx)
		if err != nil {
			return err
		}
		users, err := db.Users(ctx)
		if err != nil {
			return err
		}
		names := map[string]string{"": "-"}
		for _, u := range users {
			names[u.ID] = u.Name
		}
		if len(ports) == 0 {
			_, err := fmt.Fprintln(a.out, "There are no ports: the server has not been started with any, or its users share one way out.")
			return err
		}
		rows := make([]string, len(ports))
		for i, p := range ports {
			rows[i] = strings.Join([]string{p.String(), string(p.State), names[p.UserID], orDash(p.ExitAddress), when(p.CheckedAt), portNote(p)}, "\t")
		}
		return a.table("PORT\tSTATE\tUSER\tEXIT ADDRESS\tSEEN\tNOTE", rows)
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// portNote is what there is to say of a port, in a line.
func portNote(p store.Port) string {
	var notes []string
	if p.Reason != "" {
		notes = append(notes, p.Reason)
	}
	if p.State == store.PortResting {
		notes = append(notes, "until "+when(p.RestUntil))
	}
	for _, provider := range slices.Sorted(maps.Keys(p.Refuses)) {
		notes = append(notes, fmt.Sprintf("refuses %s for %s", p.Refuses[provider], provider))
	}
	return strings.Join(notes, "; ")
}

// portArgument reads an argument that names a port.
func portArgument(text string) (store.PortKey, error) {
	key, err := store.ParsePortKey(text)
	if err != nil {
		return key, usagef("%q is no upstream port: write host:port as anteroom egress list shows it", text)
	}
	return key, nil
}

// portError says what to do about an error that names a port.
func portError(key store.PortKey, err error) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("there is no port %s that this could be done with: anteroom egress list shows all", key)
	case errors.Is(err, store.ErrConflict):
		return fmt.Errorf("another user has %s: anteroom egress release %s takes it from them", key, key)
	}
	return err
}

func egressAssignCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "assign USER [HOST:PORT]",
		Short: "Give a user a port, or move them to one",
		Long: `Give a user a port of their own, if they have none, or move them to the one
that is named. The port that they had rests before anybody else gets it.`,
		Args: cobra.RangeArgs(1, 2),
	}
	return a.onPorts(cmd, func(ctx context.Context, s *settings.Settings, db *sqlite.DB, args []string) error {
		u, err := userNamed(ctx, db, args[0])
		if err != nil {
			return err
		}
		port, err := assignPort(ctx, s, db, u, args[1:])
		if err == nil {
			_, err = fmt.Fprintf(a.out, "%s has %s\n", u.Name, port)
		}
		return err
	})
}

func assignPort(ctx context.Context, s *settings.Settings, db *sqlite.DB, u store.User, named []string) (store.PortKey, error) {
	if len(named) == 0 {
		p, _, err := db.ClaimPort(ctx, u.ID, "", time.Now())
		if errors.Is(err, store.ErrNoPort) {
			return p.PortKey, errors.New("no port is free: anteroom egress list shows who has them; add some to the configuration's upstreams, or release one")
		}
		return p.PortKey, err
	}
	key, err := portArgument(named[0])
	if err != nil {
		return key, err
	}
	_, err = db.AssignPort(ctx, u.ID, key, s.Server.PortRest)
	return key, portError(key, err)
}

func egressReleaseCommand(a *app) *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "release HOST:PORT",
		Short: "Take a port from its user, and out of quarantine",
		Args:  cobra.ExactArgs(1),
	}
	a.onPorts(cmd, func(ctx context.Context, s *settings.Settings, db *sqlite.DB, args []string) error {
		key, err := portArgument(args[0])
		if err != nil {
			return err
		}
		rest := s.Server.PortRest
		if now {
			rest = 0
		}
		return portError(key, db.ReleasePort(ctx, key, rest))
	})
	cmd.Flags().BoolVar(&now, "now", false, "another user may be given it at once, instead of after a rest")
	return cmd
}

func egressQuarantineCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine HOST:PORT REASON",
		Short: "Put a port out of use; its user keeps it and cannot leave",
		Args:  cobra.ExactArgs(2),
	}
	return a.onPorts(cmd, func(ctx context.Context, _ *settings.Settings, db *sqlite.DB, args []string) error {
		key, err := portArgument(args[0])
		if err != nil {
			return err
		}
		return portError(key, db.QuarantinePort(ctx, key, args[1]))
	})
}

func egressPinCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pin HOST:PORT [ADDRESS]",
		Short: "Accept an exit address for a port, and take it out of quarantine",
		Long: `Accept an exit address for a port that somebody has, and take it out of
quarantine. Without an address the one that is seen next is accepted.`,
		Args: cobra.RangeArgs(1, 2),
	}
	return a.onPorts(cmd, func(ctx context.Context, _ *settings.Settings, db *sqlite.DB, args []string) error {
		key, err := portArgument(args[0])
		if err != nil {
			return err
		}
		address := ""
		if len(args) == 2 {
			if address, err = store.ParseAddress(args[1]); err != nil {
				return usagef("%q is not an IPv4 or IPv6 address", args[1])
			}
		}
		_, err = db.PinExit(ctx, key, address)
		return portError(key, err)
	})
}

func egressCheckCommand(a *app) *cobra.Command {
	s := settings.New()
	var address string
	cmd := &cobra.Command{
		Use:   "check HOST:PORT",
		Short: "Look where a port leads and what it refuses, through the running server",
		Long: `Look where a port leads and which hosts of the providers it refuses, through the
running server: as the owner of ANTEROOM_TOKEN, who must be an administrator, or,
without it, for whoever may use the server's state directory.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			key, err := portArgument(args[0])
			if err != nil {
				return err
			}
			return a.withClient(cmd.Context(), s, address, "anteroom egress check", anAdmin(cmd.Context()), func(c *client.Client) error {
				return a.checkPort(cmd.Context(), c, key.String())
			})
		},
	}
	s.Flags(cmd.Flags(), "state", "listen", "hosts", "tls-cert", "tls-key", "acme-domain", "behind-proxy")
	cmd.Flags().StringVar(&address, "server", os.Getenv(settings.EnvPrefix+"SERVER"), "the server's `address` (default: where the settings say) [ANTEROOM_SERVER]")
	return cmd
}

// anAdmin finds an administrator, of whom there is always one.
func anAdmin(ctx context.Context) func(*sqlite.DB) (store.User, error) {
	return func(db *sqlite.DB) (store.User, error) {
		users, err := db.Users(ctx)
		if err != nil {
			return store.User{}, err
		}
		i := slices.IndexFunc(users, func(u store.User) bool { return u.Admin })
		if i < 0 {
			return store.User{}, errors.New("there is no user yet: anteroom user add makes one")
		}
		return users[i], nil
	}
}

func (a *app) checkPort(ctx context.Context, c *client.Client, port string) error {
	r, err := c.CheckPort(ctx, port)
	if err != nil {
		return err
	}
	if r.Problem != "" {
		return fmt.Errorf("%s does not work: %s (the server's log says more)", port, r.Problem)
	}
	address := r.ExitAddress
	if address == "" {
		address = "an address that nobody is asked for (--exit-check)"
	}
	if _, err := fmt.Fprintf(a.out, "%s leaves from %s\n", port, address); err != nil {
		return err
	}
	for _, no := range r.Refuses {
		if _, err := fmt.Fprintf(a.out, "it refuses %s, which %s needs\n", no.Name, no.Provider); err != nil {
			return err
		}
	}
	if len(r.Refuses) > 0 {
		return exitError(1)
	}
	return nil
}
