package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/machine/gvisor"
	"github.com/anteroom/anteroom/internal/machine/qemu"
)

// What Config.Driver may be.
const (
	DriverAuto        = "auto"
	DriverGVisor      = "gvisor"
	DriverQEMU        = "qemu"
	DriverFirecracker = "firecracker"
)

// Drivers are all that Config.Driver may be.
func Drivers() []string { return append([]string{DriverAuto}, driverNames()...) }

// driverNames are those of the drivers that there are.
func driverNames() []string { return []string{DriverGVisor, DriverQEMU, DriverFirecracker} }

// hostDriver is a driver as this package uses it.
type hostDriver interface {
	machine.Driver
	// Limits says whether memory and CPU limits are enforced, and why not.
	Limits() (enforced bool, why string)
	UseSnapshot(settings string)
	HasSnapshot() bool
	SaveSnapshot(ctx context.Context, id string, warm func(context.Context, net.Conn) error) error
	Close() error
}

// drivers are the one that makes machines and those of machines that are there.
type drivers struct {
	machine.Driver
	all []hostDriver
}

// Close lets go of what the drivers hold.
func (d drivers) Close() error {
	var errs []error
	for _, one := range d.all {
		errs = append(errs, one.Close())
	}
	return errors.Join(errs...)
}

// newDrivers makes the driver that the settings ask for, with the snapshot from
// which its browser machines are restored, and those of other machines that
// earlier servers have left. Without a snapshot machines start cold, and the log
// says so.
func newDrivers(ctx context.Context, cfg Config, golden image.Image, warm guestapi.Warm) (drivers, error) {
	chosen, why, err := chooseDriver(ctx, cfg, golden)
	if err != nil {
		return drivers{}, err
	}
	cfg.Logger.Info("driver of the machines", "driver", chosen.Name(), "why", why)
	if enforced, why := chosen.Limits(); !enforced {
		cfg.Logger.Warn("machines' memory and CPU are not limited", "why", why)
	}
	d := drivers{all: []hostDriver{chosen}}
	var others []machine.Driver
	for _, name := range driverNames() {
		if name == chosen.Name() || !hasMachines(cfg, name) {
			continue
		}
		other, err := openDriver(ctx, cfg, golden, name, true)
		if err != nil {
			cfg.Logger.Error("machines of another driver are there and cannot be taken over", "driver", name, "err", err)
			continue
		}
		d.all, others = append(d.all, other), append(others, other)
	}
	d.Driver = machine.NewMixed(chosen, others...)
	if cfg.Cold {
		return d, nil
	}
	if err := saveSnapshot(ctx, cfg, chosen, warm); err != nil {
		if ctx.Err() != nil {
			return drivers{}, errors.Join(err, d.Close())
		}
		cfg.Logger.Warn("no snapshot: machines start cold, which takes seconds longer", "err", err)
	}
	return d, nil
}

// chooseDriver makes the driver that the settings ask for and says why it is that
// one. With "auto" that is Firecracker where its programs are and a guest boots
// with them, else QEMU where a guest boots on KVM, and gVisor elsewhere.
func chooseDriver(ctx context.Context, cfg Config, golden image.Image) (d hostDriver, why string, err error) {
	if cfg.Driver != DriverAuto && cfg.Driver != "" {
		d, err = openDriver(ctx, cfg, golden, cfg.Driver, false)
		why = "the configuration says so"
		if q, ok := d.(*qemu.Driver); ok && err == nil {
			_, how := q.Acceleration()
			why += "; " + how
		}
		return d, why, err
	}
	f, err := tryFirecracker(ctx, cfg, golden)
	if err == nil {
		return f, fmt.Sprintf("a guest boots with Firecracker %s", f.Version()), nil
	}
	if ctx.Err() != nil {
		return nil, "", err
	}
	without := err.Error()
	q, err := openQEMU(ctx, cfg, golden, false)
	if err != nil {
		why = err.Error()
	} else {
		kvm, how := q.Acceleration()
		if kvm {
			return q, how + "; " + without, nil
		}
		why = how
		if err := q.Close(); err != nil {
			return nil, "", err
		}
	}
	d, err = openDriver(ctx, cfg, golden, DriverGVisor, false)
	return d, "virtual machines would be slow or impossible here (" + why + "; " + without + ")", err
}

