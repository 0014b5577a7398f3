//go:build linux

// Command nested is the first process of a virtual machine that has a KVM of its
// own, in software: it loads KVM, makes sure that it makes virtual machines, and
// runs what the kernel's command line names on a disk's file system. See
// test/firecracker-in-qemu.
//
// The kernel's command line says nested.run=PROGRAM, a path on /dev/vda, or
// nothing: then KVM is all that is tried. What everything prints goes to the
// console, whose last line is "nested: exit N".
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine/firecracker"
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Println("nested:", err)
	}
	fmt.Println("nested: exit", code)
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println("nested:", err)
	}
	// The first process of a machine must not end.
	for {
		time.Sleep(time.Hour)
	}
}

const root = "/root"

// run does all of it and returns what the program ended with.
func run() (code int, err error) {
	if err := mounts("", "proc", "sysfs", "devtmpfs"); err != nil {
		return 1, err
	}
	if err := loadModules(); err != nil {
		return 1, err
	}
	if err := waitFor("/dev/kvm"); err != nil {
		return 1, err
	}
	if err := firecracker.KVM(); err != nil {
		return 1, err
	}
	fmt.Println("nested: KVM makes virtual machines")
	program, err := wanted()
	if err != nil || program == "" {
		return 0, err
	}
	if err := enter(); err != nil {
		return 1, err
	}
	cmd := exec.Command(program)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}

// mounts mounts file systems below a directory.
func mounts(below string, kinds ...string) error {
	at := map[string]string{"proc": "/proc", "sysfs": "/sys", "devtmpfs": "/dev", "cgroup2": "/sys/fs/cgroup", "tmpfs": "/tmp"}
	for _, kind := range kinds {
		target := below + at[kind]
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(kind, target, kind, 0, ""); err != nil {
			return fmt.Errorf("mounting %s: %w", target, err)
		}
	}
	return nil
}

// loadModules loads what /modules/list names, in that order.
func loadModules() error {
	list, err := os.ReadFile("/modules/list")
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(bytes.NewReader(list)); lines.Scan(); {
		f, err := os.Open(filepath.Join("/modules", lines.Text()))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", lines.Text(), err)
		}
	}
	return nil
}

// waitFor returns once a device is there: its driver makes it by itself.
func waitFor(device string) error {
	var err error
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(10 * time.Millisecond) {
		if _, err = os.Stat(device); err == nil {
			return nil
		}
	}
	return err
}

// wanted is the program that the command line names.
func wanted() (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for word := range strings.FieldsSeq(string(line)) {
		if program, ok := strings.CutPrefix(word, "nested.run="); ok {
			return program, nil
		}
	}
	return "", nil
}

// enter makes the disk's file system the root.
func enter() error {
	if err := waitFor("/dev/vda"); err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", root, "ext4", 0, ""); err != nil {
		return fmt.Errorf("mounting the disk: %w", err)
	}
	if err := mounts(root, "proc", "sysfs", "devtmpfs", "cgroup2", "tmpfs"); err != nil {
		return err
	}
	// The jailer changes its root, which the initrd's cannot be changed from.
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}
