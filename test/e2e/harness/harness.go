// Package harness runs the whole of Anteroom for tests, the demo and
// benchmarks: the real `anteroom serve`, started as a process of its own with
// the real golden image and gVisor, in a state directory of its own, with the
// test identity provider as its only way out. Nothing in it is a stand-in.
//
// It needs root, and the programs and the image that `make image` makes. What
// is missing is an error, never a reason to skip.
package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/test/idp"
)

// Environment variables that say where things are.
const (
	EnvBin      = "ANTEROOM_BIN"       // directory of the three programs; default bin/ of this tree
	EnvImageDir = "ANTEROOM_IMAGE_DIR" // of the golden images; default /var/cache/anteroom
)

// proxyUser is the account at the test upstream; its password needs escaping.
const (
	proxyUser     = "anteroom"
	proxyPassword = "p@ss:w/rd"
)

// stateName is the state directory's name in the rig's.
const stateName = "state"

// cleanUpTime limits Close.
const cleanUpTime = 90 * time.Second

// Config says how a rig is made. The zero value is usable.
type Config struct {
	Bin      string   // see EnvBin
	ImageDir string   // see EnvImageDir
	Flags    []string // more flags of anteroom serve
	// Driver makes the machines; default gvisor. StartTime limits the server's
	// start, the snapshot included; default 3 minutes.
	Driver    string
	StartTime time.Duration
	Log       io.Writer // gets the server's log too, beside the file
	// StateBytes, if not 0, puts the state directory on a disk of that size.
	StateBytes int64
	// Sites are further hosts that the machines reach; see idp.Config.
	Sites map[string]http.Handler

	// Address is where the server is reached; default a free port of loopback.
	Address string
	// Start starts the server's program; default its Start.
	Start func(*exec.Cmd) error
	// Listener is the identity provider's, which then wants no credentials, and
	// Upstreams are what the server leaves through, each user through one of
	// them. Default: all through the identity provider, at a free port.
	Listener  net.Listener
	Upstreams []string
}

// Rig is a running Anteroom with its identity provider. Users may be made
// concurrently; what starts, stops or looks at the server is for one goroutine
// at a time.
type Rig struct {
	IDP *idp.Server

	cfg     Config
	dir     string // holds all that follows
	lock    *os.File
	address string // host:port, the same after each restart
	log     *os.File
	server  *process
	db      *sqlite.DB

	mu    sync.Mutex
	users []*User
}

// Start starts the identity provider and the server, and returns once the
// server answers. ctx limits the start and ends the identity provider; Close
// must be called in any case.
func Start(ctx context.Context, cfg Config) (*Rig, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if err := sweepAbandoned(); err != nil {
		return nil, err
	}
	dir, lock, err := newDir()
	if err != nil {
		return nil, err
	}
	r := &Rig{cfg: cfg, dir: dir, lock: lock}
	if err := r.start(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (c *Config) complete() error {
	if os.Geteuid() != 0 {
		return errors.New("harness: these tests make isolated machines: run them as root")
	}
	if c.Bin == "" {
		c.Bin = os.Getenv(EnvBin)
	}
	if c.Bin == "" {
		root, err := Root()
		if err != nil {
			return err
		}
		c.Bin = filepath.Join(root, "bin")
	}
	if c.Driver == "" {
		c.Driver = "gvisor"
	}
	if c.StartTime == 0 {
		c.StartTime = startTime
	}
	if c.ImageDir == "" {
		c.ImageDir = os.Getenv(EnvImageDir)
	}
	if c.ImageDir == "" {
		c.ImageDir = "/var/cache/anteroom"
	}
	for _, name := range []string{"anteroom", "anteroom-guest", "runsc"} {
		if info, err := os.Stat(filepath.Join(c.Bin, name)); err != nil || info.Mode()&0o111 == 0 {
			return fmt.Errorf("harness: there is no program %s in %s: make build makes it (or %s says where it is)", name, c.Bin, EnvBin)
		}
	}
	if _, err := image.Find(image.Config{Dir: c.ImageDir, Guest: filepath.Join(c.Bin, "anteroom-guest")}); err != nil {
		return fmt.Errorf("harness: make image makes what is missing: %w", err)
	}
	return nil
}

// Root is the directory of this module, found from the working directory up.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("harness: %s is in no Go module", dir)
		}
	}
}

