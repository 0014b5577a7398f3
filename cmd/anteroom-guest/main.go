//go:build linux

// Command anteroom-guest is the agent inside every machine: its first process,
// the programs' supervisor, the host's HTTP API, and, under other names, the
// browser that the command-line tools believe they start.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/anteroom/anteroom/internal/buildinfo"
	"github.com/anteroom/anteroom/internal/guest"
	"github.com/anteroom/anteroom/internal/guest/boot"
)

func main() {
	os.Exit(run(os.Args))
}

func run(args []string) int {
	switch filepath.Base(args[0]) {
	case "anteroom-guest":
		return command(args)
	case "init": // in a virtual machine's initrd
		fmt.Fprintln(os.Stderr, "anteroom-guest:", boot.Main())
		return 1
	}
	return guest.HookMain(args)
}

func command(args []string) int {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: anteroom-guest init|vm|agent --kind browser|cli --line unix:PATH|virtio:NAME|vsock:PORT|vsock-listen:PORT, or anteroom-guest build")
		return 2
	}
	var err error
	switch args[1] {
	case "init":
		err = guest.Init(args[0], args[2:])
	case "vm":
		err = guest.InitVM(args[0], args[2:])
	case "agent":
		err = agent(args[2:])
	case "build": // asked by the host, which must be of the same
		_, err = fmt.Println(buildinfo.ID())
	default:
		err = fmt.Errorf("unknown command %q", args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "anteroom-guest:", err)
		return 1
	}
	return 0
}

func agent(args []string) error {
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	kind := flags.String("kind", "", "browser or cli")
	address := flags.String("line", "", "where the host is: unix:PATH, virtio:NAME, vsock:PORT or vsock-listen:PORT")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dial, virtual, err := guest.Reach(*address)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return guest.Run(ctx, guest.Config{
		Kind:    *kind,
		Dial:    dial,
		Virtual: virtual,
		Build:   buildinfo.ID(),
		Logs:    os.Stdout,
	})
}
