// Command idp runs the identity provider for tests by hand and prints how to
// reach it. It is for tests only: whoever trusts its CA trusts nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/anteroom/anteroom/test/idp"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "idp:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("idp", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:3129", "address of the test upstream proxy")
	state := flags.String("state", filepath.Join(os.TempDir(), "anteroom-idp"), "directory that keeps the test CA")
	user := flags.String("proxy-user", "", "user name that the proxy asks for; empty: none")
	password := flags.String("proxy-password", "", "password that the proxy asks for")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg := idp.Config{
		Listen: *listen, StateDir: *state,
		Logger: slog.New(slog.NewTextHandler(stderr, nil)),
	}
	if *user != "" {
		cfg.ProxyUsers = map[string]string{*user: *password}
	}
	s, err := idp.Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(stdout, "proxy     %s\ntest CA   %s\npassword  %s (for any email address)\nhosts:\n",
		s.ProxyURL(*user), filepath.Join(*state, idp.CAFile), idp.DefaultPassword)
	for _, h := range s.Hosts() {
		fmt.Fprintf(stdout, "  %s\n", h)
	}
	<-ctx.Done()
	return nil
}
