package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// tokenPrefix lets scanners of repositories find a token that has leaked.
const tokenPrefix = "anteroom_"

func tokenCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke API tokens",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(tokenCreateCommand(a), tokenListCommand(a), tokenRevokeCommand(a))
	return cmd
}

func tokenCreateCommand(a *app) *cobra.Command {
	s := settings.New()
	var user, label string
	var expires time.Duration
	cmd := &cobra.Command{
		Use:   "create --user NAME",
		Short: "Create an API token and print it, once",
		Long: `Create an API token and print it. Only its hash is stored: it cannot be shown
again. Programs send it as "Authorization: Bearer TOKEN".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if user == "" {
				return usagef("whose token? --user NAME says it")
			}
			if expires < 0 {
				return usagef("--expires %s lies in the past", expires)
			}
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				u, err := userNamed(cmd.Context(), db, user)
				if err != nil {
					return err
				}
				secret, t, err := newToken(cmd.Context(), db, u.ID, label, expires)
				if err != nil {
					return err
				}
				_, _ = fmt.Fprintf(a.err, "API token %s of %s; it is not shown again:\n", t.ID, u.Name)
				_, err = fmt.Fprintln(a.out, secret.Reveal())
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	// The setting "user" is the server's own user; here the flag means another.
	cmd.Flags().StringVar(&user, "user", "", "`name` of the user whom the token speaks for")
	cmd.Flags().StringVar(&label, "label", "", "`text` that tells what the token is for")
	cmd.Flags().DurationVar(&expires, "expires", 0, "`time` for which the token is good, such as 720h (default: for ever)")
	return cmd
}

func newToken(ctx context.Context, db *sqlite.DB, userID, label string, lasts time.Duration) (store.Secret, store.Token, error) {
	secret, hash := store.NewSecret(tokenPrefix)
	t := store.Token{UserID: userID, Kind: store.TokenAPI, Label: label}
	if lasts > 0 {
		t.ExpiresAt = time.Now().Add(lasts)
	}
	t, err := db.CreateToken(ctx, t, hash)
	return secret, t, err
}

func tokenListCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what can sign in: API tokens, pages, open links",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				var rows []string
				err := eachToken(cmd.Context(), db, func(u store.User, t store.Token) error {
					if t.ExpiresAt.IsZero() || t.ExpiresAt.After(time.Now()) {
						rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", t.ID, u.Name, t.Kind,
							when(t.CreatedAt), when(t.ExpiresAt), when(t.LastUsedAt), t.Label))
					}
					return nil
				})
				if err != nil {
					return err
				}
				return a.table("ID\tUSER\tKIND\tCREATED\tEXPIRES\tLAST USED\tLABEL", rows)
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	return cmd
}

func tokenRevokeCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "revoke ID",
		Short: "Revoke an API token, a page's sign-in or a link",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				found := false
				err := eachToken(cmd.Context(), db, func(u store.User, t store.Token) error {
					if t.ID != args[0] {
						return nil
					}
					found = true
					err := db.DeleteToken(cmd.Context(), u.ID, t.ID)
					if errors.Is(err, store.ErrNotFound) {
						err = nil // gone meanwhile
					}
					return err
				})
				if err == nil && !found {
					err = fmt.Errorf("there is no token with the id %q: anteroom token list shows all", args[0])
				}
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	return cmd
}

func eachToken(ctx context.Context, db *sqlite.DB, f func(store.User, store.Token) error) error {
	users, err := db.Users(ctx)
	if err != nil {
		return err
	}
	for _, u := range users {
		tokens, err := db.Tokens(ctx, u.ID)
		if err != nil {
			return err
		}
		for _, t := range tokens {
			if err := f(u, t); err != nil {
				return err
			}
		}
	}
	return nil
}
