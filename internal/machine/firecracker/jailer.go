//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/anteroom/anteroom/internal/machine/cgroup"
)

// What is where in a jail, as Firecracker sees it.
const (
	apiSocket    = "/run/api.sock"
	lineSocket   = "/run/line.sock"
	jailKernel   = "/vmlinux"
	jailInitrd   = "/initrd"
	jailImage    = "/image"
	jailState    = "/snapshot/state"
	jailMemory   = "/snapshot/memory"
	jailSnapshot = "/snapshot"
	jailHome     = "/home"
)

// Bounds on one Firecracker process.
const (
	// overhead is what a machine's Firecracker needs beside the guest's memory.
	overhead = 64 << 20
	// maxTasks is far more than Firecracker's threads: one for each processor,
	// one for the API, one for the rest.
	maxTasks = 64
	maxFiles = 256
	// fileSlack is what a file may be larger than it should, so that it is the
	// file system's limit that is met first and not the signal that ends the
	// process.
	fileSlack = 64 << 20
)

// confinement is what the jailer puts around one Firecracker.
type confinement struct {
	id      string
	uid     uint32
	base    string // the directory in which the jailer makes its own
	memory  int64  // bytes, of the guest
	cpus    float64
	maxFile int64 // bytes that a file may have that Firecracker writes
	groups  int   // version of the host's control groups; 0: there are none
}

// jailerArgs is the jailer's command line. Firecracker's default seccomp filter
// is on because nothing turns it off.
func jailerArgs(firecracker string, c confinement) []string {
	parent := strings.Trim(path.Dir(cgroup.Path(c.id)), "/")
	id := strconv.FormatUint(uint64(c.uid), 10)
	args := []string{
		"--id", c.id, "--exec-file", firecracker, "--uid", id, "--gid", id, "--chroot-base-dir", c.base,
		"--new-pid-ns",
		"--resource-limit", fmt.Sprint("fsize=", c.maxFile+fileSlack), "--resource-limit", fmt.Sprint("no-file=", maxFiles),
	}
	const period = 100_000 // µs
	quota := int64(c.cpus * period)
	switch c.groups {
	case 1:
		args = append(args, "--cgroup-version", "1", "--parent-cgroup", parent,
			"--cgroup", fmt.Sprint("memory.limit_in_bytes=", c.memory+overhead),
			"--cgroup", fmt.Sprint("cpu.cfs_period_us=", period), "--cgroup", fmt.Sprint("cpu.cfs_quota_us=", quota),
			"--cgroup", fmt.Sprint("pids.max=", maxTasks))
	case 2:
		args = append(args, "--cgroup-version", "2", "--parent-cgroup", parent,
			"--cgroup", fmt.Sprint("memory.max=", c.memory+overhead),
			"--cgroup", fmt.Sprintf("cpu.max=%d %d", quota, period),
			"--cgroup", fmt.Sprint("pids.max=", maxTasks))
	}
	return append(args, "--", "--api-sock", apiSocket)
}

// jailRoot is the jail's root directory, as the jailer makes it. It names its
// directory after the program with all symbolic links followed.
func jailRoot(base, program, id string) string {
	return filepath.Join(base, program, id, "root")
}

// startJailed runs the jailer, which puts Firecracker into its jail, starts it
// there and ends. What either prints goes to log, which the guest's serial
// console is appended to.
func startJailed(ctx context.Context, jailer, firecracker string, c confinement, log *os.File) (pid int, err error) {
	cmd := exec.CommandContext(ctx, jailer, jailerArgs(firecracker, c)...)
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true, // a signal to the server's group must not reach machines
		// A jailer that still works, or has not even begun, ends with the server:
		// the next one could not know when it is safe to clear away. Firecracker
		// itself is another process.
		Pdeathsig: syscall.SIGKILL,
		// Namespaces that Firecracker inherits: a network without devices.
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("jailer: %w", context.Cause(ctx))
		}
		return 0, fmt.Errorf("jailer: %w: %s", err, lastWords(log.Name()))
	}
	// Firecracker could write to it, but knows no guest yet that could make it.
	program := filepath.Base(firecracker)
	return readPID(filepath.Join(jailRoot(c.base, program, c.id), program+".pid"))
}

func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// maxWords is how much of a log's end an error repeats.
const maxWords = 512

// lastWords is the end of a machine's log, in one line.
func lastWords(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, maxWords)
	n, err := f.ReadAt(b, max(0, info.Size()-maxWords))
	if err != nil && err != io.EOF { //nolint:errorlint // ReadAt gives io.EOF itself
		return err.Error()
	}
	// The guest's own bytes may be among them.
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(b[:n]), " "))
	return strings.Join(strings.Fields(printable), " ")
}
