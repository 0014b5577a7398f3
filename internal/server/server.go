package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/crypto/acme/autocert"

	"github.com/anteroom/anteroom/internal/buildinfo"
	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/httpapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/gvisor"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/vault"
)

// shutdownTime is how long requests under way may take when the server stops.
const shutdownTime = 10 * time.Second

// linkTime is how long a sign-in link is good for.
const linkTime = 15 * time.Minute

// ErrLocked says that another server uses the state directory.
var ErrLocked = errors.New("another anteroom server is using this state directory; stop it, or give this one another with --state")

// Run runs a server until ctx ends, and returns when all of it has ended. The
// machines run on, for the next one.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("anteroom serve must be started by root: it makes isolated machines")
	}
	if err := vault.Harden(); err != nil {
		return err
	}
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	db, err := OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	service, closeService, err := newService(ctx, cfg, db, registry)
	if err != nil {
		return err
	}
	defer closeService()
	api, err := httpapi.New(httpapi.Config{
		UseCases: service, Auth: db,
		Hosts: cfg.hosts(), BehindProxy: cfg.BehindProxy, MetricsPublic: cfg.MetricsPublic,
		Version: buildinfo.Version(), Registry: registry, Logger: cfg.Logger,
		Ready: func(ctx context.Context) error { _, err := db.Stats(ctx); return err },
	})
	if err != nil {
		return err
	}
	return serve(ctx, cfg, db, service, api)
}

func (c Config) hosts() []string {
	if c.ACMEDomain != "" {
		return append([]string{c.ACMEDomain}, c.Hosts...)
	}
	return c.Hosts
}

// serve listens and runs HTTP and control until ctx ends or one of them does.
func serve(ctx context.Context, cfg Config, db *sqlite.DB, service *control.Service, api *httpapi.Server) error {
	listener, err := net.Listen("tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: stop it, or give another address with --listen: %w", cfg.Listen, err)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- service.Run(ctx) }()
	web := api.HTTPServer()
	go func() { ended <- listenAndServe(cfg, web, listener) }()

	link, err := signInLink(ctx, cfg, db, listener.Addr())
	if err == nil {
		cfg.Logger.Info("serving", "address", listener.Addr().String(), "version", buildinfo.Version())
		if cfg.Ready != nil {
			cfg.Ready(listener.Addr(), link)
		}
		select {
		case <-ctx.Done():
		case err = <-ended:
			ended <- nil // its place, for the two receives below
		}
	}
	stopping, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer done()
	err = errors.Join(err, api.Shutdown(stopping), web.Shutdown(stopping))
	cancel()
	return errors.Join(err, <-ended, <-ended)
}

