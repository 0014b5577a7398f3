//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	maxScreens    = 8
	screenProgram = "/usr/sbin/anteroom-screen"
	screenCodec   = "vp8"
	screenGrace   = time.Second
	restoreTime   = 3 * time.Second
	// screenMemory is what Go's part of the program keeps to. Beside it are at
	// most 32 MiB that are shared with the X server, and some pictures.
	screenMemory = "64MiB"
)

// Errors of screens that callers tell apart.
var (
	ErrTooManyScreens = errors.New("too many viewers have the screen")
	errScreensClosed  = errors.New("the machine is stopping")
)

// Screens are the viewers that have the screen as video. Methods may be called
// concurrently.
type Screens struct {
	user    User
	env     []string
	program string
	log     *os.File

	mu     sync.Mutex // guards all below
	open   int
	closed bool
	ending chan struct{}  // closed by Close
	served sync.WaitGroup // Add only while not closed
}

// NewScreens returns Screens whose programs run as u in env, which names the
// display, and write what goes wrong to log, which may be nil. The caller closes
// it.
func NewScreens(u User, env []string, log *os.File) *Screens {
	return &Screens{
		user: u, env: withEnv(env, map[string]string{"GOMEMLIMIT": screenMemory}), program: screenProgram, log: log,
		ending: make(chan struct{}),
	}
}

// Close ends every viewer's program and returns when all have ended.
func (s *Screens) Close() {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.ending)
	}
	s.mu.Unlock()
	s.served.Wait()
}

// Take reserves a place for one more viewer. Whoever gets it calls Serve, or
// leave.
func (s *Screens) Take() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errScreensClosed
	}
	if s.open >= maxScreens {
		return ErrTooManyScreens
	}
	s.open++
	s.served.Add(1)
	return nil
}

func (s *Screens) leave() {
	s.mu.Lock()
	s.open--
	s.mu.Unlock()
	s.served.Done()
}

// Serve gives the place that was taken up in the end. Until then it runs the
// program between the stream's two directions (see guestapi.ReadScreenFrame),
// and closes the stream. It returns when the program has ended, which it does at
// the latest soon after the stream.
func (s *Screens) Serve(stream io.ReadWriteCloser) error {
	defer s.leave()
	defer func() { _ = stream.Close() }()
	var ends [4]*os.File
	defer func() { closeAll(ends[:]) }()
	for i := 0; i < len(ends); i += 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("pipe: %w", err)
		}
		ends[i], ends[i+1] = r, w //nolint:gosec // i is even
	}
	proc, err := startProcess(processSpec{
		user: s.user, file: s.program, argv: []string{"anteroom-screen", "--codec", screenCodec, "--vnc", vncSocket}, env: s.env,
		stdin: ends[0], stdout: ends[3], stderr: s.log,
	})
	if err != nil {
		return err
	}
	closeAll([]*os.File{ends[0], ends[3]})
	var pumps sync.WaitGroup
	hungUp := make(chan struct{})
	pumps.Go(func() {
		defer close(hungUp)
		_, _ = io.Copy(ends[1], stream)
		_ = ends[1].Close() // it lets all keys go, and ends
	})
	pumps.Go(func() {
		_, _ = io.Copy(stream, ends[2])
		_ = ends[2].Close() // if the stream was the one that failed, the program must not wait for it
		_ = stream.Close()
	})
	select {
	case <-proc.done:
	case <-s.ending:
	case <-hungUp:
		select {
		case <-proc.done:
		case <-time.After(screenGrace):
		}
	}
	proc.stop(screenGrace)
	_ = stream.Close()
	pumps.Wait()
	if code := proc.exitCode(); code != 0 {
		s.restore()
		return fmt.Errorf("anteroom-screen: exit code %d", code)
	}
	return nil
}

// restore lets go of what a program that was killed has left held down, and has
// the X server repeat keys again.
func (s *Screens) restore() {
	proc, err := startProcess(processSpec{
		user: s.user, file: s.program, argv: []string{"anteroom-screen", "--restore"}, env: s.env, stderr: s.log,
	})
	if err != nil {
		return
	}
	select {
	case <-proc.done:
	case <-s.ending:
	case <-time.After(restoreTime):
	}
	proc.stop(0)
}
