//go:build linux

package guest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guest/rfb"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
)

// errOtherMachine says that the agent was configured as another machine.
var errOtherMachine = errors.New("this machine has been configured under another id")

// clockTolerance is how far the guest's clock may seem to be off before it is
// set. A part of it is the time that the host's message was on its way.
const clockTolerance = 500 * time.Millisecond

// warm starts the browser before the machine is anybody's, for a snapshot.
func (a *Agent) warm(ctx context.Context, in guestapi.Warm) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.configured != nil || a.browser == nil {
		return errors.New("only a browser machine that is nobody's can be warmed")
	}
	if err := writeCAs(in.CAPEM); err != nil {
		return err
	}
	a.setStale(true, false) // as it will be in every machine from the snapshot
	if err := a.browser.start(ctx, browserSettings{CAPEM: in.CAPEM, Locale: in.Locale, Languages: in.Languages}); err != nil {
		return err
	}
	for _, f := range in.Providers {
		if err := a.warmTool(ctx, f); err != nil {
			a.logger.Warn("a tool's caches stay cold", "provider", f.Name, "err", err)
		}
	}
	if a.cfg.Virtual {
		return trimMemory()
	}
	return nil
}

// warmTool runs a provider's harmless command, so that the caches which its
// environment names are part of the snapshot. Its home is thrown away.
func (a *Agent) warmTool(ctx context.Context, f *provider.File) error {
	if len(f.Login.Warm) == 0 {
		return nil
	}
	if err := f.Validate(); err != nil {
		return err
	}
	u := personUser()
	u.Home = filepath.Join(personRun, "warm")
	if err := os.Mkdir(u.Home, 0o700); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(u.Home) }()
	if err := os.Chown(u.Home, u.UID, u.GID); err != nil {
		return err
	}
	env := withEnv(baseEnv(f.Login.Env), map[string]string{"HOME": u.Home})
	result, err := RunCommand(ctx, u, env, guestapi.RunRequest{Argv: f.Login.Warm, Timeout: "30s"})
	if err == nil && result.ExitCode != 0 {
		err = fmt.Errorf("exit code %d: %.200s", result.ExitCode, result.Stderr)
	}
	return err
}

// configure makes the machine the one that in describes and returns the
// acknowledgement. The same machine may be configured again, by a host that
// was restarted; what runs in it is left alone then.
func (a *Agent) configure(ctx context.Context, in guestapi.Configure) (guestapi.Ack, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.configured != nil {
		if a.configured.MachineID != in.MachineID {
			return guestapi.Ack{}, errOtherMachine
		}
		again := a.ack
		again.Clock, again.Again = time.Now(), true
		return again, nil
	}
	if in.MachineID == "" || in.Kind != a.cfg.Kind || len(in.Entropy) != 64 {
		return guestapi.Ack{}, errors.New("the configuration lacks an id, has another kind of machine, or not 64 bytes of entropy")
	}
	if err := addEntropy(in.Entropy); err != nil {
		return guestapi.Ack{}, err
	}
	if err := setClock(in.WallClock); err != nil {
		return guestapi.Ack{}, err
	}
	if err := setTimeZone(in.TimeZone); err != nil {
		return guestapi.Ack{}, err
	}
	if err := writeCAs(in.CAPEM); err != nil {
		return guestapi.Ack{}, err
	}
	if err := os.WriteFile("/etc/machine-id", []byte(hex.EncodeToString(machineID(in.MachineID))+"\n"), 0o444); err != nil {
		return guestapi.Ack{}, fmt.Errorf("machine id: %w", err)
	}
	uncaught := ""
	if err := a.catchAll(); err != nil {
		// They have no way out at all then; the host says so in its log.
		uncaught = err.Error()
	}
	restored := false
	if a.browser != nil {
		want := browserSettings{CAPEM: in.CAPEM, Locale: in.Locale, Languages: in.Languages}
		if restored = a.browser.running() && a.browser.settings == want; !restored {
			if err := a.browser.start(ctx, want); err != nil {
				return guestapi.Ack{}, err
			}
		}
		a.setStale(restored, true)
		if err := rfb.Resize(ctx, vncSocket, in.Width, in.Height); err != nil {
			return guestapi.Ack{}, err
		}
	}
	p, err := newPerson(personConfig{configure: in, logger: a.logger, logs: a.cfg.Logs, browser: a.browser})
	if err != nil {
		return guestapi.Ack{}, err
	}
	a.person = p
	a.configured = &in
	sum := sha256.Sum256(in.Entropy)
	a.ack = guestapi.Ack{
		MachineID: in.MachineID,
		Entropy:   hex.EncodeToString(sum[:]),
		Clock:     time.Now(),
		Build:     a.cfg.Build,
		Restored:  restored,
		Uncaught:  uncaught,
	}
	return a.ack, nil
}