func listenAndServe(cfg Config, web *http.Server, l net.Listener) error {
	var err error
	switch {
	case cfg.ACMEDomain != "":
		manager := &autocert.Manager{
			Prompt: autocert.AcceptTOS, HostPolicy: autocert.HostWhitelist(cfg.ACMEDomain),
			Cache: autocert.DirCache(filepath.Join(cfg.StateDir, "acme")),
		}
		web.TLSConfig = manager.TLSConfig()
		err = web.ServeTLS(l, "", "")
	case cfg.TLSCert != "":
		err = web.ServeTLS(l, cfg.TLSCert, cfg.TLSKey)
	default:
		err = web.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// OpenStore opens the state directory's database, making both at first use.
func OpenStore(ctx context.Context, cfg Config) (*sqlite.DB, error) {
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	db, err := sqlite.Open(ctx, sqlite.Config{Path: cfg.databaseFile(), Logger: cfg.Logger})
	if errors.Is(err, store.ErrNewerSchema) {
		return nil, fmt.Errorf("%s: %w: install that version or a newer one, or give another directory with --state; nothing was changed", cfg.StateDir, err)
	}
	return db, err
}

// OpenVault opens the vault. A key is made only while nothing is sealed: a lost
// key file must not be replaced in silence.
func OpenVault(ctx context.Context, cfg Config, db *sqlite.DB) (*vault.Vault, error) {
	stats, err := db.Stats(ctx)
	if err != nil {
		return nil, err
	}
	sealed := int64(0)
	for _, n := range stats.Active {
		sealed += n
	}
	return vault.Open(vault.Config{KeyPath: cfg.keyFile(), Create: sealed == 0})
}

func lockState(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("locking the state directory: %w", err)
	}
	return func() { _ = f.Close() }, nil
}

// signInLink makes a one-time link for the configured user.
func signInLink(ctx context.Context, cfg Config, db *sqlite.DB, address net.Addr) (string, error) {
	if cfg.User == "" {
		return "", nil
	}
	user, err := db.UserByName(ctx, cfg.User)
	if errors.Is(err, store.ErrNotFound) {
		all, listErr := db.Users(ctx)
		if listErr != nil {
			return "", listErr
		}
		if len(all) > 0 {
			return "", nil // others have been made: no new one in silence
		}
		user, err = db.CreateUser(ctx, cfg.User)
	}
	if err != nil {
		return "", err
	}
	return NewLink(ctx, db, user.ID, cfg.BaseURL(address.String()))
}

// NewLink makes a one-time sign-in link for a user.
func NewLink(ctx context.Context, db *sqlite.DB, userID, baseURL string) (string, error) {
	secret, hash := store.NewSecret("")
	_, err := db.CreateToken(ctx, store.Token{UserID: userID, Kind: store.TokenLink, Label: "sign-in link", ExpiresAt: time.Now().Add(linkTime)}, hash)
	if err != nil {
		return "", err
	}
	return baseURL + "/#login=" + secret.Reveal(), nil
}

// BaseURL is the address at which a person's browser finds the server.
func (c Config) BaseURL(listen string) string {
	scheme := "http"
	if c.secure() {
		scheme = "https"
	}
	if hosts := c.hosts(); len(hosts) > 0 {
		return scheme + "://" + hosts[0]
	}
	return scheme + "://" + listen
}

// newService makes everything below the API.
func newService(ctx context.Context, cfg Config, db *sqlite.DB, registry *prometheus.Registry) (*control.Service, func(), error) {
	sealed, err := OpenVault(ctx, cfg, db)
	if err != nil {
		return nil, nil, err
	}
	providers, err := provider.Load(cfg.ProvidersDir)
	if err != nil {
		return nil, nil, err
	}
	cfg.Logger.Info("providers", "loaded", providers)
	golden, err := image.Find(image.Config{Dir: cfg.ImageDir, Guest: cfg.Guest})
	if err != nil {
		return nil, nil, err
	}
	cas, err := readCAs(cfg.CAFiles)
	if err != nil {
		return nil, nil, err
	}
	driver, err := newDriver(ctx, cfg, golden, guestapi.Warm{CAPEM: cas, Locale: cfg.Locale, Languages: cfg.Languages, Providers: providers.All()})
	if err != nil {
		return nil, nil, err
	}
	way, err := egress.New(egress.Config{Upstreams: cfg.Upstreams, Logger: cfg.Logger, Registerer: registry})
	if err != nil {
		return nil, nil, err
	}
	observer, err := newMetrics(registry, db, cfg.Logger)
	if err != nil {
		return nil, nil, err
	}
	service, err := control.New(control.Config{
		Database: db, Vault: sealed, Providers: providers,
		Machines: machine.NewManager(driver, cfg.Logger),
		Egress:   egressOf{way}, Logger: cfg.Logger,
		StateDir: cfg.StateDir, ImageID: golden.ID, Build: buildinfo.ID(),
		CAPEM: cas, Locale: cfg.Locale, Languages: cfg.Languages,
		// One server at a time holds the state directory, so every lease in it
		// is this one's.
		Owner:       "local",
		SessionTime: cfg.SessionTime, StartsAtOnce: cfg.StartsAtOnce, Observe: observer,
	})
	return service, func() { _ = way.Close() }, err
}

// egressOf gives the control package's plain arguments the egress's type.
type egressOf struct{ *egress.Proxy }

func (e egressOf) Serve(ctx context.Context, userID, machineID, sessionID string, streams net.Listener) error {
	return e.Proxy.Serve(ctx, egress.Identity{UserID: userID, MachineID: machineID, SessionID: sessionID}, streams)
}

// newDriver makes the driver, and the snapshot from which its browser machines
// are restored. Without a snapshot machines start cold, and the log says so.
func newDriver(ctx context.Context, cfg Config, golden image.Image, warm guestapi.Warm) (*gvisor.Driver, error) {
	driver, err := gvisor.New(gvisor.Config{
		Runsc: cfg.Runsc, Image: golden.Path, ImageID: golden.ID,
		StateDir: filepath.Join(cfg.StateDir, "gvisor"), Logger: cfg.Logger,
		MemoryBytes: cfg.MachineMemory, CPUs: cfg.MachineCPUs,
		MinFreeMemory: cfg.MinFreeMemory, Cold: cfg.Cold, Debug: cfg.DebugMachines,
	})
	if err != nil {
		return nil, err
	}
	if enforced, why := driver.Limits(); !enforced {
		cfg.Logger.Warn("machines' memory and CPU are not limited", "why", why)
	}
	if cfg.Cold {
		return driver, nil
	}
	if err := saveSnapshot(ctx, cfg, driver, warm); err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		cfg.Logger.Warn("no snapshot: machines start cold, which takes seconds longer", "err", err)
	}
	return driver, nil
}

// readCAs reads the extra certificates.
func readCAs(files []string) (string, error) {
	var all []byte
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("ca-files: %w", err)
		}
		if err := checkPEM(b); err != nil {
			return "", fmt.Errorf("ca-files: %s: %w", file, err)
		}
		all = append(append(all, b...), '\n')
	}
	return string(all), nil
}
