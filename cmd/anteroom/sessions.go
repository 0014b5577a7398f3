package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

func sessionsCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "List, show and cancel sign-in sessions",
		Args:  cobra.ArbitraryArgs,
	}
	list := sessionsListCommand(a)
	cmd.AddCommand(list, sessionsShowCommand(a), sessionsCancelCommand(a))
	// "anteroom sessions" alone is the list.
	cmd.Flags().AddFlagSet(list.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return group(cmd, args)
		}
		return list.RunE(cmd, args)
	}
	return cmd
}

func sessionsListCommand(a *app) *cobra.Command {
	s := settings.New()
	var limit int
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List everybody's sessions, newest first",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 1 {
				return usagef("--limit must be 1 or more")
			}
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				return a.listSessions(cmd.Context(), db, limit)
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	cmd.Flags().IntVar(&limit, "limit", 50, "`number` of sessions to list at most")
	return cmd
}

func (a *app) listSessions(ctx context.Context, db *sqlite.DB, limit int) error {
	users, err := db.Users(ctx)
	if err != nil {
		return err
	}
	var all []session.Session
	names := map[string]string{}
	for _, u := range users {
		names[u.ID] = u.Name
		of, err := db.SessionsOf(ctx, u.ID, limit, session.Session{}.CreatedAt)
		if err != nil {
			return err
		}
		all = append(all, of...)
	}
	slices.SortStableFunc(all, func(a, b session.Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	var rows []string
	for _, one := range all[:min(limit, len(all))] {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", one.ID, names[one.UserID], one.Provider,
			one.State, when(one.CreatedAt), one.Reason))
	}
	return a.table("ID\tUSER\tPROVIDER\tSTATE\tCREATED\tREASON", rows)
}

func sessionsShowCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one session with all its events",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				one, err := sessionByID(cmd.Context(), db, args[0])
				if err != nil {
					return err
				}
				return a.showSession(cmd.Context(), db, one)
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	return cmd
}

func sessionByID(ctx context.Context, db *sqlite.DB, id string) (session.Session, error) {
	one, err := db.Session(ctx, session.ID(id))
	if errors.Is(err, store.ErrNotFound) {
		return one, fmt.Errorf("there is no session %q: anteroom sessions lists them", id)
	}
	return one, err
}

func (a *app) showSession(ctx context.Context, db *sqlite.DB, one session.Session) error {
	u, err := db.UserByID(ctx, one.UserID)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.out, "session   %s\nuser      %s\nprovider  %s\nstate     %s\n", one.ID, u.Name, one.Provider, one.State)
	for _, f := range []struct{ name, value string }{
		{"reason", string(one.Reason)}, {"detail", one.Detail}, {"machine", one.VMID},
	} {
		if f.value != "" {
			_, _ = fmt.Fprintf(a.out, "%-9s %s\n", f.name, f.value)
		}
	}
	_, _ = fmt.Fprintf(a.out, "attempt   %d\ncreated   %s\nupdated   %s\ndeadline  %s\n\n", one.Attempt, when(one.CreatedAt), when(one.UpdatedAt), when(one.Deadline))
	for after := int64(0); ; {
		events, err := db.EventsAfter(ctx, one.UserID, one.ID, after, 0)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			return nil
		}
		for _, e := range events {
			after = e.Seq
			kind := string(e.Kind)
			if e.Kind == session.EventState {
				kind = string(e.State)
			}
			_, _ = fmt.Fprintf(a.out, "%s  %-20s %s\n", e.At.Local().Format("15:04:05.000"), kind, printable(e.Message))
		}
	}
}

// printable keeps a tool's output, which is among the events, from steering
// the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

func sessionsCancelCommand(a *app) *cobra.Command {
	s := settings.New()
	var address string
	cmd := &cobra.Command{
		Use:   "cancel ID",
		Short: "Cancel a session, through the running server",
		Long: `Cancel a session, through the running server: as the owner of ANTEROOM_TOKEN,
or, without it, as the session's own user, for whoever may use the server's
state directory.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			ctx := cmd.Context()
			owner := func(db *sqlite.DB) (store.User, error) {
				one, err := sessionByID(ctx, db, args[0])
				if err != nil {
					return store.User{}, err
				}
				return db.UserByID(ctx, one.UserID)
			}
			return a.withClient(ctx, s, address, "anteroom sessions cancel", owner, func(c *client.Client) error {
				if err := c.CancelSession(ctx, args[0]); err != nil {
					return err
				}
				_, err := fmt.Fprintln(a.out, "cancelled")
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state", "listen")
	cmd.Flags().StringVar(&address, "server", os.Getenv(settings.EnvPrefix+"SERVER"), "the server's `address` (default: where the settings say) [ANTEROOM_SERVER]")
	return cmd
}
