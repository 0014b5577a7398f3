package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/doctor"
	"github.com/anteroom/anteroom/internal/settings"
)

func doctorCommand(a *app) *cobra.Command {
	s := settings.New()
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check all that the service needs, and say how to mend it",
		Long: `Check all that the service needs on this computer, with the settings that
anteroom serve would have, and say in one line how to mend what is missing.
Changes nothing. Exit code 1 if something that is needed is missing.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			results := doctor.Examine(cmd.Context(), s.Server)
			if err := a.printExam(results, asJSON); err != nil {
				return err
			}
			if !doctor.Healthy(results) {
				return exitError(exitFailure)
			}
			return nil
		},
	}
	s.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the results as JSON")
	return cmd
}

func (a *app) printExam(results []doctor.Result, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(results)
	}
	marks := map[doctor.Status]string{doctor.OK: "✓", doctor.Warning: "!", doctor.Missing: "✗"}
	warnings, lacking := 0, 0
	for _, r := range results {
		switch r.Status {
		case doctor.Warning:
			warnings++
		case doctor.Missing:
			lacking++
		}
		_, _ = fmt.Fprintf(a.out, "%s %-16s %s\n", marks[r.Status], r.Check, r.Found)
		if r.Mend != "" {
			_, _ = fmt.Fprintf(a.out, "  %-16s → %s\n", "", r.Mend)
		}
	}
	var err error
	switch {
	case lacking > 0:
		_, err = fmt.Fprintf(a.out, "\nThe service cannot run yet: %d of what it needs is missing.\n", lacking)
	case warnings > 0:
		_, err = fmt.Fprintf(a.out, "\nThe service can run; %d things could be better.\n", warnings)
	default:
		_, err = fmt.Fprintln(a.out, "\nAll is well.")
	}
	return err
}
