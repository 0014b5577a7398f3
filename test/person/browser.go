// Package person is a person at a browser, for tests, the demo and benchmarks:
// it drives a real headless Chromium through Anteroom's real page, by mouse and
// keyboard only. What stands on the remote screen it knows from the pixels of
// the viewer's canvas alone.
//
// Every wait ends with its ctx; the error then tells what was waited for and
// what the page showed instead.
package person

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/target"
	"github.com/chromedp/chromedp"
)

// Config says how the browser is started. The zero value is usable.
type Config struct {
	// Chromium is the program; default /usr/bin/chromium.
	Chromium string
	// Within, if not empty, is a command that runs the command behind it: where
	// Chromium is to run.
	Within []string
	// Width and Height of the page in CSS pixels; default 1280 and 900.
	Width, Height int64
}

// Browser is one Chromium process. Each person who signs in gets a profile of
// their own in it. Its methods may be called concurrently.
type Browser struct {
	cfg     Config
	root    context.Context // of chromedp: its own first tab
	profile string

	mu     sync.Mutex
	closed bool
	pages  map[*Page]struct{}
	end    context.CancelFunc
}

// Open starts Chromium. It ends at Close, which must be called, or with ctx.
func Open(ctx context.Context, cfg Config) (*Browser, error) {
	if cfg.Chromium == "" {
		cfg.Chromium = "/usr/bin/chromium"
	}
	if cfg.Width == 0 || cfg.Height == 0 {
		cfg.Width, cfg.Height = 1280, 900
	}
	profile, err := os.MkdirTemp("", "anteroom-person-")
	if err != nil {
		return nil, fmt.Errorf("person: make a profile: %w", err)
	}
	alloc, endAlloc := chromedp.NewExecAllocator(ctx, flags(cfg, profile)...)
	root, endRoot := chromedp.NewContext(alloc)
	b := &Browser{cfg: cfg, root: root, profile: profile, pages: make(map[*Page]struct{})}
	b.end = func() { endRoot(); endAlloc() }
	if err := chromedp.Do(root); err != nil {
		b.end()
		return nil, errors.Join(fmt.Errorf("person: start %s: %w", cfg.Chromium, err), os.RemoveAll(profile))
	}
	return b, nil
}

// flags keep Chromium from connecting to anything of its own accord, and keep
// pages that are not in front as quick as the one that is.
func flags(cfg Config, profile string) []chromedp.ExecAllocatorOption {
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(cfg.Chromium), chromedp.UserDataDir(profile),
		chromedp.Headless, chromedp.NoSandbox, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WindowSize(int(cfg.Width), int(cfg.Height)),
		chromedp.Flag("disable-features", "Translate,MediaRouter,OptimizationHints"),
	}
	if len(cfg.Within) > 0 {
		options = append(options, chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { within(cmd, cfg.Within) }))
	}
	for _, name := range []string{
		"disable-gpu", "disable-quic", "disable-background-networking", "disable-component-update",
		"disable-sync", "disable-extensions", "disable-dev-shm-usage", "disable-background-timer-throttling",
		"disable-backgrounding-occluded-windows", "disable-renderer-backgrounding", "disable-ipc-flooding-protection",
	} {
		options = append(options, chromedp.Flag(name, true))
	}
	// Chromium leaves directories where temporary files are: they go with the profile.
	return append(options, chromedp.Flag("lang", "en-US"), chromedp.Env("TMPDIR="+profile))
}

// within puts words before a command; which ends with this program.
func within(cmd *exec.Cmd, words []string) {
	cmd.Args = slices.Concat(words, []string{cmd.Path}, cmd.Args[1:])
	cmd.Path, cmd.Err = exec.LookPath(words[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// Close ends Chromium with all its pages and removes its profile. Idempotent.
func (b *Browser) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	pages := b.pages
	b.pages = nil
	b.mu.Unlock()
	for p := range pages {
		p.end()
	}
	b.end()
	return os.RemoveAll(b.profile)
}

// SignIn opens a sign-in link as a new person, with a profile that no other
// person shares, and returns their page once it shows the connections.
func (b *Browser) SignIn(ctx context.Context, link string) (*Page, error) {
	u, err := url.Parse(link)
	if err != nil || u.Host == "" {
		return nil, errors.New("person: that is no sign-in link")
	}
	p, err := b.open(ctx, u, chromedp.WithNewBrowserContext())
	if err != nil {
		return nil, err
	}
	if err := p.visit(ctx, link); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// open makes a tab.
func (b *Browser) open(ctx context.Context, origin *url.URL, option chromedp.ContextOption) (*Page, error) {
	p := &Page{browser: b, origin: origin.Scheme + "://" + origin.Host}
	tab, end := chromedp.NewContext(b.root, option, chromedp.WithListener(p.listen))
	p.tab, p.end = tab, end
	// The tab lives as long as the context of its first action: not the caller's.
	made := make(chan error, 1)
	go func() { made <- chromedp.Do(tab, chromedp.EmulateViewport(b.cfg.Width, b.cfg.Height)) }()
	var err error
	select {
	case err = <-made:
	case <-ctx.Done():
		end()
		<-made
		return nil, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil && b.closed {
		err = errors.New("the browser is closed")
	}
	if err != nil {
		go end() // it waits for the browser
		return nil, fmt.Errorf("person: open a tab: %w", err)
	}
	b.pages[p] = struct{}{}
	return p, nil
}

// NewTab opens one more tab of the same person, at the page's front.
func (p *Page) NewTab(ctx context.Context) (*Page, error) {
	u, err := url.Parse(p.origin)
	if err != nil {
		return nil, err
	}
	profile := chromedp.FromContext(p.tab).BrowserContextID
	n, err := p.browser.open(ctx, u, chromedp.WithExistingBrowserContext(profile))
	if err != nil {
		return nil, err
	}
	if err := n.Home(ctx); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// Close closes the tab, and the profile with its first tab. Idempotent.
func (p *Page) Close() error {
	p.browser.mu.Lock()
	_, open := p.browser.pages[p]
	delete(p.browser.pages, p)
	p.browser.mu.Unlock()
	if open {
		p.end()
	}
	return nil
}

// front brings the tab before the others of its window, as a person does who
// wants to type into it.
func (p *Page) front() chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, p.chromium(), target.ActivateTarget, target.ActivateTargetParams{TargetID: t.TargetID})
		return err
	})
}

func (p *Page) chromium() *chromedp.Browser { return chromedp.FromContext(p.tab).Browser }
