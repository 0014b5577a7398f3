package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/anteroom/anteroom/internal/buildinfo"
	"github.com/anteroom/anteroom/internal/settings"
)

// app is what every command is given.
type app struct {
	in, out, err *os.File
}

// newRoot makes the whole command line. A new command is one more line here.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:           "anteroom",
		Short:         "Sign in to command-line tools from anywhere",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          group,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddCommand(
		serveCommand(a),
		connectCommand(a),
		imageCommand(a),
		userCommand(a),
		tokenCommand(a),
		sessionsCommand(a),
		shellCommand(a),
		egressCommand(a),
		vaultCommand(a),
		doctorCommand(a),
		demoCommand(a),
		versionCommand(a),
	)
	strict(root)
	return root
}

// group is what a command does that only holds others.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return usagef("%s has no command %q; it has: %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))
}

// strict makes every fault of the command line a usageError that points to help.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		var invalid *pflag.InvalidValueError
		if errors.As(err, &invalid) { // which repeats the value: it may be a secret
			err = fmt.Errorf("--%s: %w", invalid.GetFlag().Name, invalid.Unwrap())
		}
		return usagef("%v\n(%s --help lists what can be given)", err, c.CommandPath())
	})
	if args := cmd.Args; args != nil {
		cmd.Args = func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return usagef("%v; usage: %s", err, c.UseLine())
			}
			return nil
		}
	}
	for _, c := range cmd.Commands() {
		strict(c)
	}
}

// usageError is a fault of the command line: exit code 2.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitError ends the program with a code and without a word.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

func exitCode(err error) int {
	var usage *usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case errors.As(err, &usage), errors.Is(err, settings.ErrSetting):
		return exitUsage
	}
	return exitFailure
}

// logger logs to standard error, as the settings say.
func (a *app) logger(s *settings.Settings) *slog.Logger {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	options := &slog.HandlerOptions{Level: levels[s.LogLevel]}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(a.err, options))
	}
	return slog.New(slog.NewTextHandler(a.err, options))
}

func versionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(a.out, "anteroom %s (agent %s%s)\n", buildinfo.Version(), buildinfo.ID(), goVersion())
			return err
		},
	}
}

// goVersion says what Go itself noted of the build.
func goVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	text := ", " + info.GoVersion
	if i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == "vcs.revision" }); i >= 0 {
		text += ", commit " + info.Settings[i].Value
	}
	return text
}
