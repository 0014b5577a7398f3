//go:build linux

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

const (
	kvmDevice = "/dev/kvm"
	// probeTime is more than a guest takes to start on KVM, on a busy host.
	probeTime = 15 * time.Second
	// versionTime is how long QEMU may take to say what it is.
	versionTime = 10 * time.Second
	// probeMachine is the id of the machine that is tried. There is one at a time.
	probeMachine = "kvmprobe0000"
	// probeFile keeps what was found.
	probeFile = "kvm.json"
)

// version asks a QEMU what it is, and adds the hash of its file: two builds may
// say the same.
func version(ctx context.Context, program string) (string, error) {
	hash, err := snapshot.FileHash(program)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%s does not run: %w", program, err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first + " " + hash, nil
}

// verdict is whether a guest boots on KVM, for as long as nothing of what was
// tried changes.
type verdict struct {
	Boot    string `json:"boot"` // the host's, as the kernel counts them
	Program string `json:"program"`
	Kernel  string `json:"kernel"`
	Works   bool   `json:"works"`
	Why     string `json:"why"`
}

// kvm says whether a guest really boots on KVM here: the device may be there, and
// open, where none does. It is tried once per boot of the host.
func (d *Driver) kvm(ctx context.Context) (works bool, why string) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return false, err.Error()
	}
	now := verdict{Boot: strings.TrimSpace(string(boot)), Program: d.program, Kernel: d.cfg.Image.Boot.Vmlinux + d.cfg.Image.Boot.Initrd}
	file := filepath.Join(d.cfg.StateDir, probeFile)
	var kept verdict
	if text, err := os.ReadFile(file); err == nil && json.Unmarshal(text, &kept) == nil &&
		kept.Boot == now.Boot && kept.Program == now.Program && kept.Kernel == now.Kernel {
		return kept.Works, kept.Why
	}
	err = d.tryKVM(ctx)
	if ctx.Err() != nil {
		return false, "it could not be tried"
	}
	if now.Works, now.Why = err == nil, "a guest boots on it"; err != nil {
		now.Why = "no guest boots on KVM here: " + err.Error()
	}
	text, err := json.Marshal(now)
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		d.cfg.Logger.Warn("what was found of KVM could not be kept; it is tried again at the next start", "err", err)
	}
	return now.Works, now.Why
}

// tryKVM says why no guest boots on KVM.
func (d *Driver) tryKVM(ctx context.Context) error {
	var st unix.Stat_t
	if err := unix.Stat(kvmDevice, &st); err != nil {
		return fmt.Errorf("%s: %w", kvmDevice, err)
	}
	// QEMU is not root, and must not be in root's group.
	if st.Mode&0o060 != 0o060 || st.Gid == 0 {
		return fmt.Errorf("%s is for root only (chgrp kvm %s && chmod 0660 %s gives it to a group)", kvmDevice, kvmDevice, kvmDevice)
	}
	return d.tryBoot(ctx, withKVM, probeTime)
}

// tryBoot starts a guest that does nothing but to switch itself off, and returns
// nil if it has within a time. Nothing of it is left.
func (d *Driver) tryBoot(ctx context.Context, accelerator string, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	undo, stop := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
	defer stop()
	if err := d.remove(undo, probeMachine); err != nil { // of a server that was killed
		return err
	}
	if err := os.Mkdir(d.machineDir(probeMachine), 0o700); err != nil {
		return err
	}
	err := d.bootOnce(ctx, accelerator)
	return errors.Join(err, d.remove(undo, probeMachine))
}

// bootOnce starts the probe's guest and returns nil once it has switched itself
// off. A guest that crashes resets.
func (d *Driver) bootOnce(ctx context.Context, accelerator string) error {
	uid, err := d.takeUID(probeMachine)
	if err != nil {
		return err
	}
	var f descriptors
	args, err := d.probeArguments(&f, accelerator)
	if err != nil {
		f.close()
		return err
	}
	r, said, err := d.spawn(uid, &f, args)
	if err != nil {
		return err
	}
	err = d.setGoing(ctx, probeMachine, r, false, func(ctx context.Context, m *monitor) error {
		if err := m.call(ctx, "cont", nil, nil); err != nil {
			return err
		}
		return m.switchedOff(ctx)
	})
	if words := said(); err != nil && words != "" {
		return fmt.Errorf("%w: %s", err, words)
	}
	return err
}

// probeArguments are those of the probe's QEMU: no disk, no line.
func (d *Driver) probeArguments(f *descriptors, accelerator string) ([]string, error) {
	args := append([]string{"-name", d.machineDir(probeMachine), "-S"}, machineFlags(accelerator, machine.Spec{MemoryBytes: 256 << 20, CPUs: 1})...)
	kernel, err := os.Open(d.cfg.Image.Vmlinux())
	if err != nil {
		return nil, err
	}
	initrd, err := os.Open(d.cfg.Image.Initrd())
	if err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	args = append(args, kernelFlags(f, kernel, initrd, commandLine(accelerator, "probe"))...)
	listener, err := d.listen(probeMachine, qmpSocket)
	if err != nil {
		return nil, err
	}
	return append(append(args, socketFlags(f, "qmp", listener)...), "-mon", "chardev=qmp,mode=control"), nil
}

// switchedOff returns nil once the guest has switched its machine off, and an
// error once it has ended in another way: a guest that crashes resets, or stops.
func (m *monitor) switchedOff(ctx context.Context) error {
	name, data, err := m.awaitAny(ctx, "SHUTDOWN", "STOP")
	if err != nil {
		return err
	}
	var end struct {
		Reason string `json:"reason"`
	}
	if name == "SHUTDOWN" && json.Unmarshal(data, &end) == nil && end.Reason == "guest-shutdown" {
		return nil
	}
	return fmt.Errorf("the guest crashes (%s %.50q)", name, end.Reason)
}
