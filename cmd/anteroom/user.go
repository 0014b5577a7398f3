package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// linkFlags are the settings that decide what a sign-in link looks like.
func linkFlags() []string {
	return []string{"state", "listen", "hosts", "tls-cert", "tls-key", "acme-domain", "behind-proxy"}
}

func userCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "Add and list users, make sign-in links",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(userAddCommand(a), userListCommand(a), userLinkCommand(a), userAdminCommand(a))
	return cmd
}

func userAddCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a user and print a sign-in link",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), s, true, func(db *sqlite.DB) error {
				u, err := db.CreateUser(cmd.Context(), args[0])
				switch {
				case errors.Is(err, store.ErrExists):
					return fmt.Errorf("there is a user %q already: anteroom user link makes a sign-in link", args[0])
				case errors.Is(err, store.ErrInvalid):
					return usagef("%q cannot be a user's name: 1 to 64 printable characters, no spaces at the ends", args[0])
				case err != nil:
					return err
				}
				return a.printLink(cmd, s, db, u)
			})
		},
	}
	s.Flags(cmd.Flags(), linkFlags()...)
	return cmd
}

func userLinkCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "link NAME",
		Short: "Print a new sign-in link for a user",
		Long: `Print a new sign-in link for a user: good once, for 15 minutes. Give the same
settings as to anteroom serve (the same file, or environment), since they decide
the link's address.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				u, err := userNamed(cmd.Context(), db, args[0])
				if err != nil {
					return err
				}
				return a.printLink(cmd, s, db, u)
			})
		},
	}
	s.Flags(cmd.Flags(), linkFlags()...)
	return cmd
}

func userAdminCommand(a *app) *cobra.Command {
	s := settings.New()
	var revoke bool
	cmd := &cobra.Command{
		Use:   "admin NAME",
		Short: "Make a user an administrator, who sees and assigns everybody's ways out",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				u, err := userNamed(cmd.Context(), db, args[0])
				if err != nil {
					return err
				}
				err = db.SetAdmin(cmd.Context(), u.ID, !revoke)
				if errors.Is(err, store.ErrConflict) {
					return fmt.Errorf("%s is the only administrator: make somebody else one first", u.Name)
				}
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	cmd.Flags().BoolVar(&revoke, "revoke", false, "the user is to be none any more")
	return cmd
}

// printLink prints the link alone on standard output, for scripts.
func (a *app) printLink(cmd *cobra.Command, s *settings.Settings, db *sqlite.DB, u store.User) error {
	base, err := s.Server.BaseURL(s.Server.Listen)
	if err != nil {
		return err
	}
	link, err := server.NewLink(cmd.Context(), db, u.ID, base)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(a.err, "Sign-in link of %s, good once, for 15 minutes:\n", u.Name)
	_, err = fmt.Fprintln(a.out, link)
	return err
}

func userListCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the users",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				users, err := db.Users(cmd.Context())
				if err != nil {
					return err
				}
				rows := make([]string, len(users))
				for i, u := range users {
					role := "user"
					if u.Admin {
						role = "administrator"
					}
					rows[i] = fmt.Sprintf("%s\t%s\t%s\t%s", u.Name, u.ID, when(u.CreatedAt), role)
				}
				return a.table("NAME\tID\tCREATED\tROLE", rows)
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	return cmd
}
