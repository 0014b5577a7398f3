package harness

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Inside runs a command in a machine, as its root and past its agent, and
// returns what it printed on standard output. An exit code other than 0 is an
// error.
func (r *Rig) Inside(ctx context.Context, machine string, argv ...string) (string, error) {
	args := append([]string{"--root", filepath.Join(r.StateDir(), "gvisor", "runsc"), "exec", machine}, argv...)
	out, err := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "runsc"), args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return "", fmt.Errorf("harness: %v in machine %s: %w: %s", argv, machine, err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	return string(out), nil
}
