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
	"golang.org/x/sync/errgroup"

	"github.com/anteroom/anteroom/internal/buildinfo"
	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/httpapi"
	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/vault"
)

// shutdownTime is how long requests under way may take when the server stops.
const shutdownTime = 10 * time.Second

// linkTime is how long a sign-in link is good for.
const linkTime = 15 * time.Minute

// ErrNotRoot says who may start a server.
var ErrNotRoot = errors.New("this must be started by root (sudo), since it makes isolated machines")

// ErrLocked says that another server uses the state directory.
var ErrLocked = errors.New("another anteroom server is using this state directory; stop it, or give this one another with --state")

// Run runs a server until ctx ends, and returns when all of it has ended. The
// machines run on, for the next one.
func Run(ctx context.Context, cfg Config) error {
	if err := ready(ctx, cfg); err != nil {
		return err
	}
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	return run(ctx, cfg, purpose{})
}

// purpose is what makes the server of one sign-in (RunConnect) another than
// the one that serves until it is stopped. The zero value is the latter.
type purpose struct {
	deliver deliverer
	// during runs beside the server, which stops when it returns.
	during func(ctx context.Context, db *sqlite.DB, service *control.Service, address net.Addr) error
	// once destroys all machines at the end.
	once bool
}

// ready checks what every server needs before anything is touched.
func ready(ctx context.Context, cfg Config) error {
	if err := cfg.Check(); err != nil {
		return err
	}
	if _, err := cfg.HostNames(); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return ErrNotRoot
	}
	check, program := checkRunsc, cfg.Runsc
	if cfg.Driver == DriverQEMU {
		check, program = checkQEMU, cfg.QEMU
	}
	if err := check(program); err != nil {
		return err
	}
	if err := CheckGuest(ctx, cfg.Guest); err != nil {
		return err
	}
	return vault.Harden()
}

