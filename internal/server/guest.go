package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/buildinfo"
)

// ErrGuestBuild says that the agent is of another build than this program.
var ErrGuestBuild = errors.New("the agent is of another build than this program")

// checkRunsc looks for the runsc program.
func checkRunsc(path string) error {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("gVisor's runsc program is missing: build it (make build), or name it with --runsc: %s: %w", path, err)
	}
	return nil
}

// checkQEMU looks for the qemu-system-x86_64 program.
func checkQEMU(path string) error {
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("QEMU's program is missing: install it (apt-get install qemu-system-x86), or name it with --qemu: %s: %w", path, err)
	}
	return nil
}

// CheckGuest asks the agent's program which build it is. Host and guest share
// types, not a protocol version: of different builds, machines would start and
// then refuse every session.
func CheckGuest(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "build").Output()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("the anteroom-guest program is missing: build it (make build), or name it with --guest: %w", err)
	}
	// One from before it could be asked knows no "build".
	if id := strings.TrimSpace(string(out)); err != nil || id != buildinfo.ID() {
		return fmt.Errorf("%s: %w (%q, this is %q): build both together (make build), then the image again (anteroom image build)", path, ErrGuestBuild, id, buildinfo.ID())
	}
	if screen := filepath.Join(filepath.Dir(path), "anteroom-screen"); unix.Access(screen, unix.X_OK) != nil {
		return fmt.Errorf("%s is missing: build it (make build), it belongs beside anteroom-guest", screen)
	}
	return nil
}
