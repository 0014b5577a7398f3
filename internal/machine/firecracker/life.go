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
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/cgroup"
	"github.com/anteroom/anteroom/internal/machine/process"
)

// owns says whether a row's process is the machine's Firecracker: it runs, began
// when the row says, and its program is the one in the machine's jail.
func (d *Driver) owns(id string, r ref) bool {
	if !process.Running(r.PID, r.StartTime) || r.Program == "" {
		return false
	}
	var runs, jailed unix.Stat_t
	if err := errors.Join(
		unix.Stat(exe(r.PID), &runs),
		unix.Lstat(filepath.Join(jailRoot(d.jailDir(id), r.Program, id), r.Program), &jailed),
	); err != nil {
		return false
	}
	return runs.Dev == jailed.Dev && runs.Ino == jailed.Ino
}

// exe is the file that a process runs.
func exe(pid int) string { return filepath.Join("/proc", strconv.Itoa(pid), "exe") }

// errNotReady says that Firecracker does not listen yet.
var errNotReady = errors.New("there is no socket yet")

// dial connects to a socket of a machine's Firecracker, by its path in the jail,
// and makes sure that it is that process which listens. Whoever has taken a
// Firecracker over owns the directory: they could put there a link to any
// socket of the host, to which we would then speak as root.
func (d *Driver) dial(ctx context.Context, id string, r ref, socket string) (net.Conn, error) {
	dir, err := d.openInJail(id, r, filepath.Dir(socket))
	if errors.Is(err, unix.ENOENT) {
		return nil, errNotReady
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(dir) }()
	var st unix.Stat_t
	err = unix.Fstatat(dir, filepath.Base(socket), &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil, errNotReady
	}
	if err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return nil, fmt.Errorf("%s in the jail is no socket", socket)
	}
	// By the descriptor, since a socket's path has at most 107 bytes.
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket)))
	if err != nil {
		return nil, err
	}
	if err := d.checkPeer(id, conn, r); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// openInJail opens a directory of a jail, following no link.
func (d *Driver) openInJail(id string, r ref, dir string) (int, error) {
	root, err := unix.Open(jailRoot(d.jailDir(id), r.Program, id), unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer func() { _ = unix.Close(root) }()
	return unix.Openat2(root, dir, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// checkPeer makes sure that the process which listens is the machine's.
func (d *Driver) checkPeer(id string, conn net.Conn, r ref) error {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("it is no unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		peer, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	if int(peer.Pid) != r.PID || !d.owns(id, r) {
		return fmt.Errorf("%w: process %d listens at its socket", machine.ErrGone, peer.Pid)
	}
	return nil
}

// halt has a machine with a home write all of it, and returns when it has ended
// or will not.
func (d *Driver) halt(ctx context.Context, id string) {
	text, err := os.ReadFile(filepath.Join(d.machineDir(id), notesFile))
	var n notes
	if err != nil || json.Unmarshal(text, &n) != nil || n.Kind != machine.CLI || !d.owns(id, n.Ref) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, d.paced(haltTime))
	defer cancel()
	vmm := d.client(id, n.Ref)
	defer vmm.Close()
	err = vmm.CtrlAltDel(ctx)
	if err == nil {
		err = process.Wait(ctx, n.Ref.PID, n.Ref.StartTime)
	}
	if err != nil {
		d.cfg.Logger.Warn("a machine did not end by itself; what it has not written is lost", "machine", id, "err", err)
	}
}

// remove removes all of a machine, the marker last. A jailer that an earlier
// server has just started may not have been there to be found at first; once
// the marker is gone it cannot begin any more.
func (d *Driver) remove(ctx context.Context, id string) error {
	for {
		// First, so that nothing is made any more while it is being removed.
		if err := process.KillAll(ctx, d.works(id)); err != nil {
			return err
		}
		if err := unmountJail(d.jailDir(id)); err != nil {
			return err
		}
		if err := cgroup.Remove(ctx, id); err != nil {
			return err
		}
		if err := os.RemoveAll(d.machineDir(id)); err != nil {
			return err
		}
		again, err := process.KillAllOnce(ctx, d.works(id))
		if err != nil || !again {
			return err
		}
	}
}

// works says which processes are a machine's: its jailer, which is told of the
// jail, and whatever runs a program that is in the jail's own file system.
func (d *Driver) works(id string) func(pid int) bool {
	jail := d.jailDir(id)
	var inside, outside unix.Stat_t
	mounted := unix.Lstat(jail, &inside) == nil && unix.Lstat(filepath.Dir(jail), &outside) == nil && inside.Dev != outside.Dev
	return func(pid int) bool {
		for i, arg := range process.Arguments(pid) {
			if i > 0 && string(arg) == jail {
				return true
			}
		}
		var st unix.Stat_t
		return mounted && unix.Stat(exe(pid), &st) == nil && st.Dev == inside.Dev
	}
}
