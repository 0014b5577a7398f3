//go:build linux

package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	chromium   = "/usr/lib/chromium/chromium"
	profileDir = PersonHome + "/.config/chromium"
	// emptyPage is what the first tab shows until a sign-in page is opened. It
	// is a data URL so that no page of the web ever shares its process, and it
	// closes itself once the tab of the sign-in page has come before it. Closed
	// at once, it would take the window along while it is the only tab.
	emptyTitle = "Anteroom"
	emptyPage  = "data:text/html,<title>" + emptyTitle + "</title><meta name=color-scheme content='light dark'>" +
		"<body style='font:16px sans-serif;display:grid;place-items:center;height:95vh'>Opening the sign-in page…" +
		"<script>document.onvisibilitychange=()=>setTimeout(()=>document.hidden&&close(),1500)</script>"
	// preferences of a fresh profile: the window manager frames the window
	// (it does not), so that nobody can minimise the only window away; and no
	// word is looked up, for which Chromium would get a dictionary from its maker.
	preferences = `{"browser":{"custom_chrome_frame":false,"enable_spellchecking":false,"has_seen_welcome_page":true},"spellcheck":{"dictionaries":[],"dictionary":""}}`
)

// browserSettings are what Chromium reads once, at its start. A warm browser is
// used only for settings equal to those it was started with.
type browserSettings struct {
	CAPEM     string
	Locale    string
	Languages string
}

// browser is the machine's Chromium. One goroutine at a time may call start
// and open; the agent's mutex sees to it.
type browser struct {
	env     []string
	logs    io.Writer
	logger  *slog.Logger
	virtual bool // the machine may be emulated, and slow

	settings browserSettings
	stop     context.CancelFunc
	stopped  sync.WaitGroup

	pageMu sync.Mutex
	page   string // what a Chromium that ended is started again with
}

// chromiumFlags are the flags of every start; ARCHITECTURE.md says why each is
// there. There is no --no-sandbox and no DevTools port.
func chromiumFlags(s browserSettings) []string {
	return []string{
		"--user-data-dir=" + profileDir,
		"--lang=" + strings.TrimSuffix(strings.ReplaceAll(s.Locale, "_", "-"), ".UTF-8"),
		"--accept-lang=" + s.Languages,
		"--proxy-server=http://" + proxyListen,
		"--disable-quic",
		"--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
		"--no-first-run", "--no-default-browser-check",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-domain-reliability", "--disable-breakpad", "--no-pings",
		// Calls of Chromium's own that no switch turns off go where nobody
		// listens: for components, which --disable-component-update leaves some
		// of, and for the accounts of a profile that cannot have any.
		"--component-updater=url-source=http://127.0.0.1:9/", "--gaia-url=http://127.0.0.1:9/",
		"--password-store=basic",
		"--disable-features=SpareRendererForSitePerProcess,Translate,MediaRouter,OptimizationHints,DialMediaRouteProvider,GlobalMediaControls,PrivacySandboxSettings4,NetworkTimeServiceQuerying,OptimizationGuideOnDeviceModel,OptimizationGuideModelExecution,OnDeviceModelPerformanceParams,PreloadTopChromeWebUI,WebUIOmniboxPopup,WebUIOmniboxAimPopup",
		"--disable-gpu", "--in-process-gpu",
		// Nobody would be forked from it: 19 MB for nothing.
		"--no-unsandboxed-zygote",
		"--ozone-platform=x11",
		"--start-maximized", "--hide-crash-restore-bubble",
	}
}

// start starts Chromium with s and returns once its window is there. A running
// one is stopped first. From then on it is kept running.
func (b *browser) start(ctx context.Context, s browserSettings) error {
	b.halt()
	b.settings = s
	if err := waitForSocket(ctx, "/tmp/.X11-unix/X0"); err != nil {
		return err
	}
	if err := b.trust(ctx, s.CAPEM); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.Background())
	b.stop = stop
	b.stopped.Go(func() {
		supervise(run, b.logger, "chromium", func(ctx context.Context) error {
			for _, name := range []string{"SingletonLock", "SingletonSocket", "SingletonCookie"} {
				_ = os.Remove(filepath.Join(profileDir, name))
			}
			if err := freshProfile(); err != nil {
				return err
			}
			argv := slices.Concat([]string{chromium}, chromiumFlags(s), []string{b.currentPage()})
			return personCommand(ctx, b.env, b.logs, argv...).Run()
		})
	})
	return b.waitReady(ctx)
}

