//go:build linux

package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/home"
	"github.com/anteroom/anteroom/internal/machine/process"
	"github.com/anteroom/anteroom/internal/machine/socket"
)

// boot starts a machine with its kernel.
func (d *Driver) boot(ctx context.Context, spec machine.Spec, uid int) (ref, error) {
	return d.start(ctx, spec, uid, nil, nil, func(ctx context.Context, m *monitor, _ int) error {
		return m.call(ctx, "cont", nil, nil)
	})
}

// restore starts a machine from the state in a file.
func (d *Driver) restore(ctx context.Context, spec machine.Spec, uid int, path string) (ref, error) {
	state, err := os.Open(path)
	if err != nil {
		return ref{}, err
	}
	return d.start(ctx, spec, uid, state, []string{"-incoming", "defer"}, func(ctx context.Context, m *monitor, fd int) error {
		if err := m.tellMigrations(ctx); err != nil {
			return err
		}
		if err := m.call(ctx, "migrate-incoming", map[string]any{"uri": fmt.Sprint("fd:", fd)}, nil); err != nil {
			return err
		}
		if err := m.migrated(ctx); err != nil {
			return err
		}
		return m.call(ctx, "cont", nil, nil)
	})
}

// start starts QEMU, stopped, puts it into its control group and has begin set
// the machine going. state, which start closes, may be nil; begin gets its number
// in QEMU.
func (d *Driver) start(ctx context.Context, spec machine.Spec, uid int, state *os.File, more []string, begin func(context.Context, *monitor, int) error) (ref, error) {
	var inherited descriptors
	stateFD := -1
	if state != nil {
		stateFD = inherited.add(state)
	}
	args, err := d.arguments(&inherited, spec)
	if err != nil {
		inherited.close()
		return ref{}, err
	}
	r, said, err := d.spawn(uid, &inherited, slices.Concat(args, more))
	if err != nil {
		return ref{}, err
	}
	err = d.setGoing(ctx, spec.ID, r, d.cgroups, func(ctx context.Context, m *monitor) error { return begin(ctx, m, stateFD) })
	if err != nil {
		if words := said(); words != "" && ctx.Err() == nil {
			err = fmt.Errorf("%w: %s", err, words)
		}
		return ref{}, err
	}
	return r, nil
}

// setGoing runs begin on a new QEMU's monitor, with a context that ends with QEMU.
func (d *Driver) setGoing(ctx context.Context, id string, r ref, limited bool, begin func(context.Context, *monitor) error) error {
	if limited {
		if err := cgroup.Enter(id, r.PID); err != nil {
			return err
		}
	}
	// What waits for a QEMU that has ended waits no longer.
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if process.Wait(ctx, r.PID, r.StartTime) == nil {
			cancel(errors.New("QEMU has ended"))
		}
	}()
	defer func() { cancel(nil); <-ended }()
	m, err := openMonitor(ctx, d.machineDir(id))
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	defer m.close()
	if err := begin(ctx, m); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

// arguments opens all that a machine needs of the host, and says it to QEMU.
func (d *Driver) arguments(f *descriptors, spec machine.Spec) ([]string, error) {
	args := append([]string{"-name", d.machineDir(spec.ID), "-S"}, machineFlags(d.accelerator, spec)...)
	var files [3]*os.File
	for i, path := range []string{d.cfg.Image.Vmlinux(), d.cfg.Image.Initrd(), d.cfg.Image.Path} {
		file, err := os.Open(path)
		if err != nil {
			for _, opened := range files[:i] {
				_ = opened.Close()
			}
			return nil, err
		}
		files[i] = file
	}
	args = append(args, kernelFlags(f, files[0], files[1], commandLine(d.accelerator, string(spec.Kind)))...)
	args = append(args, diskFlags(f, "image", files[2], false)...)
	if spec.Kind == machine.CLI {
		disk, err := home.Open(spec.Home, d.cfg.HomeBytes)
		if err != nil {
			return nil, err
		}
		args = append(args, diskFlags(f, "home", disk, true)...)
	}
	for _, s := range [][2]string{{"line", lineSocket}, {"qmp", qmpSocket}} {
		listener, err := d.listen(spec.ID, s[1])
		if err != nil {
			return nil, err
		}
		args = append(args, socketFlags(f, s[0], listener)...)
	}
	args = append(args, "-device", "virtserialport,chardev=line,name="+portName, "-mon", "chardev=qmp,mode=control")
	if d.extra == nil {
		return args, nil
	}
	more, err := d.extra(f, spec.ID)
	return append(args, more...), err
}

// listen makes a socket that QEMU listens at.
func (d *Driver) listen(id, name string) (*os.File, error) {
	l, err := socket.Listen(d.machineDir(id), name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	return l.File()
}

// maxSaid is how much of what a QEMU says is kept.
const maxSaid = 4 << 10

// spawn starts QEMU as the user uid. It outlives this process. f is closed here
// in any case. said ends QEMU and returns what it has said on its standard error.
func (d *Driver) spawn(uid int, f *descriptors, args []string) (r ref, said func() string, err error) {
	cmd := exec.Command(d.cfg.QEMU, args...)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=/nonexistent", "LC_ALL=C"}
	cmd.Dir = "/"
	cmd.ExtraFiles = f.files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,                                                                          // a signal to the server's group must not reach machines
		Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), Groups: groups(args)}, //nolint:gosec // a user id
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
	}
	// Read for as long as there is this process, so that it does not fill
	// anything; without a reader QEMU does without.
	out, in, err := os.Pipe()
	if err != nil {
		return ref{}, nil, err
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = cmd.Start()
	_ = in.Close()
	f.close() // so that a QEMU that ends takes its sockets along
	if err != nil {
		_ = out.Close()
		return ref{}, nil, fmt.Errorf("starting QEMU: %w", err)
	}
	words := make(chan string, 1)
	go func() {
		first, _ := io.ReadAll(io.LimitReader(out, maxSaid))
		words <- strings.ReplaceAll(strings.TrimSpace(string(first)), "\n", "; ")
		_, _ = io.Copy(io.Discard, out)
		_ = out.Close()
		_ = cmd.Wait() // so that it does not stay a zombie; others tell when it has ended
	}()
	said = func() string {
		_ = cmd.Process.Kill()
		return <-words
	}
	pid := cmd.Process.Pid
	start, err := process.StartTime(pid)
	if err != nil {
		return ref{}, nil, fmt.Errorf("QEMU ended at once: %w: %s", err, said())
	}
	return ref{PID: pid, StartTime: start, Program: d.cfg.QEMU}, said, nil
}

// groups are the further groups of a QEMU with these arguments: the one that may
// use /dev/kvm, if it does.
func groups(args []string) []uint32 {
	var st unix.Stat_t
	if !slices.Contains(args, withKVM) || unix.Stat(kvmDevice, &st) != nil {
		return nil
	}
	return []uint32{st.Gid}
}
