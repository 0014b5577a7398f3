package main

import (
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

func vaultCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "Rotate the root key, verify the audit record",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	cmd.AddCommand(vaultRotateCommand(a), vaultVerifyCommand(a))
	return cmd
}

func vaultRotateCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the root key",
		Long: `Make a new root key, wrap every version's data key with it and throw the old
root key away. A server may be running. If it is interrupted, nothing is lost:
start it again and it goes on.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				v, err := server.OpenVault(cmd.Context(), s.Server, db)
				if err != nil {
					return permission(err)
				}
				n, err := v.Rotate(cmd.Context(), db)
				if err != nil {
					return fmt.Errorf("%d versions have the new root key, the others still have the old one, which was kept: %w", n, err)
				}
				_, err = fmt.Fprintf(a.out, "The root key is replaced; versions that were wrapped again: %d\n", n)
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state", "key-file")
	return cmd
}

func vaultVerifyCommand(a *app) *cobra.Command {
	s := settings.New()
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check the audit record against what is stored",
		Long: `Check the chain of the audit record, and that each stored version is the one
that the record names: what was changed, removed or put back is found.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withState(cmd.Context(), s, false, func(db *sqlite.DB) error {
				r, err := db.VerifyAudit(cmd.Context())
				if errors.Is(err, store.ErrAudit) {
					return fmt.Errorf("somebody or something has changed the database outside of Anteroom: %w", err)
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.out, "The audit record holds: %d entries, %d credential versions compared, head %s\n",
					r.Entries, r.Credentials, hex.EncodeToString(r.Head[:]))
				return err
			})
		},
	}
	s.Flags(cmd.Flags(), "state")
	return cmd
}