// freshProfile makes the profile's directory with our preferences, unless
// Chromium has made it its own already.
func freshProfile() error {
	file := filepath.Join(profileDir, "Default", "Preferences")
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	for _, dir := range []string{filepath.Dir(profileDir), profileDir, filepath.Dir(file)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
		if err := os.Chown(dir, PersonUID, PersonGID); err != nil {
			return fmt.Errorf("profile: %w", err)
		}
	}
	if err := os.WriteFile(file, []byte(preferences), 0o600); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return os.Chown(file, PersonUID, PersonGID)
}

func (b *browser) currentPage() string {
	b.pageMu.Lock()
	defer b.pageMu.Unlock()
	if b.page == "" {
		return emptyPage
	}
	return b.page
}

// halt stops Chromium, if it runs, and returns when it has ended.
func (b *browser) halt() {
	if b.stop != nil {
		b.stop()
		b.stopped.Wait()
		b.stop = nil
	}
}

func (b *browser) running() bool { return b.stop != nil }

// waitReady waits until Chromium shows its page and takes command lines.
func (b *browser) waitReady(ctx context.Context) error {
	title := emptyTitle
	if b.currentPage() != emptyPage {
		title = "" // any window
	}
	if err := waitForWindow(ctx, title, b.virtual); err != nil {
		return err
	}
	conn, err := dialSingleton(ctx)
	if err != nil {
		return fmt.Errorf("Chromium shows a window and takes no command line: %w", err) //nolint:staticcheck // a name
	}
	return conn.Close()
}

// open opens url in a tab of the running Chromium, in the way in which a second
// start of Chromium on the same profile hands over its command line.
func (b *browser) open(ctx context.Context, url string) error {
	b.pageMu.Lock()
	b.page = url
	b.pageMu.Unlock()
	conn, err := dialSingleton(ctx)
	if err != nil {
		return fmt.Errorf("reaching Chromium: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	message := strings.Join([]string{"START", PersonHome, chromium, url}, "\x00")
	if _, err := io.WriteString(conn, message); err != nil {
		return fmt.Errorf("handing the address to Chromium: %w", err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil { //nolint:errcheck // it was dialled as one
		return fmt.Errorf("handing the address to Chromium: %w", err)
	}
	answer := make([]byte, 16)
	n, err := conn.Read(answer)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("waiting for Chromium's answer: %w", err)
	}
	if !bytes.HasPrefix(answer[:n], []byte("ACK")) {
		return fmt.Errorf("Chromium answered %q", answer[:n]) //nolint:staticcheck // a name
	}
	return nil
}

// dialSingleton connects to the socket on which Chromium takes command lines.
func dialSingleton(ctx context.Context) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(profileDir, "SingletonSocket"))
}

// endNetworkService ends the process of a restored Chromium that holds random
// state which the other machines from the same snapshot hold too (that of TLS);
// Chromium starts it anew at once. Pages never run in a process from before: the
// empty page's is not used for any other.
func endNetworkService() {
	for _, pid := range chromiumProcesses("--utility-sub-type=network.mojom.NetworkService") {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// chromiumProcesses lists the processes of Chromium with the argument arg.
func chromiumProcesses(arg string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.HasPrefix(line, []byte(chromium)) {
			continue
		}
		// Chromium's children join their arguments by spaces when they rename themselves.
		if bytes.Contains(bytes.ReplaceAll(line, []byte{0}, []byte{' '}), []byte(arg)) {
			pids = append(pids, pid)
		}
	}
	return pids
}
