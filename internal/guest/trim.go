//go:build linux

package guest

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What trimMemory takes at a time, leaves free, and leaves of the files that are
// mapped, which come back from the image when they are used; bytes.
const (
	trimPiece   = 4 << 20
	trimReserve = 40 << 20
	trimFiles   = 144 << 20
)

// trimMemory makes the machine's free memory zeros, which take no room in a
// snapshot: what the kernel keeps of files is dropped, and what is free then is
// taken once, which clears it, and given back.
func trimMemory() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return fmt.Errorf("dropping caches: %w", err)
	}
	// What the kernel keeps free for itself is less meanwhile, or it would end
	// somebody for the lack of it: this process first.
	const spare = "/proc/sys/vm/min_free_kbytes"
	before, err := os.ReadFile(spare)
	if err != nil {
		return fmt.Errorf("the kernel's reserve: %w", err)
	}
	if err := os.WriteFile(spare, []byte("8192"), 0); err != nil {
		return fmt.Errorf("the kernel's reserve: %w", err)
	}
	defer func() { _ = os.WriteFile(spare, before, 0) }()
	var taken [][]byte
	defer func() {
		for _, piece := range taken {
			_ = unix.Munmap(piece)
		}
	}()
	for {
		free, files, err := memory()
		if err != nil {
			return err
		}
		// The kernel makes room by forgetting files.
		if free < trimPiece+trimReserve && files < trimFiles {
			return nil
		}
		piece, err := unix.Mmap(-1, 0, trimPiece, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
		if err != nil {
			return fmt.Errorf("clearing free memory: %w", err)
		}
		taken = append(taken, piece)
	}
}

// memory is what is used for nothing at all, and what is used for files that are
// on a disk, in bytes.
func memory() (free, files int64, err error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = f.Close() }()
	values := map[string]int64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64); err == nil {
			values[name] = kib << 10
		}
	}
	if values["MemFree"] == 0 {
		return 0, 0, errors.New("/proc/meminfo has no MemFree")
	}
	return values["MemFree"], values["Active(file)"] + values["Inactive(file)"], nil
}
