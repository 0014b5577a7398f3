//go:build linux

package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

const (
	maxTerminals    = 8
	terminalChunk   = 32 << 10
	terminalGrace   = time.Second
	defaultTermCols = 80
	defaultTermRows = 24
)

// Errors of terminals that callers tell apart.
var (
	ErrTooManyTerminals = errors.New("too many terminals are open")
	errTerminalsClosed  = errors.New("the machine is stopping")
)

// Terminals are the login shells that a person has open. Methods may be called
// concurrently.
type Terminals struct {
	user User
	env  []string

	mu     sync.Mutex // guards all below
	open   map[io.Closer]struct{}
	closed bool
	served sync.WaitGroup // Add only while not closed
}

// NewTerminals returns Terminals whose shells run as u in env. The caller
// closes it.
func NewTerminals(u User, env []string) *Terminals {
	return &Terminals{
		user: u,
		env:  withEnv(env, map[string]string{"TERM": "xterm-256color", "COLORTERM": "truecolor"}),
		open: make(map[io.Closer]struct{}),
	}
}

// Close ends every terminal and returns when all shells and what they started
// have ended.
func (t *Terminals) Close() {
	t.mu.Lock()
	t.closed = true
	for c := range t.open {
		_ = c.Close()
	}
	t.mu.Unlock()
	t.served.Wait()
}

func (t *Terminals) register(c io.Closer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return errTerminalsClosed
	}
	if len(t.open) >= maxTerminals {
		return ErrTooManyTerminals
	}
	t.open[c] = struct{}{}
	t.served.Add(1)
	return nil
}

func (t *Terminals) unregister(c io.Closer) {
	t.mu.Lock()
	delete(t.open, c)
	t.mu.Unlock()
	t.served.Done()
}

// Serve runs a login shell of cols by rows on the stream, which carries frames
// (see guestapi.ReadTermFrame), and closes the stream. It returns when the
// shell and everything that it started have ended, which they do at the latest
// when the stream ends or breaks a rule. The last frame to the host is the
// shell's exit code.
func (t *Terminals) Serve(stream io.ReadWriteCloser, cols, rows int) error {
	defer func() { _ = stream.Close() }()
	if err := t.register(stream); err != nil {
		return err
	}
	defer t.unregister(stream)
	master, proc, err := t.shell(cols, rows)
	if err != nil {
		return err
	}
	var pumps sync.WaitGroup
	drained := make(chan struct{})
	pumps.Go(func() { defer close(drained); toStream(stream, master) })
	hungUp := make(chan struct{})
	pumps.Go(func() { defer close(hungUp); fromStream(stream, master) })
	select {
	case <-proc.done:
	case <-hungUp:
		_ = master.Close() // SIGHUP for the shell's session, as a modem would
	}
	proc.stop(terminalGrace)
	select {
	case <-drained: // the terminal ends when the last that holds it has
		_ = guestapi.WriteTermFrame(stream, guestapi.TermExit, guestapi.EncodeTermExit(int32(proc.exitCode()))) //nolint:gosec // exit codes are small
	case <-time.After(terminalGrace): // the host does not read
	}
	_ = stream.Close()
	_ = master.Close()
	pumps.Wait()
	return nil
}

// shell starts a login shell on a new terminal and returns our side of it.
func (t *Terminals) shell(cols, rows int) (*os.File, *process, error) {
	if cols <= 0 || rows <= 0 {
		cols, rows = defaultTermCols, defaultTermRows
	}
	ours, theirs, err := openTerminal(t.user, cols, rows)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = theirs.Close() }()
	proc, err := startProcess(processSpec{
		user: t.user, argv: []string{"bash", "-l"}, env: t.env,
		stdin: theirs, stdout: theirs, stderr: theirs, tty: true,
	})
	if err != nil {
		_ = ours.Close()
		return nil, nil, err
	}
	return ours, proc, nil
}

// toStream sends what the terminal shows until it ends or the stream fails.
func toStream(stream io.Writer, master *os.File) {
	buf := make([]byte, terminalChunk)
	for {
		n, err := master.Read(buf)
		if n > 0 && guestapi.WriteTermFrame(stream, guestapi.TermData, buf[:n]) != nil {
			return
		}
		if err != nil {
			return
		}
	}
}

// fromStream hands frames to the terminal until the stream ends, breaks a rule
// or the terminal is closed.
func fromStream(stream io.Reader, master *os.File) {
	buf := make([]byte, terminalChunk)
	for {
		kind, payload, err := guestapi.ReadTermFrame(stream, buf)
		if err != nil {
			return
		}
		switch kind {
		case guestapi.TermData:
			if _, err := master.Write(payload); err != nil {
				return
			}
		case guestapi.TermResize:
			cols, rows, err := guestapi.DecodeTermSize(payload)
			if err != nil {
				return
			}
			_ = setTerminalSize(master, cols, rows) // a terminal that is closed has no size
		default:
			return
		}
	}
}
