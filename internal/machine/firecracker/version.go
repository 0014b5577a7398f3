package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Version is that of a Firecracker or a jailer. One that is not a release
// (1.17.0-dev) counts as the release before it is out.
type Version struct {
	Major, Minor, Patch int
	Pre                 string // what follows a "-"
}

func (v Version) String() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Pre != "" {
		s += "-" + v.Pre
	}
	return s
}

// AtLeast says whether v is the release of this number or a later one.
func (v Version) AtLeast(major, minor, patch int) bool {
	a, b := [3]int{v.Major, v.Minor, v.Patch}, [3]int{major, minor, patch}
	for i := range a {
		if a[i] != b[i] {
			return a[i] > b[i]
		}
	}
	return v.Pre == ""
}

// ErrVersion says that this driver does not know how to use a Firecracker.
var ErrVersion = errors.New("firecracker: not a version that can be used")

// Usable refuses what is older than 1.10, the first release that wakes a
// restored guest's vsock (firecracker pull request 4796), and what is newer than
// every 1.x, whose API may be another one.
func (v Version) Usable() error {
	if !v.AtLeast(1, 10, 0) || v.Major > 1 {
		return fmt.Errorf("%w: it is %s, and must be 1.10.0 or newer, and below 2.0.0", ErrVersion, v)
	}
	return nil
}

// hasVsockOverride says whether a snapshot's vsock socket can be given another
// path when it is loaded. Older releases refuse the whole request.
func (v Version) hasVsockOverride() bool { return v.AtLeast(1, 16, 0) }

// Restores says whether restored machines answer: those of 1.16.0 do not
// (firecracker pull request 5958).
func (v Version) Restores() bool { return v.AtLeast(1, 16, 1) || !v.AtLeast(1, 16, 0) }

// versionLine is the first line that `firecracker --version` and
// `jailer --version` print.
var versionLine = regexp.MustCompile(`^(?:Firecracker|Jailer) v(\d{1,6})\.(\d{1,6})\.(\d{1,6})(?:-([0-9A-Za-z.+_-]{1,64}))?$`)

// ParseVersion reads what --version prints.
func ParseVersion(output string) (Version, error) {
	first, _, _ := strings.Cut(output, "\n")
	m := versionLine.FindStringSubmatch(strings.TrimSpace(first))
	if m == nil {
		return Version{}, fmt.Errorf("%w: --version says %.*q", ErrVersion, maxQuoted, first)
	}
	v := Version{Pre: m[4]}
	for i, n := range []*int{&v.Major, &v.Minor, &v.Patch} {
		var err error
		if *n, err = strconv.Atoi(m[i+1]); err != nil {
			return Version{}, fmt.Errorf("%w: %w", ErrVersion, err)
		}
	}
	return v, nil
}

// versionTime is how long a program may take to say its version.
const versionTime = 10 * time.Second

// ProgramVersion asks a firecracker or jailer program for its version.
func ProgramVersion(ctx context.Context, program string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return Version{}, fmt.Errorf("firecracker: %s --version: %w", program, err)
	}
	v, err := ParseVersion(string(out))
	if err != nil {
		return Version{}, fmt.Errorf("%s: %w", program, err)
	}
	return v, nil
}
