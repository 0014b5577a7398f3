//go:build linux

package firecracker

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const kvmDevice = "/dev/kvm"

// Requests of /dev/kvm, and the version of its interface, which is final.
const (
	kvmGetAPIVersion = 0xAE00
	kvmCreateVM      = 0xAE01
	kvmAPIVersion    = 12
)

// KVM says why this host cannot make a virtual machine, or nil. That a guest's
// kernel then boots in it is another matter: see Driver.Probe.
func KVM() error {
	f, err := os.OpenFile(kvmDevice, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("firecracker: no KVM: %w", err)
	}
	defer func() { _ = f.Close() }()
	version, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil || version != kvmAPIVersion {
		return fmt.Errorf("firecracker: %s speaks version %d of its interface, not %d: %w", kvmDevice, version, kvmAPIVersion, err)
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("firecracker: %s makes no virtual machine: %w", kvmDevice, err)
	}
	return unix.Close(vm)
}
