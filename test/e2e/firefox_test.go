package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/test/e2e/harness"
)

// firefoxPrefs keep Firefox from connecting to anything of its own accord.
var firefoxPrefs = map[string]any{
	"app.normandy.enabled":                           false,
	"app.update.disabledForTesting":                  true,
	"browser.safebrowsing.downloads.enabled":         false,
	"browser.safebrowsing.malware.enabled":           false,
	"browser.safebrowsing.phishing.enabled":          false,
	"browser.search.update":                          false,
	"browser.startup.page":                           0,
	"datareporting.policy.dataSubmissionEnabled":     false,
	"extensions.update.enabled":                      false,
	"media.gmp-manager.updateEnabled":                false,
	"media.gmp-provider.enabled":                     false,
	"network.captive-portal-service.enabled":         false,
	"network.connectivity-service.enabled":           false,
	"network.dns.disablePrefetch":                    true,
	"services.settings.server":                       "data:,",
	"toolkit.telemetry.server":                       "data:,",
	"toolkit.telemetry.reportingpolicy.firstRun":     false,
	"browser.newtabpage.enabled":                     false,
	"browser.aboutwelcome.enabled":                   false,
	"extensions.getAddons.cache.enabled":             false,
	"browser.region.network.url":                     "",
	"geo.provider.network.url":                       "",
	"browser.contentblocking.report.hide_vpn_banner": true,
}

// firefox is one Firefox with one tab, driven by WebDriver BiDi.
type firefox struct {
	t    *testing.T
	conn *websocket.Conn
	tab  string
	id   int
}

var listening = regexp.MustCompile(`WebDriver BiDi listening on (ws://\S+)`)

// startFirefox starts Debian's. It ends with the test.
func startFirefox(t *testing.T, ctx context.Context) *firefox {
	t.Helper()
	path, err := exec.LookPath("firefox-esr")
	if err != nil {
		t.Skip("SKIPPED: there is no firefox-esr, so nothing was seen in Firefox")
	}
	home := t.TempDir()
	var prefs strings.Builder
	for name, value := range firefoxPrefs {
		v, err := json.Marshal(value)
		must(t, err)
		fmt.Fprintf(&prefs, "user_pref(%q, %s);\n", name, v)
	}
	profile := filepath.Join(home, "profile")
	must(t, os.Mkdir(profile, 0o700))
	must(t, os.WriteFile(filepath.Join(profile, "user.js"), []byte(prefs.String()), 0o600))
	cmd := exec.Command(path, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "--width", "1280", "--height", "900")
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	found := make(chan string, 1)
	var reading sync.WaitGroup
	reading.Go(func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
				break
			}
		}
		_, _ = io.Copy(io.Discard, stderr)
	})
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // with its processes for pages
		reading.Wait()
		_ = cmd.Wait()
	})
	f := &firefox{t: t}
	select {
	case at := <-found:
		f.conn, _, err = websocket.Dial(ctx, at+"/session", nil) //nolint:bodyclose // of a WebSocket
		must(t, err)
	case <-ctx.Done():
		t.Fatal("Firefox did not start")
	}
	t.Cleanup(func() { _ = f.conn.CloseNow() })
	f.conn.SetReadLimit(4 << 20)
	f.call(ctx, "session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	var tree struct {
		Contexts []struct{ Context string }
	}
	f.call(ctx, "browsingContext.getTree", map[string]any{}, &tree)
	f.tab = tree.Contexts[0].Context
	return f
}

// call carries out a command.
func (f *firefox) call(ctx context.Context, method string, params map[string]any, result any) {
	f.t.Helper()
	must(f.t, f.try(ctx, method, params, result))
}