// machineID is the 128-bit id that programs read from /etc/machine-id.
func machineID(id string) []byte {
	sum := sha256.Sum256([]byte("anteroom machine-id " + id))
	return sum[:16]
}

// addEntropy mixes b into the kernel's pool, and credits it where the kernel
// has a pool of its own (a virtual machine). gVisor has none: there every read
// of /dev/urandom and getrandom is answered by the host's kernel, so nothing
// of it is ever part of a snapshot.
func addEntropy(b []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("entropy: %w", err)
	}
	if err := creditEntropy(f.Fd(), b); err != nil && !errors.Is(err, unix.ENOTTY) && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("crediting entropy: %w", err)
	}
	return nil
}

// setClock sets the wall clock if it is off. gVisor's guests read the host's
// clock, which cannot be set and is never off: there, a difference is only the
// time that a message took on a busy host. Whether the clock is right the host
// judges by the acknowledgement.
func setClock(want time.Time) error {
	if d := time.Until(want); d.Abs() < clockTolerance {
		return nil
	}
	ts := unix.NsecToTimespec(want.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil && !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("setting the clock from %s to %s: %w", time.Now().UTC(), want.UTC(), err)
	}
	return nil
}

// setTimeZone points /etc/localtime at the zone; running programs that watch
// it (Chromium does) follow. An unknown zone becomes UTC: it comes from a
// viewer's browser.
func setTimeZone(name string) error {
	const zones = "/usr/share/zoneinfo"
	file := filepath.Join(zones, filepath.Clean("/"+name))
	if info, err := os.Stat(file); name == "" || err != nil || !info.Mode().IsRegular() {
		name, file = "Etc/UTC", zones+"/Etc/UTC"
	}
	const fresh = "/etc/localtime.new"
	_ = os.Remove(fresh)
	if err := os.Symlink(file, fresh); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	if err := os.Rename(fresh, "/etc/localtime"); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	if err := os.WriteFile("/etc/timezone", []byte(name+"\n"), 0o644); err != nil {
		return fmt.Errorf("time zone: %w", err)
	}
	return nil
}

// baseEnv is the environment of everything that runs as the person, with more
// on top.
func baseEnv(more map[string]string) []string {
	env := map[string]string{
		"HOME": PersonHome, "USER": PersonName, "LOGNAME": PersonName, "SHELL": "/bin/bash",
		"PATH":             "/usr/local/bin:/usr/bin:/bin",
		"LANG":             "C.UTF-8",
		"DISPLAY":          display,
		"XDG_RUNTIME_DIR":  personRun,
		"VK_ICD_FILENAMES": "/dev/null", // Chromium looks for Vulkan otherwise, and sometimes dies of it
	}
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		env[name] = "http://" + proxyListen
		env[strings.ToLower(name)] = env[name]
	}
	env["NO_PROXY"] = "localhost,127.0.0.1,::1"
	env["no_proxy"] = env["NO_PROXY"]
	maps.Copy(env, more)
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}
