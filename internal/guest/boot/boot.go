//go:build linux

// Package boot is what a virtual machine starts with: the first process in its
// initrd. It loads the kernel's modules, puts the golden image together with a
// layer in memory, and becomes the agent, as process 1.
//
// What a machine must have, whichever program runs it:
//
//	the kernel and initrd of the golden image (image.Image's Vmlinuz or Vmlinux,
//	and Initrd);
//	/dev/vda: a virtio block device, read-only, with the golden image (erofs);
//	/dev/vdb: for cli machines only, a virtio block device with the person's home
//	(ext4);
//	the line: a virtio-serial port, or a vsock device;
//	no network device.
//
// virtio devices may be on PCI or on MMIO (ACPI or virtio_mmio.device=). An
// i8042 keyboard controller, where there is one, is how the host tells the
// machine to end: Ctrl-Alt-Del, for which it has written everything to its disks
// before it resets.
//
// The kernel's command line says:
//
//	anteroom.kind=browser or cli; or probe, for a machine that says "anteroom:
//	booted" on its console and switches itself off, without any disk
//	anteroom.line=virtio:NAME for the virtio-serial port of this name, or
//	anteroom.line=vsock:PORT for the host (CID 2) at this vsock port, which the
//	agent dials until somebody listens there, or
//	anteroom.line=vsock-listen:PORT for this vsock port of the machine's own, at
//	which the host connects
//
// and should have panic=-1, with which a machine whose agent ends is reset; the
// program that runs it must then end. quiet and 8250.nr_uarts=0 keep it from
// spending time on a console that nobody reads.
package boot

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guest"
)

// What the image's build and this package agree on, below the initrd's root.
const (
	// ModuleList names the files below ModuleDir, one on a line, in the order in
	// which they are to be loaded.
	ModuleList = "modules/list"
	ModuleDir  = "modules"
	// Agent is the agent in the golden image.
	Agent = "usr/sbin/anteroom-guest"
)

// Where things are before the root is changed.
const (
	lower = "/lower"
	upper = "/upper"
	root  = "/root"
	image = "/dev/vda"
	home  = "/dev/vdb"
)

// deviceTime is how long a disk may take to appear.
const deviceTime = 10 * time.Second

// Main does all of it; it returns only with an error.
func Main() error {
	// What follows is a thread's own and must be that of the one that becomes
	// the agent.
	runtime.LockOSThread()
	if os.Getpid() != 1 {
		return errors.New("this is only for the first process of a virtual machine")
	}
	if err := mountAll([]mount{
		{"proc", "/proc", "proc", noExec, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, ""},
	}); err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	args, err := parse(string(line))
	if err != nil {
		return err
	}
	if args.kind == kindProbe {
		fmt.Println("anteroom: booted")
		return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if err := loadModules("/"); err != nil {
		return err
	}
	if err := makeRoot(args.kind); err != nil {
		return err
	}
	if err := prepareKernel(); err != nil {
		return err
	}
	if err := enter(); err != nil {
		return err
	}
	if err := confine(); err != nil {
		return err
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return unix.Exec("/"+Agent, []string{"/" + Agent, "vm", "--kind", args.kind, "--line", args.line}, env)
}

type arguments struct{ kind, line string }

const kindProbe = "probe"

// parse reads the kernel's command line.
func parse(line string) (arguments, error) {
	var a arguments
	for word := range strings.FieldsSeq(line) {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "anteroom.kind":
			a.kind = value
		case "anteroom.line":
			a.line = value
		}
	}
	if a.kind == kindProbe {
		return a, nil
	}
	if a.kind != "browser" && a.kind != "cli" {
		return a, fmt.Errorf("anteroom.kind=%q: it must be browser, cli or probe", a.kind)
	}
	if scheme, rest, _ := strings.Cut(a.line, ":"); !slices.Contains([]string{"virtio", "vsock", "vsock-listen"}, scheme) || rest == "" {
		return a, fmt.Errorf("anteroom.line=%q: it must be virtio:NAME, vsock:PORT or vsock-listen:PORT", a.line)
	}
	return a, nil
}

// loadModules loads the modules that dir lists. One whose device there is not
// may say so.
func loadModules(dir string) error {
	list, err := os.ReadFile(filepath.Join(dir, ModuleList))
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		if err := loadModule(filepath.Join(dir, ModuleDir, filepath.Base(lines.Text()))); err != nil && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", lines.Text(), err)
		}
	}
	return nil
}

