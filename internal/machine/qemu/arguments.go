//go:build linux

package qemu

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/anteroom/anteroom/internal/machine"
)

// portName is the name of the virtio-serial port that is the line.
const portName = "anteroom.line"

// Accelerators.
const (
	withKVM  = "kvm"
	emulated = "tcg"
)

// sandbox are the system calls that QEMU must do without, once it has started:
// those that nothing needs any more, that change who it is, that start other
// programs, and that change its priority.
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

// descriptors are the files that QEMU inherits: all that it has of the host.
// Paths it has none, but for those of its own installation.
type descriptors struct {
	files []*os.File
}

// add notes a file and returns the number that it will have in QEMU.
func (f *descriptors) add(file *os.File) int {
	f.files = append(f.files, file)
	return 2 + len(f.files)
}

func (f *descriptors) close() {
	for _, file := range f.files {
		_ = file.Close()
	}
}

// machineFlags are the flags that say what kind of machine it is, without any
// file. They are part of a snapshot's key.
func machineFlags(accelerator string, spec machine.Spec) []string {
	cpu, accel := "max", "tcg,thread=multi,tb-size="+strconv.Itoa(translated>>20)
	if accelerator == withKVM {
		cpu, accel = "host,migratable=on", "kvm"
	}
	return []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-sandbox", sandbox,
		"-machine", "q35,usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off,mem-merge=off",
		"-accel", accel,
		"-cpu", cpu,
		"-smp", strconv.Itoa(processors(spec.CPUs)),
		"-m", strconv.FormatInt(spec.MemoryBytes>>20, 10) + "M",
		"-device", "virtio-serial-pci,id=serial,max_ports=4",
	}
}

// translated is how much memory emulation may take for translated code, in bytes.
const translated = 256 << 20

// processors is how many a machine gets to see for a share of processor time.
func processors(share float64) int { return max(1, int(math.Ceil(share))) }

// commandLine is the guest kernel's; package guest/boot says what is in it.
func commandLine(accelerator, kind string) string {
	words := []string{
		"anteroom.kind=" + kind, "anteroom.line=virtio:" + portName,
		"quiet", "panic=-1", "8250.nr_uarts=0", "random.trust_cpu=on",
	}
	if accelerator == emulated {
		// The processors' counters are one counter of QEMU's. The kernel does not
		// know and would read the time from a device, which is many times slower:
		// Chromium then does hardly anything else.
		words = append(words, "tsc=reliable")
	}
	return strings.Join(words, " ")
}

// kernelFlags have QEMU start the kernel in one file with the initrd in another.
func kernelFlags(f *descriptors, kernel, initrd *os.File, line string) []string {
	own := func(file *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.add(file)) }
	return []string{"-kernel", own(kernel), "-initrd", own(initrd), "-append", line}
}

// diskFlags add a disk with the content of a file. QEMU cannot open it again with
// other rights than it was opened with.
func diskFlags(f *descriptors, id string, file *os.File, writable bool) []string {
	n := f.add(file)
	block := fmt.Sprintf("driver=file,node-name=%s-file,filename=/dev/fdset/%d,aio=threads", id, n)
	raw := fmt.Sprintf("driver=raw,node-name=%s,file=%s-file", id, id)
	if writable {
		block += ",discard=unmap"
		raw += ",discard=unmap"
	} else {
		block += ",read-only=on"
		raw += ",read-only=on"
	}
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=%d", n, n), "-blockdev", block, "-blockdev", raw,
		"-device", fmt.Sprintf("virtio-blk-pci,drive=%s,serial=%s", id, id),
	}
}

// socketFlags add a character device behind a listening socket.
func socketFlags(f *descriptors, id string, listener *os.File) []string {
	return []string{"-chardev", fmt.Sprintf("socket,id=%s,fd=%d,server=on,wait=off", id, f.add(listener))}
}
