// Command anteroom is the whole service: the server, the commands that manage
// it, and the tools beside it. It parses the command line and calls what does
// the work.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	// The first signal ends ctx, and everything stops in good order; a second
	// one finds no handler any more and ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	root := newRoot(&app{in: os.Stdin, out: os.Stdout, err: os.Stderr})
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	code := exitCode(err)
	var quiet exitError
	if err != nil && !errors.As(err, &quiet) {
		fmt.Fprintln(os.Stderr, "anteroom:", err)
	}
	return code
}
