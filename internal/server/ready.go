package server

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/httpapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// canSignIn says whether a sign-in could be taken now: the database answers, the
// service has taken over, and what machines are made from is there. It is asked
// every few seconds: it starts nothing and hashes no image.
func canSignIn(ctx context.Context, cfg Config, driver string, db *sqlite.DB, service *control.Service, golden image.Image) error {
	if _, err := db.Stats(ctx); err != nil {
		return err
	}
	if err := service.Ready(); err != nil {
		return err
	}
	if err := canMakeMachines(cfg, driver, golden); err != nil {
		return fmt.Errorf("%w: %w", httpapi.ErrMachines, err)
	}
	return nil
}

// checkPrograms looks for a driver's programs, or those that "auto" ends with.
func checkPrograms(cfg Config, driver string) error {
	switch driver {
	case DriverQEMU:
		return checkQEMU(cfg.QEMU)
	case DriverFirecracker:
		for _, program := range []string{cfg.Firecracker, cfg.Jailer} {
			if err := unix.Access(program, unix.X_OK); err != nil {
				return fmt.Errorf("%s: %w: %w (anteroom doctor says where to get it)", program, firecracker.ErrMissing, err)
			}
		}
		return nil
	}
	return checkRunsc(cfg.Runsc)
}

// canMakeMachines looks whether what machines are made from is still there and
// whole, as far as its size tells.
func canMakeMachines(cfg Config, driver string, golden image.Image) error {
	if err := checkPrograms(cfg, driver); err != nil {
		return err
	}
	info, err := os.Stat(golden.Path)
	if err != nil {
		return fmt.Errorf("the golden image: %w", err)
	}
	if info.Size() != golden.Size {
		return fmt.Errorf("the golden image %s has %d bytes, not %d: build it again (anteroom image build) and restart the server", golden.Path, info.Size(), golden.Size)
	}
	return nil
}
