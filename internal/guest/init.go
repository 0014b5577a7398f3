//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Init is the machine's first process: it starts the agent as its child, reaps
// every orphan, and ends when the agent ends (and with it the machine). It is
// apart from the agent because a wait for any child and os/exec's wait for its
// own would take each other's children.
func Init(self string, args []string) error {
	agent := exec.Command(self, append([]string{"agent"}, args...)...)
	agent.Stdin, agent.Stdout, agent.Stderr = nil, os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		return fmt.Errorf("starting the agent: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	go func() {
		for s := range signals {
			_ = agent.Process.Signal(s)
		}
	}()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for children: %w", err)
		}
		if pid == agent.Process.Pid && (status.Exited() || status.Signaled()) {
			return fmt.Errorf("the agent ended: status %d, signal %v", status.ExitStatus(), status.Signal())
		}
	}
}

// InitVM is Init in a virtual machine: when the agent has ended, or the host has
// asked for the end by Ctrl-Alt-Del, what is not yet on the disks is written, and
// the machine is reset.
func InitVM(self string, args []string) error {
	err := Init(self, args)
	_ = unix.Kill(-1, unix.SIGKILL) // all but this process
	unix.Sync()
	return errors.Join(err, unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART))
}
