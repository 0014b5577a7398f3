//go:build linux

package firecracker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/process"
)

// A row's process must be the machine's in every respect.
func TestIdentity(t *testing.T) {
	d := newDriver(t, pretended(t, settings("1.16.2")))
	var refs [2]ref
	for i := range refs {
		created, err := d.Create(limited(t), machine.Spec{ID: newID(i), Kind: machine.Browser})
		if err != nil {
			t.Fatal(err)
		}
		destroyed(t, d, newID(i))
		refs[i] = parseRef(created.Ref)
	}
	own, err := process.StartTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for what, r := range map[string]ref{
		"another machine's":      refs[1],
		"this process":           {PID: os.Getpid(), StartTime: own, Program: refs[0].Program},
		"another time":           {PID: refs[0].PID, StartTime: refs[0].StartTime + 1, Program: refs[0].Program},
		"another program's name": {PID: refs[0].PID, StartTime: refs[0].StartTime, Program: "vmlinux"},
		"a path":                 {PID: refs[0].PID, StartTime: refs[0].StartTime, Program: "../" + refs[0].Program},
	} {
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Open(limited(t), newID(0), raw); !errors.Is(err, machine.ErrGone) {
			t.Errorf("%s: %v", what, err)
		}
	}
	raw, err := json.Marshal(refs[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(limited(t), newID(0), raw); err != nil {
		t.Errorf("the machine itself: %v", err)
	}
}

// Whoever has taken a Firecracker over cannot have the server speak to another
// socket of the host.
func TestSwappedSockets(t *testing.T) {
	d := newDriver(t, pretended(t, settings("1.16.2")))
	elsewhere := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(elsewhere, "line.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	spoken := make(chan string, 16)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			said := make([]byte, 64)
			n, _ := conn.Read(said)
			spoken <- string(said[:n])
			_ = conn.Close()
		}
	}()
	id := newID(0)
	created, err := d.Create(limited(t), machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	destroyed(t, d, id)
	r := parseRef(created.Ref)
	run := filepath.Join(jailRoot(d.jailDir(id), r.Program, id), "run")
	for _, tt := range []struct {
		what string
		swap func() error
	}{
		{"a link to a socket", func() error {
			return errors.Join(os.Remove(filepath.Join(run, "line.sock")), os.Symlink(filepath.Join(elsewhere, "line.sock"), filepath.Join(run, "line.sock")))
		}},
		{"another's socket", func() error {
			dir, err := os.Open(run) // the path is too long for a socket
			if err != nil {
				return err
			}
			defer func() { _ = dir.Close() }()
			other, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/other", dir.Fd()))
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = other.Close() })
			return errors.Join(os.Remove(filepath.Join(run, "line.sock")), os.Rename(filepath.Join(run, "other"), filepath.Join(run, "line.sock")))
		}},
		{"a link to a directory", func() error { return errors.Join(os.RemoveAll(run), os.Symlink(elsewhere, run)) }},
	} {
		if err := tt.swap(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if _, err := d.Open(ctx, id, created.Ref); err == nil {
			t.Errorf("%s: it was opened", tt.what)
		}
		cancel()
	}
	select {
	case said := <-spoken:
		if said != "" {
			t.Errorf("the other socket was told %q", said)
		}
	default:
	}
}
