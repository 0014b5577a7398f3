//go:build linux

package gvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/snapshot"
)

// Snapshots are per kind of machine and live below snapshots/<kind>-<key>. The
// key is of everything that a memory image depends on: the image, the runsc
// program, its flags, the machine's description, the host's CPU, and what the
// warming put into it (settings).

// UseSnapshot has browser machines restored from the snapshot with the given
// settings, where there is one. It must be called before the first Create.
func (d *Driver) UseSnapshot(settings string) { d.settings = settings }

func (d *Driver) snapshotRoot() string { return filepath.Join(d.cfg.StateDir, "snapshots") }

// snapshotKey identifies all that a snapshot depends on.
func (d *Driver) snapshotKey() string {
	h := sha256.New()
	sample := machine.Spec{ID: "00000000", Kind: machine.Browser, MemoryBytes: d.cfg.MemoryBytes, CPUs: d.cfg.CPUs}
	bundle, err := json.Marshal(d.bundle(sample))
	if err != nil {
		panic(err) // a structure of strings and numbers
	}
	for _, part := range []string{
		d.cfg.ImageID, d.runscHash, strings.Join(d.platformFlags(), " "),
		strings.ReplaceAll(string(bundle), d.cfg.StateDir, ""), // where it is kept does not matter
		snapshot.CPU(), fmt.Sprint(runtime.NumCPU()), d.settings,
	} {
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
	}
	dir = d.snapshotDir()
	if err := d.verified(dir); errors.Is(err, fs.ErrNotExist) {
		return "", "there is no snapshot for this image, runsc, CPU and settings (the server makes one at its start)"
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
// saved over its byte channel, saves it and ends it. Idempotent: a snapshot
// that is there is kept. Snapshots with other keys are removed.
func (d *Driver) SaveSnapshot(ctx context.Context, id string, warm func(context.Context, net.Conn) error) error {
	final := d.snapshotDir()
	if d.HasSnapshot() {
		return nil
	}
	fresh := final + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("gvisor: snapshot: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("gvisor: snapshot: %w", err)
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
		return fmt.Errorf("gvisor: warming the snapshot's machine: %w", err)
	}
	// Nothing may be connected to the host in a saved machine.
	_ = conn.Close()
	if err := d.stopListening(id); err != nil {
		return fmt.Errorf("gvisor: snapshot: %w", err)
	}
	if err := d.runsc(ctx, id, "checkpoint", "--compression=none", "--exclude-committed-zero-pages", "--image-path", fresh, id); err != nil {
		return fmt.Errorf("gvisor: snapshot: %w", machine.Classify(err))
	}
	if err := d.commitSnapshot(fresh, final); err != nil {
		return fmt.Errorf("gvisor: snapshot: %w", machine.Classify(err))
	}
	return d.removeOldSnapshots(final)
}

// commitSnapshot puts a whole snapshot in its place, where a damaged one may
// be. After it, all of it is on the disk.
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

func (d *Driver) stopListening(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l := d.listeners[id]; l != nil {
		_ = l.Close()
		delete(d.listeners, id)
	}
	err := os.Remove(filepath.Join(d.lineDir(id), lineSocket))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *Driver) removeOldSnapshots(keep string) error {
	entries, err := os.ReadDir(d.snapshotRoot())
	if err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	for _, e := range entries {
		if path := filepath.Join(d.snapshotRoot(), e.Name()); path != keep {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("gvisor: removing an old snapshot: %w", err)
			}
		}
	}
	return nil
}
