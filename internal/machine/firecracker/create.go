//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fcapi"
	"github.com/anteroom/anteroom/internal/machine/home"
	"github.com/anteroom/anteroom/internal/machine/process"
)

func (d *Driver) create(ctx context.Context, spec machine.Spec, from source) (machine.Created, error) {
	ctx, cancel := context.WithTimeout(ctx, d.paced(createTimeout))
	defer cancel()
	if spec.MemoryBytes == 0 {
		spec.MemoryBytes = d.cfg.MemoryBytes
	}
	if spec.CPUs == 0 {
		spec.CPUs = d.cfg.CPUs
	}
	r, err := d.spawn(ctx, spec, from)
	if err != nil {
		return machine.Created{}, err
	}
	vmm := d.client(spec.ID, r)
	defer vmm.Close()
	if from.snapshot != "" {
		err = d.load(ctx, vmm)
	} else {
		err = d.boot(ctx, vmm, spec)
	}
	if err != nil {
		return machine.Created{}, fmt.Errorf("%w: %s", err, lastWords(d.logFile(spec.ID)))
	}
	raw, err := json.Marshal(r)
	return machine.Created{Ref: raw, Restored: from.snapshot != "", ColdReason: from.reason}, err
}

// spawn starts a Firecracker in a jail with what the machine will need in it,
// and returns once its API answers.
func (d *Driver) spawn(ctx context.Context, spec machine.Spec, from source) (ref, error) {
	uid, err := d.takeUID(spec.ID)
	if err != nil {
		return ref{}, err
	}
	c := confinement{id: spec.ID, uid: uid, base: d.jailDir(spec.ID), memory: spec.MemoryBytes, cpus: spec.CPUs, groups: d.groups}
	binds := []bind{{from: d.cfg.Image, to: jailImage}}
	if from.snapshot != "" {
		binds = append(binds, bind{from: filepath.Join(from.snapshot, stateFile), to: jailState}, bind{from: filepath.Join(from.snapshot, memoryFile), to: jailMemory})
	} else {
		binds = append(binds, bind{from: d.cfg.Kernel, to: jailKernel}, bind{from: d.cfg.Initrd, to: jailInitrd})
	}
	if from.save != "" {
		if err := os.Chown(from.save, int(uid), int(uid)); err != nil {
			return ref{}, err
		}
		binds = append(binds, bind{from: from.save, to: jailSnapshot, writable: true})
		c.maxFile = spec.MemoryBytes
	}
	if spec.Kind == machine.CLI {
		image, err := d.openHome(spec.Home, uid)
		if err != nil {
			return ref{}, err
		}
		binds = append(binds, bind{from: image, to: jailHome, writable: true})
		c.maxFile = d.cfg.HomeBytes
	}
	program := filepath.Base(d.program)
	if err := mountJail(c.base, jailRoot(c.base, program, spec.ID), d.programSize, binds); err != nil {
		return ref{}, err
	}
	log, err := os.OpenFile(d.logFile(spec.ID), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return ref{}, err
	}
	defer func() { _ = log.Close() }()
	pid, err := startJailed(ctx, d.cfg.Jailer, d.program, c, log)
	if err != nil {
		return ref{}, err
	}
	start, err := process.StartTime(pid)
	if err != nil {
		return ref{}, fmt.Errorf("firecracker has ended: %s", lastWords(d.logFile(spec.ID)))
	}
	r := ref{PID: pid, StartTime: start, Program: program}
	if err := d.note(spec, r); err != nil {
		return ref{}, err
	}
	return r, d.waitReady(ctx, spec.ID, r)
}

// openHome makes sure that there is the image of a home, and that a Firecracker
// which runs as uid can use it: nobody else gets near it.
func (d *Driver) openHome(dir string, uid uint32) (path string, err error) {
	f, err := home.Open(dir, d.cfg.HomeBytes)
	if err != nil {
		return "", err
	}
	return f.Name(), errors.Join(f.Chown(int(uid), int(uid)), f.Close())
}

// notes are what a machine's directory keeps for Destroy.
type notes struct {
	Kind machine.Kind `json:"kind"`
	Ref  ref          `json:"ref"`
}

const notesFile = "machine.json"

func (d *Driver) note(spec machine.Spec, r ref) error {
	text, err := json.Marshal(notes{spec.Kind, r})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(d.machineDir(spec.ID), notesFile), text, 0o600)
}

// readyAgain is the time between two looks whether Firecracker listens.
const readyAgain = 2 * time.Millisecond

// waitReady waits until a new Firecracker's API answers.
func (d *Driver) waitReady(ctx context.Context, id string, r ref) error {
	for {
		conn, err := d.dial(ctx, id, r, apiSocket)
		if err == nil {
			return conn.Close()
		}
		if !process.Running(r.PID, r.StartTime) {
			return fmt.Errorf("firecracker has ended: %s", lastWords(d.logFile(id)))
		}
		timer := time.NewTimer(readyAgain)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("waiting for firecracker: %w (%w)", context.Cause(ctx), err)
		}
	}
}

// boot describes a machine to a new Firecracker and starts it.
func (d *Driver) boot(ctx context.Context, vmm *fcapi.Client, spec machine.Spec) error {
	steps := []func() error{
		func() error {
			return vmm.SetMachine(ctx, fcapi.MachineConfig{VCPUs: vcpus(spec.CPUs), MemoryMiB: spec.MemoryBytes >> 20})
		},
		func() error {
			return vmm.SetBoot(ctx, fcapi.BootSource{Kernel: jailKernel, Initrd: jailInitrd, Args: bootArgs(spec.Kind)})
		},
		func() error { return vmm.AddDrive(ctx, fcapi.Drive{ID: "image", Path: jailImage, ReadOnly: true}) },
	}
	if spec.Kind == machine.CLI {
		steps = append(steps, func() error {
			return vmm.AddDrive(ctx, fcapi.Drive{ID: "home", Path: jailHome, Cache: fcapi.Writeback})
		})
	}
	steps = append(steps,
		func() error { return vmm.SetVsock(ctx, fcapi.Vsock{GuestCID: guestCID, Path: lineSocket}) },
		func() error { return vmm.Start(ctx) },
	)
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// bootArgs are the kernel's arguments; package guest/boot says what is in them.
// Firecracker adds what tells of its devices, which are not on PCI. It ends when
// the guest resets, which it does by the keyboard controller. What the kernel has
// to warn of, and what the agent says, is on the console.
func bootArgs(kind machine.Kind) string {
	return strings.Join([]string{
		"anteroom.kind=" + string(kind), fmt.Sprint("anteroom.line=vsock-listen:", linePort),
		"console=ttyS0", "loglevel=4", "panic=-1", "reboot=k", "pci=off", "random.trust_cpu=on",
		"i8042.noaux", "i8042.nomux", "i8042.dumbkbd",
	}, " ")
}

// vcpus is the number of processors of a machine that may use this many.
func vcpus(cpus float64) int {
	const most = 32
	return min(max(int(math.Ceil(cpus)), 1), most)
}

// load restores a machine. All paths in a snapshot, that of the vsock's socket
// too, are the same in every jail, so that any Firecracker can restore it
// wherever it was saved; those that can be told the socket's path are told.
func (d *Driver) load(ctx context.Context, vmm *fcapi.Client) error {
	s := fcapi.SnapshotLoad{State: jailState, Memory: jailMemory}
	if d.version.hasVsockOverride() {
		s.Vsock = lineSocket
	}
	return vmm.LoadSnapshot(ctx, s)
}
