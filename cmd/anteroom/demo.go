package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// demoProgram is a program of its own, since it contains the test identity
// provider, which has no place in this one.
const demoProgram = "anteroom-demo"

func demoCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Sign in with the three real tools, by itself and without the internet",
		Long: `Do by itself, and without the internet, all that a person does: a real browser
opens the page of a real server, signs in to each provider by mouse and keyboard
and uses the tools afterwards. Only the providers are played, by the test
identity provider. The arguments are those of anteroom-demo (--help lists them),
which is expected beside this program.`,
		// They are the other program's.
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			demo := exec.CommandContext(cmd.Context(), filepath.Join(filepath.Dir(exe), demoProgram), args...)
			demo.Stdin, demo.Stdout, demo.Stderr = a.in, a.out, a.err
			// It cleans up when it is interrupted: it is waited for.
			demo.Cancel = func() error { return demo.Process.Signal(syscall.SIGTERM) }
			err = demo.Run()
			var exit *exec.ExitError
			switch {
			case errors.Is(err, fs.ErrNotExist):
				return fmt.Errorf("there is no %s beside this program: make build makes it: %w", demoProgram, err)
			case errors.As(err, &exit):
				return exitError(max(exit.ExitCode(), exitFailure))
			}
			return err
		},
	}
}
