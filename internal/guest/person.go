//go:build linux

package guest

import (
	"context"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// The unprivileged user that everything runs as that a person can reach: the
// X server, the window manager, Chromium, the tools and the terminals.
const (
	PersonName = "person"
	PersonUID  = 1000
	PersonGID  = 1000
	PersonHome = "/home/person"
)

// Where things are inside a machine.
const (
	runDir      = "/run/anteroom"
	hookDir     = runDir + "/hooks"
	hookSocket  = runDir + "/hook.sock"
	vncSocket   = "/run/person/vnc.sock"
	personRun   = "/run/person"
	caExtra     = runDir + "/ca-extra.pem"
	caBundle    = runDir + "/ca-bundle.pem"
	systemCA    = "/etc/ssl/certs/ca-certificates.crt"
	display     = ":0"
	proxyListen = "127.0.0.1:3128"
)

// personCommand prepares argv to run as the person, in a session of its own so
// that the whole of it can be killed, with env as its whole environment.
func personCommand(ctx context.Context, env []string, out io.Writer, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	cmd.Dir = PersonHome
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Credential: &syscall.Credential{Uid: PersonUID, Gid: PersonGID},
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	return cmd
}
