//go:build linux

package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

// Snapshots live below snapshots/browser-<key>, as QEMU writes a migration. The
// key is of everything that a machine's state depends on: the image, kernel and
// initrd, the QEMU program and its flags, the host's CPU, and what the warming put
// into it (settings).

// stateFile is the machine's state in a snapshot's directory.
const stateFile = "state"

// UseSnapshot has browser machines restored from the snapshot with the given
// settings, where there is one. It must be called before the first Create.
func (d *Driver) UseSnapshot(settings string) { d.settings = settings }

func (d *Driver) snapshotRoot() string { return filepath.Join(d.cfg.StateDir, "snapshots") }

// snapshotKey identifies all that a snapshot depends on.
func (d *Driver) snapshotKey() string {
	sample := machine.Spec{Kind: machine.Browser, MemoryBytes: d.cfg.MemoryBytes, CPUs: d.cfg.CPUs}
	boot := d.cfg.Image.Boot
	h := sha256.New()
	for _, part := range []string{
		d.cfg.Image.ID, boot.Vmlinux, boot.Initrd, commandLine(d.accelerator, string(machine.Browser)),
		d.program, strings.Join(machineFlags(d.accelerator, sample), " "),
		snapshot.CPU(), d.settings,
	} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:32]
}

func (d *Driver) snapshotDir() string {
	return filepath.Join(d.snapshotRoot(), "browser-"+d.snapshotKey())
}

// usable returns the state that a machine can be restored from, or why there is
// none.
func (d *Driver) usable(spec machine.Spec) (path, reason string) {
	switch {
	case spec.Kind != machine.Browser:
		return "", "machines of this kind always start cold"
	case d.cfg.Cold:
		return "", "the configuration says so"
	case spec.Cold:
		return "", "it was asked for"
	case spec.MemoryBytes != d.cfg.MemoryBytes || processors(spec.CPUs) != processors(d.cfg.CPUs):
		return "", "the snapshot is of a machine of another size"
	}
	dir := d.snapshotDir()
	if err := d.verified(dir); errors.Is(err, fs.ErrNotExist) {
		return "", "there is no snapshot for this image, QEMU, CPU and settings (the server makes one at its start)"
	} else if err != nil {
		return "", fmt.Sprintf("the snapshot cannot be used (the server makes another at its next start): %v", err)
	}
	return filepath.Join(dir, stateFile), ""
}

// verified checks a snapshot against its manifest, once in this process.
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
	path, _ := d.usable(machine.Spec{Kind: machine.Browser, MemoryBytes: d.cfg.MemoryBytes, CPUs: d.cfg.CPUs})
	return path != ""
}

// SaveSnapshot starts a browser machine, has warm bring it to the state to be
// saved over its byte channel, saves it and ends it. Idempotent: a snapshot
// that is there is kept. Snapshots with other keys are removed.
func (d *Driver) SaveSnapshot(ctx context.Context, id string, warm func(context.Context, net.Conn) error) error {
	final := d.snapshotDir()
	if d.HasSnapshot() {
		return nil
	}
	fresh := final + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("qemu: snapshot: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("qemu: snapshot: %w", err)
	}
	defer func() { _ = os.RemoveAll(fresh) }()
	created, err := d.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		return err
	}
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		if err := d.Destroy(undo, id); err != nil {
			d.cfg.Logger.Error("the snapshot's machine could not be removed", "machine", id, "err", err)
		}
	}()
	conn, err := d.Open(ctx, id, created.Ref)
	if err != nil {
		return err
	}
	if err := warm(ctx, conn); err != nil {
		return fmt.Errorf("qemu: warming the snapshot's machine: %w", err)
	}
	// Nothing may be connected to the host in a saved machine.
	_ = conn.Close()
	if err := d.save(ctx, id, filepath.Join(fresh, stateFile)); err != nil {
		return fmt.Errorf("qemu: snapshot: %w", machine.Classify(err))
	}
	if err := d.commitSnapshot(fresh, final); err != nil {
		return fmt.Errorf("qemu: snapshot: %w", machine.Classify(err))
	}
	return d.removeOldSnapshots(final)
}

// save stops a machine and writes its state to a new file.
func (d *Driver) save(ctx context.Context, id, path string) error {
	state, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = state.Close() }()
	m, err := openMonitor(ctx, d.machineDir(id))
	if err != nil {
		return err
	}
	defer m.close()
	if err := m.call(ctx, "stop", nil, nil); err != nil {
		return err
	}
	if err := m.tellMigrations(ctx); err != nil {
		return err
	}
	if err := m.call(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(math.MaxInt32)}, nil); err != nil {
		return err
	}
	if err := m.giveFile(ctx, "state", state); err != nil {
		return err
	}
	if err := m.call(ctx, "migrate", map[string]any{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	return m.migrated(ctx)
}

// commitSnapshot puts a whole snapshot in its place, where one that cannot be
// used may be. After it, all of it is on the disk.
func (d *Driver) commitSnapshot(fresh, final string) error {
	if err := snapshot.WriteManifest(fresh, d.snapshotKey()); err != nil {
		return err
	}
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
		return fmt.Errorf("qemu: %w", err)
	}
	for _, e := range entries {
		if path := filepath.Join(d.snapshotRoot(), e.Name()); path != keep {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("qemu: removing an old snapshot: %w", err)
			}
		}
	}
	return nil
}
