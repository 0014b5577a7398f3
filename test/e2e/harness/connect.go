package harness

import (
	"context"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Connect is `anteroom connect` with the rig's programs, image and way out, not
// started yet. It is told to stop as by Ctrl-C when ctx ends.
func (r *Rig) Connect(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(r.cfg.Bin, "anteroom"), append([]string{
		"connect", "--listen", "127.0.0.1:0", "--upstreams-file", r.upstreamFile(), "--ca-files", r.caFile(),
		"--image-dir", r.cfg.ImageDir, "--guest", filepath.Join(r.cfg.Bin, "anteroom-guest"), "--runsc", filepath.Join(r.cfg.Bin, "runsc"),
	}, args...)...)
	cmd.Env = append(cleanEnv(), "TMPDIR="+r.dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	return cmd
}

// ConnectStates are the temporary state directories of connects of this rig
// (and, where they are in /run, of others). What is left of one whose directory
// has gone, Leftovers tells.
func (r *Rig) ConnectStates() []string {
	var found []string
	for _, parent := range []string{"/run", r.dir} {
		dirs, _ := filepath.Glob(filepath.Join(parent, "anteroom-connect-*"))
		found = append(found, dirs...)
	}
	return found
}
