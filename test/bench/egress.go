package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/test/network"
)

const (
	// A public address, since the egress connects to no other. It is the sites'
	// in the namespaces made here and leaves them nowhere.
	egressSite   = "93.184.216.34"
	egressTarget = egressSite + ":443"
	egressBlock  = 1 << 20
	egressSmall  = 200
	idleTunnels  = 1000
	loadTime     = 2 * time.Second
	loadRounds   = 3 // each contender in turn, so that a busy moment meets all
)

// contender is a proxy on the way from the clients to the site.
type contender struct {
	name  string
	addr  string                              // in the namespace of the proxies
	start func(dir string) (*exec.Cmd, error) // nil: no proxy at all
	cmd   *exec.Cmd
}

func contenders() []*contender {
	return []*contender{
		{name: "no proxy"},
		{name: "Anteroom", addr: "127.0.0.1:3101", start: startEgressProxy},
		{name: "tinyproxy", addr: "127.0.0.1:3102", start: startTinyproxy},
		{name: "squid", addr: "127.0.0.1:3103", start: startSquid},
	}
}

// startEgressProxy starts this program again as what stands between a machine
// and the internet: the agent's port, lines, the egress.
func startEgressProxy(string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(self, egressProxyCommand, "127.0.0.1:3101"), nil
}

func startTinyproxy(dir string) (*exec.Cmd, error) {
	conf := filepath.Join(dir, "tinyproxy.conf")
	text := "Port 3102\nListen 127.0.0.1\nTimeout 600\nMaxClients 2000\nLogLevel Critical\nLogFile \"/dev/null\"\nConnectPort 443\n"
	return exec.Command("tinyproxy", "-d", "-c", conf), os.WriteFile(conf, []byte(text), 0o644)
}

func startSquid(dir string) (*exec.Cmd, error) {
	conf := filepath.Join(dir, "squid.conf")
	text := "http_port 127.0.0.1:3103\nhttp_access allow all\ncache deny all\naccess_log none\ncache_log /dev/null\ncache_store_log none\n" +
		"pid_filename none\nlogfile_rotate 0\nshutdown_lifetime 0 seconds\npinger_enable off\nmax_filedescriptors 8192\ncoredump_dir " + dir + "\n"
	return exec.Command("squid", "-N", "-f", conf), os.WriteFile(conf, []byte(text), 0o644)
}

// load is what a contender did with a number of connections.
type load struct {
	perSecond []float64 // bytes, by round
	request   []time.Duration
}

// egressReport is what is told of the egress path.
type egressReport struct {
	names  []string
	counts []int
	loads  map[string]map[int]*load // by contender and connections
	idle   map[string]float64       // bytes of memory for idleTunnels
	gate   measure
}

// egressPath measures the way from a machine's end of the line to the internet
// beside other proxies.
func (b *bench) egressPath(ctx context.Context, _ *subject) (err error) {
	w, err := network.NewWorld()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := addSite(w); err != nil {
		return err
	}
	site, err := serveSite(w)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, site.Close()) }()
	dir, err := os.MkdirTemp("", "anteroom-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o777); err != nil { // squid becomes another user
		return err
	}
	out := &egressReport{counts: []int{1, 10, 200}, loads: map[string]map[int]*load{}, idle: map[string]float64{}}
	var all []*contender
	for _, c := range contenders() {
		if err := c.run(ctx, w.Proxies, dir); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		defer c.stop()
		out.names = append(out.names, c.name)
		out.loads[c.name] = map[int]*load{}
		all = append(all, c)
	}
	for _, n := range out.counts {
		for range loadRounds {
			for _, c := range all {
				if err := out.take(ctx, w.Proxies, c, n); err != nil {
					return fmt.Errorf("%s, %d connections: %w", c.name, n, err)
				}
			}
		}
	}
	for _, c := range all[1:] {
		if out.idle[c.name], err = c.idleMemory(ctx, w.Proxies); err != nil {
			return fmt.Errorf("%s, idle tunnels: %w", c.name, err)
		}
	}
	if err := out.openGates(ctx); err != nil {
		return err
	}
	b.report.egress = out
	return nil
}

