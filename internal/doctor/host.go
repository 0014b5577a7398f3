package doctor

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine/cgroup"
)

// oldestKernel is what gVisor's systrap platform needs.
const oldestMajor, oldestMinor = 4, 15

// builtAfter is a time that every right clock is past.
func builtAfter() time.Time { return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC) }

func (e *exam) root(context.Context) Result {
	if uid := os.Geteuid(); uid != 0 {
		return missing(fmt.Sprintf("this runs as user %d", uid), "run it with sudo: making isolated machines needs root")
	}
	return ok("this runs as root")
}

func (e *exam) platform(context.Context) Result {
	found := runtime.GOOS + "/" + runtime.GOARCH
	if found != "linux/amd64" {
		return missing(found, "use an x86-64 machine with Linux: the tools and Chromium in the image are built for that")
	}
	return ok(found)
}

func (e *exam) kernel(context.Context) Result {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return missing(err.Error(), "use Linux 4.15 or newer")
	}
	release := unix.ByteSliceToString(u.Release[:])
	if !atLeast(release, oldestMajor, oldestMinor) {
		return missing("Linux "+release, "use Linux 4.15 or newer: gVisor needs it")
	}
	return ok("Linux " + release)
}

// atLeast says whether a kernel's release, such as 6.1.0-28-amd64, is not older.
func atLeast(release string, major, minor int) bool {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a > major || a == major && b >= minor)
}

// namespaces makes the ones that a machine is made of.
func (e *exam) namespaces(ctx context.Context) Result {
	cmd := exec.CommandContext(ctx, "/bin/true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		return missing("a process in new namespaces does not start: "+err.Error(),
			"allow user namespaces: sysctl -w user.max_user_namespaces=15000; in a container, give it more rights")
	}
	return ok("user, mount, process and network namespaces can be made")
}

func (e *exam) memory(context.Context) Result {
	total, free, err := meminfo()
	if err != nil {
		return missing(err.Error(), "mount /proc")
	}
	found := fmt.Sprintf("%s, %s of it available", size(total), size(free))
	switch {
	case free < e.cfg.MinFreeMemory:
		return missing(found, fmt.Sprintf("make room: at least %s must be available before a machine is started (min-free-memory)", size(e.cfg.MinFreeMemory)))
	case free < e.cfg.MinFreeMemory+1<<30:
		return warning(found, "more memory: each sign-in takes up to about 1 GiB while it lasts")
	}
	return ok(found)
}

func meminfo() (total, available int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "MemTotal":
			total = kib << 10
		case "MemAvailable":
			available = kib << 10
		}
	}
	if total == 0 || available == 0 {
		return 0, 0, fmt.Errorf("/proc/meminfo does not tell the memory")
	}
	return total, available, nil
}

func (e *exam) swap(context.Context) Result {
	b, err := os.ReadFile("/proc/swaps")
	if err == nil && strings.Count(strings.TrimSpace(string(b)), "\n") > 0 {
		return warning("swap is in use", "turn it off (swapoff -a) or encrypt it: tokens in a machine's memory could reach the disk")
	}
	return ok("no swap: what is in memory stays there")
}

func (e *exam) cgroups(context.Context) Result {
	if enforced, why := cgroup.Probe(); !enforced {
		return warning(why, "give this system writable cgroups; without them one machine can take all the memory and CPU of the host")
	}
	return ok("machines' memory and CPU are limited")
}

func (e *exam) clock(context.Context) Result {
	now := time.Now()
	if now.Before(builtAfter()) {
		return missing("it is said to be "+now.UTC().Format(time.RFC3339), "set the clock: with a wrong one no certificate and no token is good")
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err == nil && state == unix.TIME_ERROR {
		return warning("nothing says that the clock is kept right", "run a time service (timedatectl set-ntp true); within a container the host's counts")
	}
	return ok("kept right by a time service")
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
