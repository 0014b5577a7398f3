//go:build linux

package gvisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/process"
)

// platformFlags are runsc's flags; they are part of the snapshot's key.
func (d *Driver) platformFlags() []string {
	flags := []string{
		"--platform=systrap",
		"--network=none",
		"--host-uds=open", // the line's socket is the only one on a mount
		"--host-settings=ignore",
		"--file-access-mounts=shared",
	}
	if !d.cgroups {
		flags = append(flags, "--ignore-cgroups")
	}
	return flags
}

// outputDelay is how long a runsc that has ended may have left its standard
// error open with somebody else.
const outputDelay = 5 * time.Second

// runsc runs one command of runsc. Its standard streams are not inherited by
// the sandbox, whose own are /dev/null (or, with Debug, a file).
func (d *Driver) runsc(ctx context.Context, id string, args ...string) error {
	logFile := d.logFile(id)
	argv := append([]string{"--root", d.runscRoot(), "--log", logFile, "--log-format=json"}, d.platformFlags()...)
	if d.cfg.Debug {
		argv = append(argv, "--debug", "--debug-log", d.machineDir(id)+"/debug/")
	}
	cmd := exec.CommandContext(ctx, d.cfg.Runsc, append(argv, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, // a signal to the server's group must not reach machines
		// A runsc that still works, or has not even begun, ends with the server:
		// the next one could not know when it is safe to clear away. The machines
		// themselves are other processes.
		Pdeathsig: syscall.SIGKILL,
	}
	cmd.WaitDelay = outputDelay
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if args[0] == "run" || args[0] == "restore" {
		console, err := d.console(id)
		if err != nil {
			return err
		}
		defer func() { _ = console.Close() }()
		cmd.Stdout, cmd.Stderr = console, console
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("runsc %s: %w", args[0], context.Cause(ctx))
		}
		return fmt.Errorf("runsc %s: %w: %s", args[0], err, lastError(logFile, errs.String()))
	}
	return nil
}

// console is what the sandbox gets as its output: nothing, unless debugging,
// since a guest could fill the disk through it.
func (d *Driver) console(id string) (*os.File, error) {
	if d.cfg.Debug {
		return os.OpenFile(filepath.Join(d.machineDir(id), "console.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	}
	return os.OpenFile(os.DevNull, os.O_RDWR, 0)
}

// lastError finds what runsc wrote of its failure.
func lastError(logFile, errs string) string {
	f, err := os.Open(logFile)
	if err != nil {
		return strings.TrimSpace(errs)
	}
	defer func() { _ = f.Close() }()
	last := strings.TrimSpace(errs)
	decoder := json.NewDecoder(io.LimitReader(f, 1<<20))
	for {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
		}
		if err := decoder.Decode(&entry); err != nil {
			return last
		}
		if entry.Level == "error" || entry.Level == "fatal" {
			last = entry.Msg
		}
	}
}

// readPID reads the sandbox's process number as runsc wrote it.
func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// removeSandbox ends whatever works for the machine and has runsc forget it.
// What a runsc that was killed half-way has left is removed by hand.
func (d *Driver) removeSandbox(ctx context.Context, id string) error {
	// First, so that nothing is made any more while it is being removed.
	if err := process.Kill(ctx, d.works(id)); err != nil {
		return err
	}
	state := filepath.Join(d.runscRoot(), id+"_sandbox:"+id+".state")
	if _, err := os.Stat(state); err == nil {
		// What it cannot remove is removed below.
		if err := d.runsc(ctx, id, "delete", "--force", id); err != nil && ctx.Err() != nil {
			return err
		}
	}
	left, err := filepath.Glob(filepath.Join(d.runscRoot(), "*"+id+"*"))
	if err != nil {
		return err
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return cgroup.Remove(ctx, id)
}

// works matches the processes of runsc that work for the machine: its sandbox,
// its gofer, and a runsc that an earlier server has started and that is still
// making it. All of them name the machine's log file, which no other process
// does.
func (d *Driver) works(id string) func(args [][]byte) bool {
	file := d.logFile(id)
	return func(args [][]byte) bool { return names(args, file) }
}

// names says whether a process with these arguments is runsc's, with this file
// as its log.
func names(args [][]byte, logFile string) bool {
	for i, arg := range args {
		if string(arg) == "--log="+logFile || i > 0 && string(args[i-1]) == "--log" && string(arg) == logFile {
			return true
		}
	}
	return false
}