func (f *firefox) try(ctx context.Context, method string, params map[string]any, result any) error {
	f.id++
	if f.tab != "" && params["target"] == nil {
		params["context"] = f.tab
	}
	text, err := json.Marshal(map[string]any{"id": f.id, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := f.conn.Write(ctx, websocket.MessageText, text); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	for {
		_, text, err := f.conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		var answer struct {
			ID             int
			Type           string
			Error, Message string
			Result         json.RawMessage
		}
		if err := json.Unmarshal(text, &answer); err != nil {
			return fmt.Errorf("%s: %w", method, err)
		}
		switch {
		case answer.ID != f.id: // an event
		case answer.Type != "success":
			return fmt.Errorf("%s: %s: %s", method, answer.Error, answer.Message)
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, result)
		}
	}
}

func (f *firefox) visit(ctx context.Context, url string) {
	f.t.Helper()
	f.call(ctx, "browsingContext.navigate", map[string]any{"url": url, "wait": "interactive"}, nil)
}

// wait waits until a script's value is true.
func (f *firefox) wait(ctx context.Context, script string) {
	f.t.Helper()
	must(f.t, harness.Until(ctx, func() error {
		var out struct {
			Result           struct{ Value any }
			ExceptionDetails struct{ Text string }
		}
		err := f.try(ctx, "script.evaluate", map[string]any{"expression": script, "awaitPromise": true, "target": map[string]any{"context": f.tab}}, &out)
		if err != nil {
			return err
		}
		if v, ok := out.Result.Value.(bool); !ok || !v {
			return errors.Join(errNotYet, fmt.Errorf("%s is %v %s", script, out.Result.Value, out.ExceptionDetails.Text))
		}
		return nil
	}))
}

// do carries out actions of one of the person's devices.
func (f *firefox) do(ctx context.Context, device string, actions ...map[string]any) {
	f.t.Helper()
	f.call(ctx, "input.performActions", map[string]any{"actions": []any{map[string]any{"type": device, "id": device, "actions": actions}}}, nil)
}

func (f *firefox) typeText(ctx context.Context, text string) {
	f.t.Helper()
	var keys []map[string]any
	for _, r := range text {
		keys = append(keys, map[string]any{"type": "keyDown", "value": string(r)}, map[string]any{"type": "keyUp", "value": string(r)})
	}
	f.do(ctx, "key", keys...)
}

// pictured is whether the screen shows something by a transport: more than one
// colour.
const pictured = `(() => {
  if (document.querySelector(".viewer")?.dataset.transport !== %q) return false;
  const live = document.querySelector("[data-testid=viewer] .stage-live " + %q);
  if (!live || !(live.videoWidth ?? live.width)) return false;
  const c = document.createElement("canvas");
  c.width = c.height = 32;
  const ctx = c.getContext("2d");
  ctx.drawImage(live, 0, 0, 32, 32);
  return new Set(ctx.getImageData(0, 0, 32, 32).data).size > 4;
})()`

// ownAddress is a media address that Firefox connects to: it takes no part in
// ICE on loopback, and its packets to another address of this computer do not
// leave it either.
func ownAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	must(t, err)
	for _, a := range addresses {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String() + ":0"
		}
	}
	t.Skip("SKIPPED: this computer has no address but loopback, on which Firefox makes no peer connection")
	return ""
}

// TestFirefox looks at a machine's screen in Firefox, by live video and by noVNC,
// and types on it.
func TestFirefox(t *testing.T) {
	for _, by := range []struct{ transport, element, media string }{
		{"udp", "video", ownAddress(t)},
		{"vnc", "canvas", "off"},
	} {
		t.Run(by.transport, func(t *testing.T) {
			ctx := limit(t, 2*time.Minute)
			who, session := atTypingPage(t, ctx, "firefox-"+by.transport, "--media-address", by.media)
			link, err := who.Link(ctx)
			must(t, err)
			must(t, who.Page.Home(ctx)) // one at a time controls the screen
			f := startFirefox(t, ctx)
			f.visit(ctx, link)
			f.wait(ctx, `!!document.querySelector('[data-testid^=credential-]')`)
			f.visit(ctx, shared.rig.URL()+"/sessions/"+session)
			began := time.Now()
			f.wait(ctx, fmt.Sprintf(pictured, by.transport, by.element))
			t.Logf("a picture after %.1fs", time.Since(began).Seconds())
			f.do(ctx, "pointer",
				map[string]any{"type": "pointerMove", "x": 600, "y": 500},
				map[string]any{"type": "pointerDown", "button": 0}, map[string]any{"type": "pointerUp", "button": 0})
			const line = "Firefox types: Grüße, €5 привет ñ 日本"
			f.typeText(ctx, line+"\ue007")
			must(t, typing.wait(ctx, "typed", func(s typed) bool { return s.Text == line+"\n" }))
		})
	}
}
