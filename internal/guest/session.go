//go:build linux

package guest

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Errors of what the host asks of a machine.
var (
	errOtherSession = errors.New("this machine works for another session")
	errWrongKind    = errors.New("a machine of this kind does not do that")
)

// personConfig is what a machine has been configured as.
type personConfig struct {
	configure guestapi.Configure
	logger    *slog.Logger
	logs      io.Writer
	browser   *browser // nil in a cli machine
}

// person is what a configured machine does for the person it belongs to:
// signing in, in a browser machine; holding credentials, terminals and
// commands, in a cli machine. Methods may be called concurrently.
type person struct {
	cfg       personConfig
	env       []string
	private   *PrivateDirs
	deliverer *Deliverer
	terminals *Terminals // nil in a browser machine
	screens   *Screens   // nil in a cli machine

	mu    sync.Mutex // guards login
	login *Login
}

// newPerson prepares the machine. The caller closes it.
func newPerson(cfg personConfig) (*person, error) {
	u := personUser()
	p := &person{cfg: cfg, env: personEnv(cfg.configure, u)}
	if cfg.browser != nil {
		log, _ := cfg.logs.(*os.File)
		p.screens = NewScreens(u, p.env, log)
		return p, nil
	}
	var err error
	p.private, err = OpenPrivateDirs(PrivateConfig{User: u, Files: cfg.configure.Providers, Logger: cfg.logger})
	if err != nil {
		return nil, err
	}
	p.deliverer = NewDeliverer(u)
	p.terminals = NewTerminals(u, p.env)
	return p, nil
}

// personEnv is the environment of everything that the person runs in the
// machine.
func personEnv(in guestapi.Configure, u User) []string {
	more := make(map[string]string)
	for _, f := range in.Providers {
		for name, value := range f.Target.Env {
			if rest, ok := strings.CutPrefix(value, "~/"); ok {
				value = u.Home + "/" + rest
			}
			more[name] = value
		}
		maps.Copy(more, caEnv(f, caBundle))
	}
	if in.Locale != "" {
		more["LANGUAGE"] = in.Locale // LANG stays C.UTF-8: the image holds no other locale
	}
	if in.TimeZone != "" {
		more["TZ"] = in.TimeZone
	}
	maps.Copy(more, in.Env)
	return baseEnv(more)
}

// close ends everything that runs for the person.
func (p *person) close() {
	p.mu.Lock()
	login := p.login
	p.mu.Unlock()
	if login != nil {
		login.Stop()
	}
	if p.screens != nil {
		p.screens.Close()
	}
	if p.terminals != nil {
		p.terminals.Close()
	}
	if p.private != nil {
		p.private.Close()
	}
}

// startAuth starts the sign-in, or returns the status of the one that was
// started for the same session.
func (p *person) startAuth(in guestapi.AuthRequest) (guestapi.AuthStatus, error) {
	if p.cfg.browser == nil {
		return guestapi.AuthStatus{}, errWrongKind
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.login != nil {
		if p.login.SessionID() != in.SessionID {
			return guestapi.AuthStatus{}, errOtherSession
		}
		return p.login.Status(context.Background(), 0, 0), nil
	}
	self, err := os.Executable()
	if err != nil {
		return guestapi.AuthStatus{}, err
	}
	login, err := StartLogin(context.Background(), LoginConfig{
		File: in.Provider, SessionID: in.SessionID, User: personUser(), Env: p.env, CABundle: caBundle,
		HookDir: hookDir, HookSocket: hookSocket, HookProgram: self,
		Open: p.cfg.browser.open, Logger: p.cfg.logger,
	})
	if err != nil {
		return guestapi.AuthStatus{}, err
	}
	p.login = login
	return login.Status(context.Background(), 0, 0), nil
}

// authStatus waits for news of the sign-in. Where none was started there is
// none until the wait is over.
func (p *person) authStatus(ctx context.Context, after int64, wait time.Duration) (guestapi.AuthStatus, error) {
	p.mu.Lock()
	login := p.login
	p.mu.Unlock()
	if login != nil {
		return login.Status(ctx, after, wait), nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return guestapi.AuthStatus{Phase: guestapi.PhaseIdle}, nil
}

func (p *person) credentials() (guestapi.Credentials, error) {
	p.mu.Lock()
	login := p.login
	p.mu.Unlock()
	if login == nil {
		return guestapi.Credentials{}, ErrNotCaptured
	}
	return login.Credentials()
}

func (p *person) deliver(in guestapi.Delivery) (guestapi.DeliveryAck, error) {
	if p.deliverer == nil {
		return guestapi.DeliveryAck{}, errWrongKind
	}
	return p.deliverer.Deliver(in)
}

// collect reads the credential files as they are now.
func (p *person) collect(in guestapi.Collect) (guestapi.Credentials, error) {
	if p.deliverer == nil {
		return guestapi.Credentials{}, errWrongKind
	}
	return p.deliverer.Collect(in.Provider)
}

func (p *person) run(ctx context.Context, in guestapi.RunRequest) (guestapi.RunResult, error) {
	if p.cfg.browser != nil {
		return guestapi.RunResult{}, errWrongKind
	}
	return RunCommand(ctx, personUser(), p.env, in)
}

// terminal serves a terminal on the stream and closes it.
func (p *person) terminal(stream net.Conn, cols, rows int) {
	if p.terminals == nil {
		_ = stream.Close()
		return
	}
	if err := p.terminals.Serve(stream, cols, rows); err != nil {
		p.cfg.logger.Warn("terminal refused", "err", err)
	}
}
