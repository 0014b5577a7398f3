//go:build linux

// Package guest is the agent inside every machine: its first process, the
// programs that it keeps running, and the HTTP API that the host reaches over
// the line. It knows nothing of users, vaults or databases.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guest/catch"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
)

// Config is what the agent is told on its command line.
type Config struct {
	Kind string // "browser" or "cli"
	Dial func(context.Context) (net.Conn, error)
	// Virtual says that the machine has a kernel and memory of its own.
	Virtual bool
	Build   string // must equal the host's
	Logs    io.Writer
}

// Agent is the one agent of a machine.
type Agent struct {
	cfg    Config
	logger *slog.Logger

	lineMu sync.Mutex
	line   *line.Line // the line that is up, or nil

	staleMu sync.Mutex
	stale   bool // the browser holds random state of the snapshot; see renewed
	taken   bool // the machine is somebody's: the browser may be renewed

	mu         sync.Mutex // guards all below, and holds one configuration at a time
	configured *guestapi.Configure
	ack        guestapi.Ack
	browser    *browser
	person     *person
	catcher    *catch.Catcher // nil until configured, and where there can be none
}

// errStale is what a connection ends with that a browser from the snapshot tried
// to make. The browser that it asks in vain makes it again.
var errStale = errors.New("the browser is only now made one of its own")

// renewed makes a browser from the snapshot one of its own, if that has not been
// done, and says whether it had been: nothing that it holds of the snapshot's
// random state gets as far as the host. A machine that is nobody's yet has no
// connections, since a snapshot is taken of it. It is done no earlier than it is
// needed, since it takes the processor from whoever waits for a first picture.
func (a *Agent) renewed() bool {
	a.staleMu.Lock()
	defer a.staleMu.Unlock()
	if a.stale && a.taken {
		endNetworkService()
		a.stale = false
		return false
	}
	return !a.stale
}

func (a *Agent) setStale(stale, taken bool) {
	a.staleMu.Lock()
	defer a.staleMu.Unlock()
	a.stale, a.taken = stale, taken
}

// redial is how long the agent waits between two tries to reach the host. A
// restored machine must be up at once; one whose host is being restarted costs
// next to nothing.
const (
	redialFirst = 10 * time.Millisecond
	redialLast  = 200 * time.Millisecond
)

// Run runs the agent until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Kind != "browser" && cfg.Kind != "cli" {
		return fmt.Errorf("unknown kind of machine %q", cfg.Kind)
	}
	logger := slog.New(slog.NewTextHandler(cfg.Logs, nil))
	a := &Agent{cfg: cfg, logger: logger}
	if err := prepareDirs(); err != nil {
		return err
	}
	proxy, err := net.Listen("tcp", proxyListen)
	if err != nil {
		return fmt.Errorf("proxy port: %w", err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { serveProxy(proxy, a.dialHost, logger) })
	defer func() { _ = proxy.Close() }()
	if cfg.Kind == "browser" {
		env := baseEnv(nil)
		a.browser = &browser{env: env, logs: cfg.Logs, logger: logger, virtual: cfg.Virtual}
		defer a.browser.halt()
		all.Go(func() { displayPrograms(ctx, cfg.Virtual, env, cfg.Logs, logger) })
	}
	a.keepLine(ctx)
	if a.person != nil {
		a.person.close()
	}
	if a.catcher != nil {
		_ = a.catcher.Close()
	}
	return ctx.Err()
}

// prepareDirs makes the directories that the image cannot hold, since they are
// on file systems in memory.
func prepareDirs() error {
	for dir, owner := range map[string]int{
		runDir: 0, hookDir: 0, personRun: PersonUID,
		PersonHome: PersonUID, "/tmp/.X11-unix": 0,
	} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("preparing %s: %w", dir, err)
		}
		if err := os.Chown(dir, owner, owner); err != nil {
			return fmt.Errorf("preparing %s: %w", dir, err)
		}
	}
	if err := os.Chmod("/tmp/.X11-unix", os.ModeSticky|0o777); err != nil {
		return err
	}
	return os.Chmod("/tmp", os.ModeSticky|0o777)
}

// keepLine dials the host, serves what it asks, and dials again, until ctx ends.
func (a *Agent) keepLine(ctx context.Context) {
	server := &http.Server{
		Handler:           a.routes(),
		ReadHeaderTimeout: 5 * time.Second,
		MaxHeaderBytes:    guestapi.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
	}
	defer func() { _ = server.Close() }()
	wait := redialFirst
	for ctx.Err() == nil {
		conn, err := a.cfg.Dial(ctx)
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			wait = min(wait+redialFirst, redialLast)
			continue
		}
		wait = redialFirst
		l, err := line.Guest(conn)
		if err != nil {
			a.logger.Warn("line refused", "err", err)
			continue
		}
		a.setLine(l)
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		err = server.Serve(l)
		stop()
		_ = l.Close()
		a.setLine(nil)
		if errors.Is(err, http.ErrServerClosed) {
			return
		}
	}
}

func (a *Agent) setLine(l *line.Line) {
	a.lineMu.Lock()
	defer a.lineMu.Unlock()
	a.line = l
}

// dialHost opens a stream to the host's egress proxy.
func (a *Agent) dialHost(ctx context.Context) (net.Conn, error) {
	if !a.renewed() {
		return nil, errStale
	}
	a.lineMu.Lock()
	l := a.line
	a.lineMu.Unlock()
	if l == nil {
		return nil, line.ErrClosed
	}
	return l.Dial(ctx)
}
