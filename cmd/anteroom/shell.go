package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

func shellCommand(a *app) *cobra.Command {
	s := settings.New()
	var user, address string
	cmd := &cobra.Command{
		Use:   "shell",
		Short: "Open a terminal on your own CLI machine",
		Long: `Open a terminal on a user's own CLI machine, through the running server. With
ANTEROOM_TOKEN set it is the token's owner's, from anywhere; without, whoever
may use the server's state directory names the user. Ends with the shell's exit
code.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			if user == "" {
				user = s.Server.User
			}
			owner := func(db *sqlite.DB) (store.User, error) { return userNamed(cmd.Context(), db, user) }
			return a.withClient(cmd.Context(), s, address, "anteroom shell", owner, func(c *client.Client) error {
				return a.shell(cmd.Context(), c)
			})
		},
	}
	s.Flags(cmd.Flags(), "state", "listen")
	cmd.Flags().StringVar(&user, "user", "", "`name` of the user, without ANTEROOM_TOKEN (default: the server's own)")
	cmd.Flags().StringVar(&address, "server", os.Getenv(settings.EnvPrefix+"SERVER"), "the server's `address`, such as https://name (default: where the settings say) [ANTEROOM_SERVER]")
	return cmd
}

// shell connects this terminal to a shell on the machine.
func (a *app) shell(ctx context.Context, c *client.Client) error {
	id, err := c.EnsureMachine(ctx)
	if err != nil {
		return err
	}
	size, sizes, restore, err := a.rawTerminal(ctx)
	if err != nil {
		return err
	}
	defer restore()
	in, err := newInput(a.in)
	if err != nil {
		return err
	}
	code, err := c.Terminal(ctx, id, in, a.out, size, sizes, in.interrupt)
	in.close()
	restore() // before anything is printed
	if err != nil {
		return err
	}
	if code != 0 {
		return exitError(code)
	}
	return nil
}

// rawTerminal hands every key to the machine and follows this terminal's size.
// Where standard input is none, it does nothing. restore is idempotent.
func (a *app) rawTerminal(ctx context.Context) (client.Size, <-chan client.Size, func(), error) {
	fd := int(a.in.Fd())
	size := client.Size{Cols: 80, Rows: 24}
	if !term.IsTerminal(fd) {
		return size, nil, func() {}, nil
	}
	size = a.terminalSize(size)
	state, err := term.MakeRaw(fd)
	if err != nil {
		return size, nil, nil, fmt.Errorf("making the terminal raw: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	sizes := make(chan client.Size)
	var work sync.WaitGroup
	work.Go(func() {
		last := size
		for {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			last = a.terminalSize(last)
			select {
			case <-ctx.Done():
				return
			case sizes <- last:
			}
		}
	})
	return size, sizes, sync.OnceFunc(func() {
		signal.Stop(changed)
		cancel()
		work.Wait()
		_ = term.Restore(fd, state)
	}), nil
}

// terminalSize is this terminal's, within what a machine allows.
func (a *app) terminalSize(last client.Size) client.Size {
	cols, rows, err := term.GetSize(int(a.in.Fd()))
	if err != nil || cols == 0 || rows == 0 {
		return last
	}
	clamp := func(n int) int { return min(max(n, guestapi.MinTermSize), guestapi.MaxTermSize) }
	return client.Size{Cols: clamp(cols), Rows: clamp(rows)}
}

// input reads a file whose Read could wait for ever, until it is interrupted.
type input struct {
	file       *os.File
	wake, stop *os.File // a pipe: closing stop wakes the reader
	interrupt  func()   // idempotent
}

func newInput(f *os.File) (*input, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &input{file: f, wake: r, stop: w, interrupt: sync.OnceFunc(func() { _ = w.Close() })}, nil
}

// Read reads what there is; io.EOF once the input has ended or is interrupted.
func (i *input) Read(b []byte) (int, error) {
	fds := []unix.PollFd{
		{Fd: int32(i.file.Fd()), Events: unix.POLLIN}, //nolint:gosec // a descriptor
		{Fd: int32(i.wake.Fd()), Events: unix.POLLIN}, //nolint:gosec // a descriptor
	}
	for {
		_, err := unix.Poll(fds, -1)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		if fds[1].Revents != 0 {
			return 0, io.EOF
		}
		return i.file.Read(b)
	}
}

// close frees the pipe, when nobody reads any more.
func (i *input) close() {
	i.interrupt()
	_ = i.wake.Close()
}
