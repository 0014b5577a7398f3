//go:build linux

package firecracker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// UIDs is a range of user and group ids that nothing else on the host uses.
// Each machine's Firecracker runs as one of them, as both user and group, so
// that one that a guest has taken over can touch no other.
type UIDs struct {
	First uint32
	Count uint32 // how many machines there can be
}

// DefaultUIDs are in no range that systemd, containers or distributions give
// away, nor among those of other drivers.
func DefaultUIDs() UIDs { return UIDs{First: 1_900_100_000, Count: 4096} }

// String is the range as ParseUIDs reads it: FIRST-LAST.
func (u UIDs) String() string {
	if u.Count == 0 {
		return ""
	}
	return fmt.Sprintf("%d-%d", u.First, u.First+u.Count-1)
}

// ParseUIDs reads a range, FIRST-LAST.
func ParseUIDs(text string) (UIDs, error) {
	first, last, _ := strings.Cut(text, "-")
	a, err1 := strconv.ParseUint(first, 10, 32)
	b, err2 := strconv.ParseUint(last, 10, 32)
	if err1 != nil || err2 != nil || b < a || b-a >= 1<<31 {
		return UIDs{}, fmt.Errorf("%q is not a range of user ids, such as %s", text, DefaultUIDs())
	}
	u := UIDs{First: uint32(a), Count: uint32(b-a) + 1}
	return u, u.check()
}

// check refuses ranges with ids that are somebody's.
func (u UIDs) check() error {
	const lowest = 1000 // below are the system's own users
	if u.Count == 0 || u.First < lowest || u.First > 1<<31-1-u.Count {
		return fmt.Errorf("user ids %d to %d: give a range between %d and %d that nobody else uses", u.First, uint64(u.First)+uint64(u.Count), lowest, uint32(1<<31-1))
	}
	return nil
}

// errNoUID says that every id of the range is some machine's.
var errNoUID = errors.New("every user id of the range is a machine's: give a larger range")

const uidFile = "uid"

// takeUID gives a machine, whose directory is there, an id that no other has.
func (d *Driver) takeUID(id string) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	taken, err := d.takenUIDs()
	if err != nil {
		return 0, err
	}
	for i := range d.cfg.UIDs.Count {
		if uid := d.cfg.UIDs.First + i; !taken[uid] {
			return uid, os.WriteFile(filepath.Join(d.machineDir(id), uidFile), []byte(strconv.FormatUint(uint64(uid), 10)), 0o600)
		}
	}
	return 0, errNoUID
}

// takenUIDs are the ids that machines have. One whose file is not yet, or no
// longer, whole has no process.
func (d *Driver) takenUIDs() (map[uint32]bool, error) {
	files, err := filepath.Glob(filepath.Join(d.machinesDir(), "*", uidFile))
	if err != nil {
		return nil, err
	}
	taken := map[uint32]bool{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if uid, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 32); err == nil {
			taken[uint32(uid)] = true
		}
	}
	return taken, nil
}
