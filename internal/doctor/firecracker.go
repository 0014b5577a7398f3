package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/server"
)

// firecracker looks for Firecracker's programs, where they are asked for or would
// be used. Nothing fetches them by itself.
func (e *exam) firecracker(ctx context.Context) Result {
	problem := warning
	switch e.cfg.Driver {
	case server.DriverFirecracker:
		problem = missing
	case server.DriverAuto:
	default:
		return ok("not used with " + e.cfg.Driver)
	}
	if err := firecracker.KVM(); err != nil {
		if e.cfg.Driver == server.DriverAuto {
			return ok("not used: " + err.Error())
		}
		return missing(err.Error(), "use a computer whose processor's virtualisation is switched on, and load kvm-intel or kvm-amd; or choose another --driver")
	}
	version, err := firecracker.CheckPrograms(ctx, e.cfg.Firecracker, e.cfg.Jailer)
	found := fmt.Sprintf("%s is %s", e.cfg.Firecracker, version)
	switch {
	case errors.Is(err, firecracker.ErrMissing):
		found = fmt.Sprintf("%s or %s is missing", e.cfg.Firecracker, e.cfg.Jailer)
	case err != nil:
		found = err.Error()
	case !version.Restores():
		found += ", whose restored machines never answer: machines start cold"
		problem = warning
	default:
		return ok(found)
	}
	const v = firecracker.Suggested
	return problem(found, fmt.Sprintf("fetch %[1]s from https://github.com/firecracker-microvm/firecracker/releases/tag/v%[2]s, check it by %[1]s.sha256.txt, and install its firecracker-v%[2]s-x86_64 as %[3]s and jailer-v%[2]s-x86_64 as %[4]s",
		firecracker.Release(v), v, e.cfg.Firecracker, e.cfg.Jailer))
}
