package harness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

// lookEvery is how often the host is looked at for what should go away.
const lookEvery = 50 * time.Millisecond

// Leftovers lists all that this host still holds of the machines of a state
// directory: processes, machine directories, what runsc keeps, mounts, and
// cgroups of the machines with the given ids.
func Leftovers(stateDir string, ids []string) []string {
	left := processesOf(stateDir)
	for _, pattern := range []string{"gvisor/machines/*", "gvisor/runsc/*_sandbox*", "qemu/machines/*"} {
		files, _ := filepath.Glob(filepath.Join(stateDir, pattern))
		for _, f := range files {
			left = append(left, "file "+f)
		}
	}
	left = append(left, mountsBelow(stateDir)...)
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains(ids, d.Name()) {
			left = append(left, "cgroup "+path)
		}
		return nil
	})
	return left
}

// MachineLeftovers lists what is left of one machine.
func MachineLeftovers(stateDir, id string) []string {
	return slices.DeleteFunc(Leftovers(stateDir, []string{id}), func(l string) bool { return !strings.Contains(l, id) })
}

// processesOf lists the processes, other than the server's own, that name the
// state directory in their arguments.
func processesOf(stateDir string) []string {
	var found []string
	for pid, args := range commandLines() {
		if strings.Contains(args, stateDir+"/") {
			found = append(found, fmt.Sprintf("process %d %s", pid, args))
		}
	}
	slices.Sort(found)
	return found
}

func commandLines() map[int]string {
	all := map[int]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		b, err := os.ReadFile(f)
		pid, convErr := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && convErr == nil && pid != os.Getpid() {
			all[pid] = strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return all
}

func mountsBelow(dir string) []string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			found = append(found, "mount "+fields[4])
		}
	}
	return found
}

// machineIDs are the ids of all machines that there ever were.
func (r *Rig) machineIDs(ctx context.Context) []string {
	if r.db == nil {
		return nil
	}
	var ids []string
	users, err := r.db.Users(ctx)
	if err != nil {
		return nil
	}
	for _, u := range users {
		vms, err := r.db.VMsOf(ctx, u.ID)
		if err != nil {
			return nil
		}
		for _, vm := range vms {
			ids = append(ids, vm.ID)
		}
	}
	return ids
}

// WaitNoBrowserMachines waits until no browser machine is left: no row that
// says so, and nothing on the host of any that ever was. The server may go on.
func (r *Rig) WaitNoBrowserMachines(ctx context.Context) error {
	return Until(ctx, func() error {
		users, err := r.db.Users(ctx)
		if err != nil {
			return err
		}
		for _, u := range users {
			vms, err := r.db.VMsOf(ctx, u.ID)
			if err != nil {
				return err
			}
			for _, vm := range vms {
				if vm.Kind != "browser" {
					continue
				}
				if vm.State != store.VMDestroyed && vm.State != store.VMFailed {
					return fmt.Errorf("machine %s is %s", vm.ID, vm.State)
				}
				if left := MachineLeftovers(r.StateDir(), vm.ID); len(left) > 0 {
					return fmt.Errorf("of machine %s there is left: %s", vm.ID, strings.Join(left, "; "))
				}
			}
		}
		return nil
	})
}

// Until looks again and again until check finds nothing wrong; with ctx's end
// it returns what was wrong last.
func Until(ctx context.Context, check func() error) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("harness: %w: %w", ctx.Err(), err)
		}
	}
}

// retire has the server end all that it runs.
func (r *Rig) retire(ctx context.Context) error {
	var err error
	for _, u := range r.users {
		err = errors.Join(err, u.Retire(ctx))
	}
	if err != nil || r.db == nil {
		return err
	}
	return r.WaitNoBrowserMachines(ctx)
}