// run runs a server on a state directory that the caller has locked.
func run(ctx context.Context, cfg Config, p purpose) error {
	db, err := OpenStore(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	providers, err := provider.Load(cfg.ProvidersDir)
	if err != nil {
		return err
	}
	cfg.Logger.Info("providers", "loaded", providers)
	golden, err := image.Find(image.Config{Dir: cfg.ImageDir, Guest: cfg.Guest})
	if err != nil {
		return err
	}
	made, err := newService(ctx, cfg, p, db, providers, golden, registry)
	if err != nil {
		return err
	}
	defer made.close()
	service, out := made.service, made.out
	hosts, err := cfg.HostNames()
	if err != nil {
		return err
	}
	gateway, err := newGateway(cfg, registry)
	if err != nil {
		return err
	}
	if gateway != nil {
		defer func() { _ = gateway.Close() }()
		cfg.Logger.Info("screens by WebRTC", "address", gateway.Address().String(), "announced", gateway.Public())
	}
	relay, err := cfg.iceServers(gateway)
	if err != nil {
		return err
	}
	api, err := httpapi.New(httpapi.Config{
		UseCases: service, Outward: out, Auth: db, WebRTC: gateway, IceServers: relay,
		Hosts: hosts, BehindProxy: cfg.BehindProxy, MetricsPublic: cfg.MetricsPublic, Connect: p.once,
		Version: buildinfo.Version(), Registry: registry, Logger: cfg.Logger,
		Ready: func(ctx context.Context) error { return canSignIn(ctx, cfg, made.driver, db, service, golden) },
	})
	if err != nil {
		return err
	}
	return serve(ctx, cfg, p, db, service, out, api)
}

// serve listens and runs HTTP, control and what else there is to do, until ctx
// ends or one of them does.
func serve(ctx context.Context, cfg Config, p purpose, db *sqlite.DB, service *control.Service, out *outward, api *httpapi.Server) error {
	listener, err := net.Listen("tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%s is in use by another program: stop it, or give another address with --listen: %w", cfg.Listen, err)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var group errgroup.Group
	begin := func(f func() error) { group.Go(func() error { defer cancel(); return f() }) }
	web := api.HTTPServer()
	begin(func() error { return service.Run(ctx) })
	begin(func() error { return out.Run(ctx) })
	begin(func() error { return listenAndServe(cfg, web, listener) })
	begin(func() error {
		<-ctx.Done()
		stopping, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer done()
		return errors.Join(api.Shutdown(stopping), web.Shutdown(stopping))
	})
	if p.during != nil {
		begin(func() error { return p.during(ctx, db, service, listener.Addr()) })
	}
	address, link, err := signInLink(ctx, cfg, db, listener.Addr())
	if err != nil {
		cancel()
		return errors.Join(err, group.Wait())
	}
	cfg.Logger.Info("serving", "address", listener.Addr().String(), "version", buildinfo.Version())
	if cfg.Ready != nil {
		cfg.Ready(address, link)
	}
	err = group.Wait()
	cfg.Logger.Info("stopped")
	return err
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

// OpenVault opens the vault, and keeps this process's memory to itself before the
// key is in it. A key is made only while nothing is sealed: a lost key file must
// not be replaced in silence.
func OpenVault(ctx context.Context, cfg Config, db *sqlite.DB) (*vault.Vault, error) {
	if err := vault.Harden(); err != nil {
		return nil, err
	}
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

// signInLink returns the address at which browsers find the server, and makes
// the configured user, if there is none yet, and a one-time link for them.
func signInLink(ctx context.Context, cfg Config, db *sqlite.DB, listen net.Addr) (address, link string, err error) {
	address, err = cfg.BaseURL(listen.String())
	if err != nil || cfg.User == "" {
		return address, "", err
	}
	user, err := db.UserByName(ctx, cfg.User)
	if errors.Is(err, store.ErrNotFound) {
		all, listErr := db.Users(ctx)
		if listErr != nil {
			return "", "", listErr
		}
		if len(all) > 0 {
			return address, "", nil // others have been made: no new one in silence
		}
		user, err = db.CreateUser(ctx, cfg.User)
	}
	if err != nil || cfg.WithoutLink {
		return address, "", err
	}
	link, err = NewLink(ctx, db, user.ID, address)
	return address, link, err
}

// NewLink makes a one-time sign-in link for a user.
func NewLink(ctx context.Context, db *sqlite.DB, userID, baseURL string) (string, error) {
	return newLink(ctx, db, userID, baseURL+"/", time.Now().Add(linkTime))
}

// newLink makes a one-time link that leads a user to a page.
func newLink(ctx context.Context, db *sqlite.DB, userID, page string, expires time.Time) (string, error) {
	secret, hash := store.NewSecret("")
	_, err := db.CreateToken(ctx, store.Token{UserID: userID, Kind: store.TokenLink, Label: "sign-in link", ExpiresAt: expires}, hash)
	if err != nil {
		return "", err
	}
	return page + "#login=" + secret.Reveal(), nil
}

// below is everything below the API.
type below struct {
	service *control.Service
	out     *outward
	driver  string // the name of the one that makes machines
	close   func()
}

// newService makes everything below the API, and what ends it.
func newService(ctx context.Context, cfg Config, p purpose, db *sqlite.DB, providers *provider.Set, golden image.Image, registry *prometheus.Registry) (below, error) {
	sealed, err := OpenVault(ctx, cfg, db)
	if err != nil {
		return below{}, err
	}
	cas, err := ReadCAs(cfg.CAFiles)
	if err != nil {
		return below{}, err
	}
	driver, err := newDrivers(ctx, cfg, golden, guestapi.Warm{CAPEM: cas, Locale: cfg.Locale, Languages: cfg.Languages, Providers: providers.All()})
	if err != nil {
		return below{}, err
	}
	out, err := newOutward(ctx, cfg, db, cas, registry)
	if err != nil {
		return below{}, err
	}
	observer, err := newMetrics(registry, db, cfg.Logger)
	if err != nil {
		return below{}, err
	}
	machines := machine.NewManager(driver, cfg.Logger)
	service, err := control.New(control.Config{
		Database: db, Vault: sealed, Providers: providers, Machines: machines,
		Egress: out.proxy, Ways: out, Logger: cfg.Logger, Deliver: p.deliver,
		StateDir: cfg.StateDir, ImageID: golden.ID, Build: buildinfo.ID(),
		CAPEM: cas, Locale: cfg.Locale, Languages: cfg.Languages,
		// One server at a time holds the state directory, so every lease in it
		// is this one's.
		Owner:       "local",
		SessionTime: cfg.SessionTime, MaxOpenSessions: cfg.MaxSessions, StartsAtOnce: cfg.StartsAtOnce, Observe: observer,
	})
	out.service = service
	return below{service: service, out: out, driver: driver.Name(), close: func() {
		_ = out.proxy.Close()
		closeMachines(ctx, cfg, p, machines, driver)
	}}, err
}

// closeMachines lets go of the machines, or destroys them where they serve
// nothing any more.
func closeMachines(ctx context.Context, cfg Config, p purpose, machines *machine.Manager, driver drivers) {
	if p.once {
		if _, err := machines.Reclaim(context.WithoutCancel(ctx), nil); err != nil {
			cfg.Logger.Error("destroying the machines", "err", err)
		}
	}
	if err := driver.Close(); err != nil {
		cfg.Logger.Error("letting go of the machines", "err", err)
	}
}

// ReadCAs reads the extra certificates and checks that they are some.
func ReadCAs(files []string) (string, error) {
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