func (r *Rig) start(ctx context.Context) error {
	var err error
	provider := idp.Config{Sites: r.cfg.Sites, Listener: r.cfg.Listener}
	if r.cfg.Listener == nil {
		provider.ProxyUsers = map[string]string{proxyUser: proxyPassword}
	}
	if r.IDP, err = idp.Start(ctx, provider); err != nil {
		return err
	}
	upstreams := r.cfg.Upstreams
	if len(upstreams) == 0 {
		upstreams = []string{r.IDP.ProxyURL(proxyUser)}
	}
	for path, content := range map[string]string{
		r.upstreamFile(): strings.Join(upstreams, "\n") + "\n",
		r.caFile():       string(r.IDP.CAPEM()),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("harness: %w", err)
		}
	}
	if r.cfg.StateBytes != 0 {
		if err := mountSmall(r.StateDir(), r.cfg.StateBytes); err != nil {
			return err
		}
	}
	if r.address = r.cfg.Address; r.address == "" {
		if r.address, err = freeAddress(); err != nil {
			return err
		}
	}
	if r.log, err = os.OpenFile(r.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	if err := r.Restart(ctx); err != nil {
		return err
	}
	r.db, err = sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(r.StateDir(), "anteroom.db")})
	return err
}

// freeAddress is a loopback address with a port that nobody uses now.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	return l.Addr().String(), l.Close()
}

// URL is where the server is reached.
func (r *Rig) URL() string { return "http://" + r.address }

// Dir holds all that the rig writes, the state directory included.
func (r *Rig) Dir() string { return r.dir }

// StateDir is the server's state directory.
func (r *Rig) StateDir() string { return filepath.Join(r.dir, stateName) }

// LogFile holds the log of all runs of the server.
func (r *Rig) LogFile() string { return filepath.Join(r.dir, "serve.log") }

func (r *Rig) upstreamFile() string { return filepath.Join(r.dir, "upstream") }
func (r *Rig) caFile() string       { return filepath.Join(r.dir, "ca.pem") }

// Upstream is an HTTP client that leaves through the server's upstream itself,
// with its credentials, and trusts the test CA: what a machine does, without
// the machine. The caller closes its idle connections.
func (r *Rig) Upstream() (*http.Client, error) { return r.IDP.Client(proxyUser) }

// DB is the server's database, opened beside it. It is good until Close.
func (r *Rig) DB() *sqlite.DB { return r.db }

// Close cancels what is under way, destroys every machine by the API, stops the
// server, and returns an error that lists whatever is left of the machines on
// this host. What is left it removes by force. A server that was built with the
// race detector and has found something is an error as well. The rig's directory
// goes too, unless there was an error: then the error names it.
func (r *Rig) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanUpTime)
	defer cancel()
	var err error
	if r.server != nil {
		err = errors.Join(r.retire(ctx), r.Stop(ctx))
	}
	ids := r.machineIDs(ctx)
	if left := Leftovers(r.StateDir(), ids); len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("harness: left behind:\n  %s", strings.Join(left, "\n  ")), sweep(r.StateDir(), ids))
	}
	if r.db != nil {
		err = errors.Join(err, r.db.Close())
	}
	if r.IDP != nil {
		err = errors.Join(err, r.IDP.Close())
	}
	if r.log != nil {
		err = errors.Join(err, r.log.Close(), dataRaces(r.LogFile()))
	}
	if r.cfg.StateBytes != 0 {
		err = errors.Join(err, unmountSmall(r.StateDir()))
	}
	if err == nil {
		err = os.RemoveAll(r.dir)
	} else {
		err = fmt.Errorf("%w\n(kept: %s)", err, r.dir)
	}
	return errors.Join(err, r.lock.Close())
}
