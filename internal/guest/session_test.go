//go:build linux

package guest

import (
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// What the host holds a guest to is what the guest holds itself to.
func TestLimitsAgree(t *testing.T) {
	if guestapi.MaxFileBytes != provider.MaxCredentialBytes || guestapi.MaxFiles != provider.MaxCredentials {
		t.Error("the limits of guestapi and provider are not the same")
	}
}

func TestPersonEnv(t *testing.T) {
	f := toolFile(t, func(f *provider.File) {
		f.Target.Env = map[string]string{"TOOL_HOME": "~/.tool/data", "TOOL_MODE": "~"}
	})
	env := personEnv(guestapi.Configure{
		Locale: "sv_SE.UTF-8", TimeZone: "Europe/Stockholm",
		Providers: []*provider.File{f}, Env: map[string]string{"MORE": "1", "PATH": "/opt/bin:/bin"},
	}, personUser())
	for name, want := range map[string]string{
		"HOME": PersonHome, "LANG": "C.UTF-8", "LANGUAGE": "sv_SE.UTF-8", "TZ": "Europe/Stockholm", "TOOL_CA": caBundle, "MORE": "1",
		"TOOL_HOME": PersonHome + "/.tool/data", "TOOL_MODE": "~", "PATH": "/opt/bin:/bin", "HTTPS_PROXY": "http://" + proxyListen,
	} {
		if got := getEnv(env, name); got != want {
			t.Errorf("%s=%q, want %q", name, got, want)
		}
	}
}

// Each kind of machine does its own work and refuses the other's.
func TestPersonKinds(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	inBrowser := &person{cfg: personConfig{logger: logger, browser: &browser{}}}
	if _, err := inBrowser.deliver(guestapi.Delivery{}); !errors.Is(err, errWrongKind) {
		t.Errorf("deliver: %v", err)
	}
	if _, err := inBrowser.collect(guestapi.Collect{}); !errors.Is(err, errWrongKind) {
		t.Errorf("collect: %v", err)
	}
	if _, err := inBrowser.run(t.Context(), guestapi.RunRequest{}); !errors.Is(err, errWrongKind) {
		t.Errorf("run: %v", err)
	}
	if _, err := inBrowser.credentials(); !errors.Is(err, ErrNotCaptured) {
		t.Errorf("credentials: %v", err)
	}
	host, stream := net.Pipe()
	inBrowser.terminal(stream, 80, 24)
	if _, err := host.Read(make([]byte, 1)); err == nil {
		t.Error("a terminal in a browser machine")
	}
	if s, err := inBrowser.authStatus(t.Context(), 0, time.Millisecond); err != nil || s.Phase != guestapi.PhaseIdle {
		t.Errorf("status: %+v %v", s, err)
	}
	inBrowser.close()
	inCLI := &person{cfg: personConfig{logger: logger}}
	if _, err := inCLI.startAuth(guestapi.AuthRequest{}); !errors.Is(err, errWrongKind) {
		t.Errorf("start: %v", err)
	}
	inCLI.close()
}
