//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// openTerminal makes a pseudo-terminal of cols by rows whose far side belongs
// to u. The caller closes both sides.
//
// Our side stays in non-blocking mode, so that closing it ends a read that
// waits and hangs up the far side. (The pty packages there are call File.Fd,
// which takes that away.)
func openTerminal(u User, cols, rows int) (ours, theirs *os.File, err error) {
	ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		if err != nil {
			_ = ours.Close()
		}
	}()
	var number int
	err = control(ours, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err == nil {
		err = setTerminalSize(ours, cols, rows)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	theirs, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	if err = theirs.Chown(u.UID, u.GID); err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("terminal: %w", err)
	}
	return ours, theirs, nil
}

// setTerminalSize holds a size to its bounds and sets it. The far side gets
// SIGWINCH.
func setTerminalSize(ours *os.File, cols, rows int) error {
	bounded := func(n int) uint16 {
		return uint16(min(max(n, guestapi.MinTermSize), guestapi.MaxTermSize))
	}
	return control(ours, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: bounded(rows), Col: bounded(cols)})
	})
}

// control calls do with f's descriptor without changing f's mode.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = conn.Control(func(fd uintptr) { result = do(int(fd)) })
	return errors.Join(err, result)
}
