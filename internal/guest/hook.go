//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Limits on browser hooks. A tool calls one once or twice; one that has called
// maxHookCalls times is not listened to any more.
const (
	maxURLBytes   = 8 << 10
	maxHookCalls  = 64
	maxHookAtOnce = 4
	hookTimeout   = 10 * time.Second
)

// hookSocketVar names the socket for the hooks where it is not hookSocket.
const hookSocketVar = "ANTEROOM_HOOK_SOCKET"

// browserVarHook is the name of the program that $BROWSER gets.
const browserVarHook = "browser-hook"

// HookMain is the browser that the tools believe they start: the agent's
// program under the name of one. It hands the address, its first argument that
// is not an option, to the agent and returns the exit code: 0 once the agent
// has taken it. Under the name xdg-settings it says that there is no default
// browser, so that the tools go on to the next way of finding one.
func HookMain(args []string) int {
	if len(args) == 0 || filepath.Base(args[0]) == "xdg-settings" {
		return 1
	}
	address := ""
	for _, a := range args[1:] {
		if !strings.HasPrefix(a, "-") {
			address = a
			break
		}
	}
	if address == "" {
		return 1
	}
	socket := os.Getenv(hookSocketVar)
	if socket == "" {
		socket = hookSocket
	}
	if err := sendHook(socket, address); err != nil {
		fmt.Fprintln(os.Stderr, "the sign-in page could not be handed over:", err)
		return 1
	}
	return 0
}

func sendHook(socket, address string) error {
	conn, err := net.DialTimeout("unix", socket, hookTimeout)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(hookTimeout))
	// One byte more than allowed lets the agent see that it is too long.
	if _, err := io.WriteString(conn, address[:min(len(address), maxURLBytes+1)]); err != nil {
		return err
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil { //nolint:errcheck // it was dialled as one
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}

// hookServer takes addresses from hooks. urls gives them unchecked, one at a
// time, until close.
type hookServer struct {
	urls     chan string
	listener net.Listener
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

// listenHooks listens on a socket that only u (and root) can connect to. (The
// peer's credentials would say more, but gVisor gives our own for them.)
func listenHooks(socket string, u User) (*hookServer, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("hook socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("hook socket: %w", err)
	}
	if err := errors.Join(os.Chmod(socket, 0o600), os.Lchown(socket, u.UID, u.GID)); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("hook socket: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &hookServer{urls: make(chan string), listener: l, cancel: cancel}
	h.running.Go(func() { h.serve(ctx) })
	return h, nil
}

// close stops listening and returns when every connection is closed.
func (h *hookServer) close() {
	h.cancel()
	_ = h.listener.Close()
	h.running.Wait()
}

func (h *hookServer) serve(ctx context.Context) {
	slots := make(chan struct{}, maxHookAtOnce)
	for range maxHookCalls {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := h.listener.Accept()
		if err != nil {
			return
		}
		h.running.Go(func() {
			defer func() { <-slots }()
			defer func() { _ = conn.Close() }()
			h.take(ctx, conn)
		})
	}
	_ = h.listener.Close()
}

func (h *hookServer) take(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	_ = conn.SetDeadline(time.Now().Add(hookTimeout))
	if ctx.Err() != nil {
		return
	}
	address, err := io.ReadAll(io.LimitReader(conn, maxURLBytes+1))
	if err != nil || len(address) == 0 {
		return
	}
	select {
	case h.urls <- string(address):
		_, _ = conn.Write([]byte{'+'})
	case <-ctx.Done():
	}
}

// installHooks makes dir hold the names under which a tool looks for a browser,
// each a link to program, and nothing else, and returns what the tool's
// environment needs for them to be found.
func installHooks(dir, program string, names []string, env []string) (map[string]string, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("hooks: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
		return nil, fmt.Errorf("hooks: %w", err)
	}
	set := map[string]string{"PATH": dir + ":" + getEnv(env, "PATH")}
	for _, name := range names {
		if name == "BROWSER" {
			name = browserVarHook
			set["BROWSER"] = filepath.Join(dir, name)
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("hooks: %w", err)
		}
	}
	return set, nil
}
