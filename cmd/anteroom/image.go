package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/settings"
	"github.com/anteroom/anteroom/internal/steps"
)

func imageCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "image",
		Short: "Build the golden image of the machines",
		Args:  cobra.ArbitraryArgs,
		RunE:  group,
	}
	s := settings.New()
	build := &cobra.Command{
		Use:   "build",
		Short: "Build the golden image, if it is missing",
		Long: `Build the golden image that fits this program, if it is missing: Debian with
Chromium, the vendors' own command-line tools from npm, and the agent. Needs
root, mmdebstrap, npm and mkfs.erofs. build.log in the image directory keeps
all that the programs print.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.Load(); err != nil {
				return err
			}
			img, err := a.buildImage(cmd.Context(), s.Server)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s\n  size      %s\n  id        %s\n  packages  %d\n",
				img.Path, humanize.IBytes(uint64(img.Size)), img.ID, len(img.Packages)) //nolint:gosec // a file's size
			return err
		},
	}
	s.Flags(build.Flags(), "image-dir", "guest")
	cmd.AddCommand(build)
	return cmd
}

// buildImage builds the image where it is missing, with its log beside it.
func (a *app) buildImage(ctx context.Context, cfg server.Config) (image.Image, error) {
	if _, err := os.Stat(cfg.Guest); err != nil {
		return image.Image{}, fmt.Errorf("the anteroom-guest program is not there: build it (make build), or name it with --guest: %w", err)
	}
	log := &lateFile{path: filepath.Join(cfg.ImageDir, "build.log")}
	defer func() { _ = log.Close() }()
	return image.Build(ctx, image.Config{Dir: cfg.ImageDir, Guest: cfg.Guest, Logger: log, Steps: steps.New(a.err)})
}

// lateFile is a file that is made by the first write, so that a build that has
// nothing to do leaves the log of the last one alone.
type lateFile struct {
	path string
	file *os.File
}

var _ io.WriteCloser = (*lateFile)(nil)

func (l *lateFile) Write(b []byte) (int, error) {
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
		if err != nil {
			return 0, err
		}
		l.file = f
	}
	return l.file.Write(b)
}

func (l *lateFile) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
