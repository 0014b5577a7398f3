//go:build linux

package firecracker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

// Snapshots are of browser machines and live below snapshots/browser-<key>. The
// key is of everything that a memory image depends on: the image, the kernel
// and initial file system, Firecracker's program, the machine's description, the
// host's CPU and kernel, and what the warming put into it (settings).
const (
	stateFile  = "state"
	memoryFile = "memory"
)

// proveTime is how long a machine from a new snapshot may take to answer.
const proveTime = 30 * time.Second

// UseSnapshot has browser machines restored from the snapshot with the given
// settings, where there is one. It must be called before the first Create.
func (d *Driver) UseSnapshot(settings string) { d.settings = settings }

func (d *Driver) snapshotRoot() string { return filepath.Join(d.cfg.StateDir, "snapshots") }

// snapshotKey identifies all that a snapshot depends on.
func (d *Driver) snapshotKey() string {
	var u unix.Utsname
	_ = unix.Uname(&u) // it cannot fail with room for the answer
	parts := append([]string{
		d.cfg.ImageID, bootArgs(machine.Browser),
		fmt.Sprint(guestCID, linePort, vcpus(d.cfg.CPUs), d.cfg.MemoryBytes>>20), strings.Join([]string{jailImage, lineSocket}, " "),
		snapshot.CPU(), fmt.Sprint(runtime.NumCPU()), unix.ByteSliceToString(u.Release[:]), d.settings,
	}, d.hashes...)
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

func (d *Driver) snapshotDir() string {
	return filepath.Join(d.snapshotRoot(), "browser-"+d.snapshotKey())
}

// usable returns the snapshot for a machine, or why there is none.
func (d *Driver) usable(spec machine.Spec) (dir, reason string) {
	switch {
	case spec.Kind != machine.Browser:
		return "", "machines of this kind always start cold"
	case d.cfg.Cold:
		return "", "the configuration says so"
	case spec.Cold:
		return "", "it was asked for"
	case spec.MemoryBytes != 0 && spec.MemoryBytes != d.cfg.MemoryBytes:
		return "", "it has another size than the one in the snapshot"
	}
	dir = d.snapshotDir()
	if err := d.verified(dir); errors.Is(err, fs.ErrNotExist) {
		return "", "there is no snapshot for this image, Firecracker, CPU, host kernel and settings (the server makes one at its start)"
	} else if err != nil {
		return "", fmt.Sprintf("the snapshot is damaged (the server makes another at its next start): %v", err)
	}
	return dir, ""
}

// verified checks a snapshot against its manifest, once in this process: a
// memory image that is not what was saved would come to life all the same.
func (d *Driver) verified(dir string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err, ok := d.verdicts[dir]; ok {
		return err
	}
	err := snapshot.VerifyManifest(dir, d.snapshotKey())
	if !errors.Is(err, fs.ErrNotExist) {
		d.verdicts[dir] = err
	}
	return err
}

// HasSnapshot says whether browser machines can be restored.
func (d *Driver) HasSnapshot() bool {
	dir, _ := d.usable(machine.Spec{Kind: machine.Browser})
	return dir != ""
}

// SaveSnapshot starts a browser machine, has warm bring it to the state to be
// saved over its byte channel, saves it and ends it. The snapshot is kept once
// a machine that was restored from it has answered. Idempotent: a snapshot
// that is there is kept. Snapshots with other keys are removed; machines that
// were restored from them live on.
func (d *Driver) SaveSnapshot(ctx context.Context, id string, warm func(context.Context, net.Conn) error) error {
	final := d.snapshotDir()
	if d.HasSnapshot() {
		return nil
	}
	if !d.version.Restores() {
		return fmt.Errorf("firecracker: snapshot: the machines that %s restores never answer: use another release, such as %s", d.version, Suggested)
	}
	fresh := final + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("firecracker: snapshot: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("firecracker: snapshot: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	for _, step := range []func() error{
		func() error { return d.save(ctx, id, fresh, warm) },
		func() error { return finish(fresh, d.snapshotKey()) },
		func() error { return d.prove(ctx, id, fresh) },
		func() error { return d.commitSnapshot(fresh, final) },
		func() error { return d.removeOldSnapshots(final) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("firecracker: snapshot: %w", machine.Classify(err))
		}
	}
	return nil
}

// save makes a machine, warms it and saves it into a directory.
func (d *Driver) save(ctx context.Context, id, dir string, warm func(context.Context, net.Conn) error) (err error) {
	created, err := d.createFrom(ctx, machine.Spec{ID: id, Kind: machine.Browser}, source{reason: "it is to be saved", save: dir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.discard(ctx, id)) }()
	conn, err := d.Open(ctx, id, created.Ref)
	if err != nil {
		return err
	}
	if err := warm(ctx, conn); err != nil {
		return fmt.Errorf("warming: %w", err)
	}
	// Nothing may be connected to the host in a saved machine.
	d.replaceConn(id, nil)
	vmm := d.client(id, parseRef(created.Ref))
	defer vmm.Close()
	if err := vmm.Pause(ctx); err != nil {
		return err
	}
	return vmm.SaveSnapshot(ctx, jailState, jailMemory)
}

// discard destroys a machine, also once ctx has ended.
func (d *Driver) discard(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.paced(destroyTimeout))
	defer cancel()
	return d.Destroy(ctx, id)
}

// finish makes files that Firecracker has written ones that no Firecracker can
// write, and takes the room from them that only zeros fill.
func finish(dir, key string) error {
	for _, name := range []string{stateFile, memoryFile} {
		path := filepath.Join(dir, name)
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is no file", path)
		}
		// Read by whatever user a machine's Firecracker is; the directory is ours.
		if err := errors.Join(os.Chown(path, 0, 0), os.Chmod(path, 0o444)); err != nil {
			return err
		}
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		return err
	}
	if err := digHoles(filepath.Join(dir, memoryFile)); err != nil {
		return err
	}
	return snapshot.WriteManifest(dir, key)
}