func loadModule(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

const (
	noExec    = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	noDevices = unix.MS_NOSUID | unix.MS_NODEV
)

func mountAll(all []mount) error {
	for _, m := range all {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s (%s): %w", m.target, m.kind, err)
		}
	}
	return nil
}

// makeRoot puts the machine's root together: the same mounts as in gVisor.
func makeRoot(kind string) error {
	if err := waitForDevice(image); err != nil {
		return err
	}
	if err := mountAll([]mount{
		{image, lower, "erofs", unix.MS_RDONLY, ""},
		{"tmpfs", upper, "tmpfs", 0, "mode=0755"},
	}); err != nil {
		return err
	}
	for _, dir := range []string{upper + "/layer", upper + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	mounts := []mount{
		{"overlay", root, "overlay", 0, "lowerdir=" + lower + ",upperdir=" + upper + "/layer,workdir=" + upper + "/work"},
		{"proc", root + "/proc", "proc", noExec, ""},
		{"sysfs", root + "/sys", "sysfs", noExec | unix.MS_RDONLY, ""},
		{"devtmpfs", root + "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, ""},
		{"devpts", root + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666"},
		{"tmpfs", root + "/dev/shm", "tmpfs", noDevices, "mode=1777"},
		{"tmpfs", root + "/tmp", "tmpfs", noDevices, "mode=1777"},
		{"tmpfs", root + "/run", "tmpfs", noDevices, "mode=0755"},
	}
	persistent := mount{"tmpfs", root + guest.PersonHome, "tmpfs", noDevices, "mode=0755"}
	if kind == "cli" {
		if err := waitForDevice(home); err != nil {
			return err
		}
		persistent = mount{home, root + guest.PersonHome, "ext4", noDevices, "discard"}
	}
	if err := mountAll(append(mounts, persistent)); err != nil {
		return err
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, filepath.Join(root, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}

// waitForDevice returns once a disk is there: its driver finds it by itself.
func waitForDevice(path string) error {
	for until := time.Now().Add(deviceTime); ; time.Sleep(time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("the disk is missing: %w", err)
		}
	}
}

// prepareKernel sets what a container's sandbox has by itself.
func prepareKernel() error {
	if err := unix.Sethostname([]byte("anteroom")); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback device: %w", err)
	}
	// Ctrl-Alt-Del is a signal to the first process, not a reset at once.
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF); err != nil {
		return fmt.Errorf("Ctrl-Alt-Del: %w", err)
	}
	limit := unix.Rlimit{Cur: 65536, Max: 65536}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("limit of open files: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit of core files: %w", err)
	}
	for file, value := range map[string]string{
		"/proc/sys/kernel/modules_disabled":    "1",
		"/proc/sys/kernel/kexec_load_disabled": "1",
	} {
		if err := os.WriteFile(file, []byte(value), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, request)
}

// enter makes root the root, and frees the memory that the initrd's files take.
func enter() error {
	for _, name := range []string{"/init", "/" + ModuleDir} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return unix.Chdir("/")
}

// kept are the capabilities that the agent needs: those that it has in gVisor,
// and those for the clock, the kernel's random numbers and the machine's end.
var kept = map[uintptr]bool{
	unix.CAP_CHOWN: true, unix.CAP_DAC_OVERRIDE: true, unix.CAP_FOWNER: true, unix.CAP_KILL: true,
	unix.CAP_NET_ADMIN: true, unix.CAP_SETGID: true, unix.CAP_SETUID: true, unix.CAP_SYS_ADMIN: true,
	unix.CAP_SYS_TIME: true, unix.CAP_SYS_BOOT: true,
}

// confine takes from this thread, and from all that it becomes and starts, what
// the agent does not need.
func confine() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if kept[c] {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
}
