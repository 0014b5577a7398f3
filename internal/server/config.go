// Package server puts the parts of Anteroom together and runs them: what
// `anteroom serve` does, and what tests of the whole start.
package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/steps"
)

// Config is every setting of a server. Each is a flag, an environment variable
// and a YAML key of `anteroom serve`.
type Config struct {
	Listen      string // host:port
	StateDir    string // database, root key, homes of the cli machines, snapshots
	KeyFile     string // of the vault; empty: root.key in StateDir
	TLSCert     string // with TLSKey: serve HTTPS
	TLSKey      string
	ACMEDomain  string   // get a certificate for this name by ACME
	BehindProxy bool     // a reverse proxy of the operator's is in front
	Hosts       []string // names under which the service is reached, beside loopback's; HostNames says what empty means

	Media
	Outward
	CAFiles      []string // extra certificates for the machines, PEM
	ProvidersDir string   // more provider files

	ImageDir         string           // where golden images are kept
	Guest            string           // path of the anteroom-guest program
	Driver           string           // what machines are made with: one of Drivers
	Runsc            string           // path of the runsc program
	QEMU             string           // path of the qemu-system-x86_64 program
	Firecracker      string           // path of the firecracker program
	Jailer           string           // path of its jailer
	FirecrackerUsers firecracker.UIDs // that its machines run as
	Cold             bool             // no snapshot: every machine starts cold

	Locale        string // of the machines, such as en_US
	Languages     string // that Chromium asks pages for, such as en-US,en
	SessionTime   time.Duration
	MaxSessions   int   // that one user may have under way
	MachineMemory int64 // bytes
	MachineCPUs   float64
	// MinFreeMemory is what must be free on the host before a machine is
	// started; bytes.
	MinFreeMemory int64
	StartsAtOnce  int
	WarmMachines  int // kept ready, nobody's; 0: none
	MaxMachines   int // sign-ins that have one at a time; 0: by memory only
	MaxWaiting    int // sign-ins that wait for a place; 0: none
	DebugMachines bool

	MetricsPublic bool
	// User is who gets a sign-in link when the server starts; made if there are
	// no users yet. Empty: nobody.
	User string

	// WithoutLink says that nobody but a log would see the link: the user is made,
	// the link is not.
	WithoutLink bool

	Logger *slog.Logger
	Steps  *steps.Printer
	// Ready is called once requests are answered, with the address at which
	// browsers find the server and a sign-in link, or "". May be nil.
	Ready func(address, link string)
}

// Defaults returns a configuration in which every setting has its default.
func Defaults() Config {
	bin := "."
	if exe, err := os.Executable(); err == nil {
		bin = filepath.Dir(exe)
	}
	return Config{
		Listen:           "127.0.0.1:8080",
		StateDir:         "/var/lib/anteroom",
		ImageDir:         "/var/cache/anteroom",
		Guest:            filepath.Join(bin, "anteroom-guest"),
		Driver:           DriverAuto,
		Runsc:            filepath.Join(bin, "runsc"),
		QEMU:             "/usr/bin/qemu-system-x86_64",
		Firecracker:      "/usr/local/bin/firecracker",
		Jailer:           "/usr/local/bin/jailer",
		FirecrackerUsers: firecracker.DefaultUIDs(),
		Outward:          outwardDefaults(),
		Locale:           "en_US",
		Languages:        "en-US,en",
		SessionTime:      30 * time.Minute,
		MaxSessions:      16,
		MachineMemory:    1536 << 20,
		MachineCPUs:      2,
		MinFreeMemory:    512 << 20,
		StartsAtOnce:     3,
		WarmMachines:     1,
		MaxWaiting:       100,
		User:             "owner",
	}
}

// Check refuses settings that do not fit together.
func (c Config) Check() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q must be host:port: %w", c.Listen, err)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return errors.New("tls-cert and tls-key belong together: give both or neither")
	}
	if c.TLSCert != "" && c.ACMEDomain != "" {
		return errors.New("tls-cert and acme-domain exclude each other: give one of them")
	}
	if !loopback(host) && c.TLSCert == "" && c.ACMEDomain == "" && !c.BehindProxy {
		return fmt.Errorf("listening on %q needs HTTPS: give tls-cert and tls-key, or acme-domain, or behind-proxy if a reverse proxy of yours speaks HTTPS in front; or listen on 127.0.0.1", c.Listen)
	}
	if c.ACMEDomain != "" && loopback(host) {
		return fmt.Errorf("acme-domain: the certificate is given to who answers for %s at port 443, and %q is reached from this computer only: listen on 0.0.0.0:443", c.ACMEDomain, c.Listen)
	}
	if c.BehindProxy && c.ACMEDomain == "" && len(c.Hosts) == 0 {
		return errors.New("behind-proxy needs hosts, the names under which browsers reach the proxy, such as anteroom.example.org: requests for other names are refused")
	}
	if err := c.Media.check(); err != nil {
		return err
	}
	if c.StateDir == "" {
		return errors.New("state: a directory is needed")
	}
	if c.SessionTime < time.Minute || c.SessionTime > 24*time.Hour {
		return fmt.Errorf("session-time: %s is not between 1m and 24h", c.SessionTime)
	}
	if c.MachineMemory < 512<<20 {
		return fmt.Errorf("machine-memory: %d bytes are too few for Chromium: give at least 512 MiB", c.MachineMemory)
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// secure says whether browsers reach the server by HTTPS.
func (c Config) secure() bool { return c.TLSCert != "" || c.ACMEDomain != "" || c.BehindProxy }

func (c Config) keyFile() string {
	if c.KeyFile != "" {
		return c.KeyFile
	}
	return filepath.Join(c.StateDir, "root.key")
}

func (c Config) databaseFile() string { return filepath.Join(c.StateDir, "anteroom.db") }

// DatabaseFile is the path of the database in the state directory.
func DatabaseFile(c Config) string { return c.databaseFile() }

// KeyFileOf is the path of the vault's root key file.
func KeyFileOf(c Config) string { return c.keyFile() }