// holeSize is how much must be zeros for a hole to be dug: a page of the guest.
const holeSize = 4096

// digHoles frees the room of a file's pages that are zeros. It reads the same
// afterwards.
func digHoles(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	b, zeros := make([]byte, 1<<20), make([]byte, holeSize)
	for at := int64(0); ; {
		n, err := io.ReadFull(f, b)
		for from := 0; from < n; {
			to := from
			for to+holeSize <= n && string(b[to:to+holeSize]) == string(zeros) {
				to += holeSize
			}
			if to == from {
				from += holeSize
				continue
			}
			err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at+int64(from), int64(to-from))
			if errors.Is(err, unix.EOPNOTSUPP) {
				return nil // the file system has no holes: it takes the room
			}
			if err != nil {
				return fmt.Errorf("%s: freeing room: %w", path, err)
			}
			from = to
		}
		at += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// prove restores a machine from a snapshot and waits for its agent.
func (d *Driver) prove(ctx context.Context, id, dir string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, d.proveTime)
	defer cancel()
	created, err := d.createFrom(ctx, machine.Spec{ID: id, Kind: machine.Browser}, source{snapshot: dir})
	if err != nil {
		return fmt.Errorf("it cannot be restored: %w", err)
	}
	defer func() { err = errors.Join(err, d.discard(ctx, id)) }()
	if _, err := d.Open(ctx, id, created.Ref); err != nil {
		return fmt.Errorf("a machine restored from it does not answer: %w", err)
	}
	return nil
}

// commitSnapshot puts a whole snapshot in its place, where a damaged one may
// be. After it, all of it is on the disk.
func (d *Driver) commitSnapshot(fresh, final string) error {
	if err := os.RemoveAll(final); err != nil {
		return err
	}
	if err := os.Rename(fresh, final); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verdicts[final] = nil
	return nil
}

func (d *Driver) removeOldSnapshots(keep string) error {
	entries, err := os.ReadDir(d.snapshotRoot())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path := filepath.Join(d.snapshotRoot(), e.Name()); path != keep {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("removing an old snapshot: %w", err)
			}
		}
	}
	return nil
}

// Probe says why no machine's kernel boots here, or nil: it boots one, waits for
// its agent, and destroys it. That /dev/kvm is there is not enough.
func (d *Driver) Probe(ctx context.Context, id string) (err error) {
	if err := KVM(); err != nil {
		return err
	}
	if err := d.Destroy(ctx, id); err != nil { // of a run that was killed
		return err
	}
	created, err := d.createFrom(ctx, machine.Spec{ID: id, Kind: machine.Browser, Cold: true}, source{reason: "it is a probe"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.discard(ctx, id)) }()
	if _, err := d.Open(ctx, id, created.Ref); err != nil {
		return fmt.Errorf("firecracker: a guest's kernel does not boot here: %w: %s", err, lastWords(d.logFile(id)))
	}
	return nil
}
