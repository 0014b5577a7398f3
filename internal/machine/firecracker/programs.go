package firecracker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrMissing says that the programs are not there. They are nobody's to install
// but the operator's.
var ErrMissing = errors.New("firecracker: a program is missing")

// Release is the archive that has both programs, for a release such as 1.16.2.
func Release(version string) string { return "firecracker-v" + version + "-x86_64.tgz" }

// Suggested is a release that is known to have what a driver wants of one.
const Suggested = "1.16.2"

// CheckPrograms looks for the two programs and returns their version. They must
// be of one release that can be used; see Version.Usable.
func CheckPrograms(ctx context.Context, firecracker, jailer string) (Version, error) {
	var versions [2]Version
	for i, program := range []string{firecracker, jailer} {
		if err := unix.Access(program, unix.X_OK); err != nil {
			return Version{}, fmt.Errorf("%w: %s: %w: it is in %s of Firecracker's releases (anteroom doctor says more)", ErrMissing, program, err, Release(Suggested))
		}
		var err error
		if versions[i], err = ProgramVersion(ctx, program); err != nil {
			return Version{}, err
		}
	}
	if err := versions[0].Usable(); err != nil {
		return Version{}, fmt.Errorf("%s: %w", firecracker, err)
	}
	if versions[0] != versions[1] {
		return Version{}, fmt.Errorf("%w: %s is %s and %s is %s: take both from one release", ErrVersion, firecracker, versions[0], jailer, versions[1])
	}
	// The jailer runs nothing else.
	resolved, err := filepath.EvalSymlinks(firecracker)
	if err != nil {
		return Version{}, fmt.Errorf("firecracker: %w", err)
	}
	if name := filepath.Base(resolved); !strings.Contains(name, "firecracker") {
		return Version{}, fmt.Errorf("firecracker: the jailer runs only programs with firecracker in their name: %s", resolved)
	}
	return versions[0], nil
}