// addSite gives the sites a public address, which the proxies find there.
func addSite(w *network.World) error {
	for _, step := range []struct {
		in   *network.Namespace
		args []string
	}{
		{w.Sites, []string{"address", "add", egressSite + "/32", "dev", "site"}},
		{w.Proxies, []string{"link", "set", "lo", "up"}},
		{w.Proxies, []string{"route", "add", egressSite + "/32", "dev", "exit"}},
	} {
		err := step.in.Do(func() error {
			if out, err := exec.Command("ip", step.args...).CombinedOutput(); err != nil && !strings.Contains(string(out), "File exists") {
				return fmt.Errorf("ip %s: %w: %s", strings.Join(step.args, " "), err, out)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// serveSite serves a large and a small page in the namespace of the sites.
func serveSite(w *network.World) (*http.Server, error) {
	l, err := w.Sites.Listen(egressTarget)
	if err != nil {
		return nil, err
	}
	big, small := make([]byte, egressBlock), make([]byte, egressSmall)
	mux := http.NewServeMux()
	for path, body := range map[string][]byte{"/big": big, "/small": small} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			_, _ = w.Write(body)
		})
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	return s, nil
}

// run starts the contender and waits until it connects somebody.
func (c *contender) run(ctx context.Context, in *network.Namespace, dir string) error {
	if c.start == nil {
		return nil
	}
	var err error
	if c.cmd, err = c.start(dir); err != nil {
		return err
	}
	var said strings.Builder
	c.cmd.Stdout, c.cmd.Stderr = &said, &said
	if err := in.Do(c.cmd.Start); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		t, err := c.dial(ctx, in)
		if err == nil {
			return t.Close()
		}
		select {
		case <-ctx.Done():
			c.stop()
			return fmt.Errorf("it does not answer: %w: %s", err, said.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *contender) stop() {
	if c.cmd != nil && c.cmd.Process != nil {
		_ = c.cmd.Process.Kill()
		_ = c.cmd.Wait()
	}
}

// tunnel is one connection to the site.
type tunnel struct {
	net.Conn
	br *bufio.Reader
}

// dial connects to the site, through the contender if it is a proxy.
func (c *contender) dial(ctx context.Context, in *network.Namespace) (*tunnel, error) {
	to := egressTarget
	if c.addr != "" {
		to = c.addr
	}
	conn, err := in.Dial(ctx, nil, to)
	if err != nil {
		return nil, err
	}
	t := &tunnel{conn, bufio.NewReaderSize(conn, 64<<10)}
	if c.addr == "" {
		return t, nil
	}
	if err := t.connect(); err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connecting through it: %w", err)
	}
	return t, nil
}

// connect asks a proxy for the site.
func (t *tunnel) connect() error {
	if _, err := fmt.Fprintf(t, "CONNECT %[1]s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", egressTarget); err != nil {
		return err
	}
	resp, err := http.ReadResponse(t.br, &http.Request{Method: http.MethodConnect})
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answered %s (%s)", resp.Status, resp.Header.Get(egress.Header))
	}
	return err
}

// get asks for a page and returns how long its body was.
func (t *tunnel) get(path string) (int64, error) {
	if _, err := io.WriteString(t, "GET "+path+" HTTP/1.1\r\nHost: "+egressSite+"\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(t.br, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	return io.Copy(io.Discard, resp.Body)
}

// take has n connections load pages for a while, then ask for small ones.
func (r *egressReport) take(ctx context.Context, in *network.Namespace, c *contender, n int) error {
	tunnels := make([]*tunnel, n)
	for i := range tunnels {
		t, err := c.dial(ctx, in)
		if err != nil {
			return err
		}
		defer func() { _ = t.Close() }()
		tunnels[i] = t
	}
	l := r.loads[c.name][n]
	if l == nil {
		l = &load{}
		r.loads[c.name][n] = l
	}
	bytes, _, err := together(tunnels, "/big")
	if err != nil {
		return err
	}
	l.perSecond = append(l.perSecond, float64(bytes)/loadTime.Seconds())
	_, took, err := together(tunnels, "/small")
	l.request = append(l.request, took...)
	return err
}

// together asks for a page on all tunnels again and again, for loadTime. It
// returns the bytes that came and how long each request took.
func together(tunnels []*tunnel, path string) (bytes int64, took []time.Duration, err error) {
	var mu sync.Mutex
	var work sync.WaitGroup
	end := time.Now().Add(loadTime)
	for _, t := range tunnels {
		work.Go(func() {
			var mine int64
			var times []time.Duration
			var failed error
			for time.Now().Before(end) && failed == nil {
				began := time.Now()
				var n int64
				n, failed = t.get(path)
				mine += n
				times = append(times, time.Since(began))
			}
			mu.Lock()
			defer mu.Unlock()
			bytes += mine
			took = append(took, times...)
			err = errors.Join(err, failed)
		})
	}
	work.Wait()
	return bytes, took, err
}

// idleMemory is how much more memory the contender's processes have with
// idleTunnels than without.
func (c *contender) idleMemory(ctx context.Context, in *network.Namespace) (float64, error) {
	before, err := pssOf(c.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	for range idleTunnels {
		t, err := c.dial(ctx, in)
		if err != nil {
			return 0, err
		}
		defer func() { _ = t.Close() }()
	}
	after, err := pssOf(c.cmd.Process.Pid)
	return after - before, err
}

// pssOf is the proportional memory of a process, in bytes.
func pssOf(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("process %d tells no Pss", pid)
}
