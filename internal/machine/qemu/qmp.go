//go:build linux

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine/socket"
)

// maxMessage is more than QEMU's longest answer to what it is asked here.
const maxMessage = 256 << 10

// monitor is a connection to a machine's QMP (QEMU Machine Protocol). One
// goroutine at a time uses it. What is at its other end a guest may have taken
// over: it may say anything, and is not waited for beyond ctx.
type monitor struct {
	conn  *net.UnixConn
	lines *bufio.Scanner
	// events are those that came while an answer was waited for.
	events []event
}

type event struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

// message is anything that QEMU says.
type message struct {
	event
	Greeting *struct{}       `json:"QMP"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Description string `json:"desc"`
	} `json:"error"`
}

// openMonitor connects to the monitor in a machine's directory; the caller
// closes it.
func openMonitor(ctx context.Context, dir string) (*monitor, error) {
	dialled, err := socket.Dial(ctx, dir, qmpSocket)
	if err != nil {
		return nil, fmt.Errorf("QMP: %w", err)
	}
	conn, ok := dialled.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("QMP: not a unix socket"), dialled.Close())
	}
	m := &monitor{conn: conn, lines: bufio.NewScanner(conn)}
	m.lines.Buffer(nil, maxMessage)
	if err := m.greet(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) greet(ctx context.Context) error {
	hello, err := m.read(ctx)
	if err != nil {
		return err
	}
	if hello.Greeting == nil {
		return errors.New("QMP: no greeting")
	}
	return m.call(ctx, "qmp_capabilities", nil, nil)
}

func (m *monitor) close() { _ = m.conn.Close() }

// read reads one message.
func (m *monitor) read(ctx context.Context) (message, error) {
	stop := context.AfterFunc(ctx, func() { _ = m.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var out message
	if !m.lines.Scan() {
		err := m.lines.Err()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		if err == nil {
			err = net.ErrClosed
		}
		return out, fmt.Errorf("QMP: %w", err)
	}
	if err := json.Unmarshal(m.lines.Bytes(), &out); err != nil {
		return out, fmt.Errorf("QMP: %w", err)
	}
	return out, nil
}

// call runs a command and reads what it returns into out, if out is not nil.
func (m *monitor) call(ctx context.Context, command string, arguments map[string]any, out any) error {
	return m.callWith(ctx, command, arguments, out, nil)
}

// giveFile hands QEMU an open file under a name.
func (m *monitor) giveFile(ctx context.Context, name string, file *os.File) error {
	return m.callWith(ctx, "getfd", map[string]any{"fdname": name}, nil, file)
}

func (m *monitor) callWith(ctx context.Context, command string, arguments map[string]any, out any, file *os.File) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := m.conn.WriteMsgUnix(append(text, '\n'), rights, nil); err != nil {
		return fmt.Errorf("QMP: %s: %w", command, err)
	}
	for {
		answer, err := m.read(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", command, err)
		case answer.Error != nil:
			return fmt.Errorf("QMP: %s: %.200s", command, answer.Error.Description)
		case answer.Return != nil && out != nil:
			return json.Unmarshal(answer.Return, out)
		case answer.Return != nil:
			return nil
		case answer.Name != "":
			m.note(answer.event)
		}
	}
}

// maxEvents is how many events are kept that nobody has asked for.
const maxEvents = 64

func (m *monitor) note(e event) {
	if len(m.events) < maxEvents {
		m.events = append(m.events, e)
	}
}

// await waits for an event and returns its data.
func (m *monitor) await(ctx context.Context, name string) (json.RawMessage, error) {
	_, data, err := m.awaitAny(ctx, name)
	return data, err
}

// awaitAny waits for the first of some events.
func (m *monitor) awaitAny(ctx context.Context, names ...string) (name string, data json.RawMessage, err error) {
	for {
		for i, e := range m.events {
			if slices.Contains(names, e.Name) {
				m.events = slices.Delete(m.events, i, i+1)
				return e.Name, e.Data, nil
			}
		}
		next, err := m.read(ctx)
		if err != nil {
			return "", nil, fmt.Errorf("waiting for %s: %w", strings.Join(names, " or "), err)
		}
		if next.Name != "" {
			m.note(next.event)
		}
	}
}

// migrated waits until a migration, out or in, is complete.
func (m *monitor) migrated(ctx context.Context) error {
	for {
		data, err := m.await(ctx, "MIGRATION")
		if err != nil {
			return err
		}
		var at struct {
			Status string `json:"status"`
		}
		if err := json.Unmarshal(data, &at); err != nil {
			return fmt.Errorf("QMP: %w", err)
		}
		switch at.Status {
		case "completed":
			return nil
		case "failed", "cancelled":
			return m.migrationError(ctx)
		}
	}
}

func (m *monitor) migrationError(ctx context.Context) error {
	var info struct {
		Error string `json:"error-desc"`
	}
	err := m.call(ctx, "query-migrate", nil, &info)
	return errors.Join(fmt.Errorf("QEMU could not write or read the machine's state: %.200s", info.Error), err)
}

// tellMigrations has QEMU send an event with each step of a migration.
func (m *monitor) tellMigrations(ctx context.Context) error {
	return m.call(ctx, "migrate-set-capabilities", map[string]any{
		"capabilities": []map[string]any{{"capability": "events", "state": true}},
	}, nil)
}