// ExplainDriver says which driver a server with these settings would make machines
// with, and why, and leaves nothing behind. It needs the golden image.
func ExplainDriver(ctx context.Context, cfg Config) (name, why string, err error) {
	golden, err := image.Find(image.Config{Dir: cfg.ImageDir, Guest: cfg.Guest})
	if err != nil {
		return "", "", err
	}
	if cfg.StateDir, err = os.MkdirTemp("", "anteroom-driver-"); err != nil {
		return "", "", err
	}
	defer func() { _ = os.RemoveAll(cfg.StateDir) }()
	d, why, err := chooseDriver(ctx, cfg, golden)
	if err != nil {
		return "", "", err
	}
	return d.Name(), why, d.Close()
}

// openDriver makes one driver; only, for machines that are there already, which
// wants no probing.
func openDriver(ctx context.Context, cfg Config, golden image.Image, name string, only bool) (hostDriver, error) {
	switch name {
	case DriverGVisor:
		return openGVisor(cfg, golden)
	case DriverQEMU:
		return openQEMU(ctx, cfg, golden, only)
	case DriverFirecracker:
		if !only {
			if err := firecracker.KVM(); err != nil {
				return nil, err
			}
		}
		return openFirecracker(ctx, cfg, golden)
	}
	return nil, fmt.Errorf("driver: there is no %q", name)
}

func openGVisor(cfg Config, golden image.Image) (hostDriver, error) {
	if err := checkRunsc(cfg.Runsc); err != nil {
		return nil, err
	}
	return gvisor.New(gvisor.Config{
		Runsc: cfg.Runsc, Image: golden.Path, ImageID: golden.ID,
		StateDir: driverState(cfg, DriverGVisor), Logger: cfg.Logger,
		MemoryBytes: cfg.MachineMemory, CPUs: cfg.MachineCPUs,
		MinFreeMemory: cfg.MinFreeMemory, Cold: cfg.Cold, Debug: cfg.DebugMachines,
	})
}

func openQEMU(ctx context.Context, cfg Config, golden image.Image, only bool) (*qemu.Driver, error) {
	if err := checkQEMU(cfg.QEMU); err != nil {
		return nil, err
	}
	return qemu.New(ctx, qemu.Config{
		QEMU: cfg.QEMU, Image: golden,
		StateDir: driverState(cfg, DriverQEMU), Logger: cfg.Logger,
		MemoryBytes: cfg.MachineMemory, CPUs: cfg.MachineCPUs,
		MinFreeMemory: cfg.MinFreeMemory, Cold: cfg.Cold, Emulate: only,
	})
}

func openFirecracker(ctx context.Context, cfg Config, golden image.Image) (*firecracker.Driver, error) {
	return firecracker.New(ctx, firecracker.Config{
		Firecracker: cfg.Firecracker, Jailer: cfg.Jailer, UIDs: cfg.FirecrackerUsers,
		Kernel: golden.Vmlinux(), Initrd: golden.Initrd(), Image: golden.Path, ImageID: golden.ID,
		StateDir: driverState(cfg, DriverFirecracker), Logger: cfg.Logger,
		MemoryBytes: cfg.MachineMemory, CPUs: cfg.MachineCPUs,
		MinFreeMemory: cfg.MinFreeMemory, Cold: cfg.Cold,
	})
}

const (
	// probeTime is more than a guest takes to start on KVM, on a busy host.
	probeTime = 20 * time.Second
	// probeMachine is the id of the machine that is tried. There is one at a time.
	probeMachine = "probe000000000"
)

// tryFirecracker makes the driver of Firecracker's machines, if a guest really
// boots in one here.
func tryFirecracker(ctx context.Context, cfg Config, golden image.Image) (*firecracker.Driver, error) {
	d, err := openFirecracker(ctx, cfg, golden)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if err := d.Probe(ctx, probeMachine); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// driverState is the directory that a driver has for itself.
func driverState(cfg Config, name string) string { return filepath.Join(cfg.StateDir, name) }

// hasMachines says whether machines of a driver are there.
func hasMachines(cfg Config, name string) bool {
	entries, err := os.ReadDir(filepath.Join(driverState(cfg, name), "machines"))
	return err == nil && len(entries) > 0
}
