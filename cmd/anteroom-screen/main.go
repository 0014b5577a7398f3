//go:build linux

// Command anteroom-screen shows a machine's screen to one viewer, through its
// standard input and output (see guestapi's screen frames). The agent starts it.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/jezek/xgb"

	"github.com/anteroom/anteroom/internal/screen"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "anteroom-screen:", err)
		os.Exit(1)
	}
}

func run() error {
	codec := flag.String("codec", "vp8", "vp8")
	vnc := flag.String("vnc", "", "the unix `socket` on which the X server takes a new size")
	speed := flag.Int("speed", 0, "the encoder's, 1 to 16; 0 for what is best")
	restore := flag.Bool("restore", false, "undo what a program of this name has left that was killed, and end")
	flag.Parse()
	if *codec != "vp8" {
		return fmt.Errorf("--codec %q: only vp8 is known", *codec)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	xgb.Logger = log.New(io.Discard, "", 0) // it tells of a missing Xauthority, and what it returns as errors too
	if *restore {
		return screen.Restore(os.Getenv("DISPLAY"))
	}
	in, err := pollable(os.Stdin)
	if err != nil {
		return err
	}
	out, err := pollable(os.Stdout)
	if err != nil {
		return err
	}
	return screen.Run(ctx, screen.Config{
		Display: os.Getenv("DISPLAY"), VNC: *vnc, In: in, Out: out, Speed: *speed,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

// pollable makes a pipe or socket one whose Close ends a Read or Write that is
// under way.
func pollable(f *os.File) (*os.File, error) {
	fd := int(f.Fd())
	if err := syscall.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
