// Package machine makes, finds again and destroys the isolated computers that
// Anteroom runs on this host. How a machine is made is a Driver's affair; what
// is common to all of them (marker first, line up, configured, acknowledged,
// undone in reverse) is the Manager's.
package machine

import (
	"context"
	"encoding/json"
	"errors"
	"net"
)

// Kind says what a machine is for.
type Kind string

// The kinds of machines.
const (
	Browser Kind = "browser" // disposable: one session, then destroyed
	CLI     Kind = "cli"     // long-lived: one per user, persistent home
)

// Spec is what a driver needs to make a machine.
type Spec struct {
	ID   string // [a-z0-9]{8,32}; unique for ever
	Kind Kind
	// Home is a directory on the host that becomes the person's persistent
	// home; CLI machines only.
	Home string
	// MemoryBytes and CPUs limit the machine; 0 is the driver's default.
	MemoryBytes int64
	CPUs        float64
	// Cold starts the machine cold also where there is a snapshot.
	Cold bool
}

// Created is what a driver tells of a machine that it has made.
type Created struct {
	// Ref is what the driver needs to find the machine again after a restart
	// of the server (pid, start time, paths), kept in the machine's row.
	Ref json.RawMessage
	// Restored says that the machine came from a snapshot; ColdReason says in
	// a sentence why not.
	Restored   bool
	ColdReason string
}

// Driver makes machines. All methods may be called concurrently, for different
// machines.
type Driver interface {
	// Name is the driver's name as stored in rows: "gvisor", "qemu",
	// "firecracker".
	Name() string
	// Create starts the machine. After an error nothing of it is left; after
	// ErrExists the machine that has the id is as it was. The machine outlives
	// ctx and this process.
	Create(ctx context.Context, spec Spec) (Created, error)
	// Open gives the byte channel to the agent in the machine, again after an
	// earlier one broke (also one of an earlier process). A second open channel
	// to the same machine replaces the first.
	Open(ctx context.Context, id string, ref json.RawMessage) (net.Conn, error)
	// Wait returns once the machine is no longer running (nil), at once if it
	// never was or is another process by now; or with ctx's error.
	Wait(ctx context.Context, id string, ref json.RawMessage) error
	// Destroy removes every trace of the machine: processes, files, mounts,
	// cgroups. Idempotent; nil when there was nothing.
	Destroy(ctx context.Context, id string) error
	// List returns the ids of all machines of this driver and this state
	// directory that have any trace on this host, running or not.
	List(ctx context.Context) ([]string, error)
}

// Paced is a driver whose machines may be slower than this computer, such as
// emulated ones. What may take some time elsewhere may take Pace times as long
// there.
type Paced interface{ Pace() int }

// PaceOf is the pace of a driver: 1 of one that is not Paced.
func PaceOf(d Driver) int {
	if p, ok := d.(Paced); ok {
		return p.Pace()
	}
	return 1
}

// Errors that callers tell apart; drivers wrap them.
var (
	ErrExists   = errors.New("machine: there is one with this id")
	ErrGone     = errors.New("machine: it is not running")
	ErrNoMemory = errors.New("machine: not enough free memory on the host")
	ErrDiskFull = errors.New("machine: the disk is full")
)
