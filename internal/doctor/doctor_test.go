package doctor

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite" // to make a database of a newer program

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/server"
	"github.com/anteroom/anteroom/internal/vault"
)

// patient is a configuration that asks nothing of the internet.
func patient(t *testing.T) server.Config {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // an upstream that answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	cfg := server.Defaults()
	cfg.StateDir = filepath.Join(t.TempDir(), "state")
	cfg.ImageDir = t.TempDir()
	cfg.Listen = "127.0.0.1:0"
	cfg.Upstreams = []egress.UpstreamURL{egress.UpstreamURL("http://user:s3cr3t@" + l.Addr().String())}
	cfg.MinFreeMemory = 1
	cfg.Guest = program(t, "#!/bin/sh\necho devel\n")
	cfg.Runsc = program(t, "#!/bin/sh\necho runsc version test\n")
	return cfg
}

func program(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "anteroom-screen"), "", 0o755) // it belongs beside the agent
	return write(t, filepath.Join(dir, "program"), text, 0o755)
}

func write(t *testing.T, path, text string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func examine(t *testing.T, cfg server.Config) map[string]Result {
	t.Helper()
	out := map[string]Result{}
	for _, r := range Examine(t.Context(), cfg) {
		if out[r.Check].Check != "" {
			t.Errorf("two checks are called %q", r.Check)
		}
		out[r.Check] = r
		if (r.Status == OK) != (r.Mend == "") || r.Found == "" || strings.Contains(r.Mend, "\n") {
			t.Errorf("%+v: whatever is wrong has a way to mend it, in one line", r)
		}
		if strings.Contains(r.Found+r.Mend, "s3cr3t") {
			t.Errorf("%s tells a secret", r.Check)
		}
	}
	return out
}

func TestAFreshComputer(t *testing.T) {
	cfg := patient(t)
	got := examine(t, cfg)
	for _, name := range []string{"platform", "kernel", "memory", "runsc", "anteroom-guest", "state directory", "database",
		"root key", "snapshot", "listen", "certificate", "CA files", "provider files", "egress", "programs without proxy"} {
		if got[name].Status != OK {
			t.Errorf("%+v", got[name])
		}
	}
	if r := got["golden image"]; r.Status != Missing || !strings.Contains(r.Mend, "anteroom image build") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(cfg.StateDir); !os.IsNotExist(err) {
		t.Errorf("the examination has made the state directory: %v", err)
	}
}

func TestFaults(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		check  string
		name   string
		spoil  func(t *testing.T, c *server.Config)
		status Status
		found  string
	}{
		{"memory", "too little", func(_ *testing.T, c *server.Config) { c.MinFreeMemory = 1 << 60 }, Missing, "available"},
		{"memory", "just enough", func(_ *testing.T, c *server.Config) {
			_, free, err := meminfo()
			if err != nil {
				t.Fatal(err)
			}
			c.MinFreeMemory = free - 512<<20
		}, Warning, "available"},
		{"runsc", "missing", func(_ *testing.T, c *server.Config) { c.Runsc = "/nonexistent/runsc" }, Missing, "/nonexistent/runsc"},
		{"runsc", "broken", func(t *testing.T, c *server.Config) { c.Runsc = program(t, "#!/bin/sh\nexit 1\n") }, Missing, "exit status 1"},
		{"anteroom-guest", "missing", func(_ *testing.T, c *server.Config) { c.Guest = "/nonexistent/guest" }, Missing, "missing"},
		{"anteroom-guest", "another build", func(t *testing.T, c *server.Config) { c.Guest = program(t, "#!/bin/sh\necho other\n") }, Missing, "another build"},
		{"state directory", "a file", func(t *testing.T, c *server.Config) {
			c.StateDir = write(t, filepath.Join(t.TempDir(), "f"), "", 0o600)
		}, Missing, "not a directory"},
		{"state directory", "open to others", func(t *testing.T, c *server.Config) {
			if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(c.StateDir, 0o755); err != nil {
				t.Fatal(err)
			}
		}, Warning, "0755"},
		{"database", "newer", func(t *testing.T, c *server.Config) { newer(t, *c) }, Missing, "newer version"},
		{"database", "another program's", func(t *testing.T, c *server.Config) {
			write(t, server.DatabaseFile(*c), strings.Repeat("not a database ", 100), 0o600)
		}, Missing, "store"},
		{"root key", "open to others", func(t *testing.T, c *server.Config) {
			if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := server.KeyFileOf(*c)
			if _, err := vault.Open(vault.Config{KeyPath: path, Create: true}); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, 0o444); err != nil {
				t.Fatal(err)
			}
		}, Missing, "chmod 0400"},
		{"snapshot", "not used", func(_ *testing.T, c *server.Config) { c.Cold = true }, Warning, "cold"},
		{"homes", "beside the database", func(*testing.T, *server.Config) {}, Warning, "has no limit of its own"},
		{"listen", "taken", func(_ *testing.T, c *server.Config) { c.Listen = taken.Addr().String() }, Missing, "in use by another program"},
		{"listen", "not ours", func(_ *testing.T, c *server.Config) { c.Listen = "192.0.2.1:80" }, Missing, "192.0.2.1"},
		{"certificate", "missing", func(_ *testing.T, c *server.Config) { c.TLSCert, c.TLSKey = "/nonexistent/c", "/nonexistent/k" }, Missing, "/nonexistent/c"},
		{"certificate", "over", func(t *testing.T, c *server.Config) { c.TLSCert, c.TLSKey = certificate(t, -time.Hour) }, Missing, "over since"},
		{"certificate", "over soon", func(t *testing.T, c *server.Config) { c.TLSCert, c.TLSKey = certificate(t, 48*time.Hour) }, Warning, "good until"},
		{"certificate", "good", func(t *testing.T, c *server.Config) { c.TLSCert, c.TLSKey = certificate(t, 90*24*time.Hour) }, OK, "good until"},
		{"certificate", "with its names", func(t *testing.T, c *server.Config) {
			c.TLSCert, c.TLSKey = certificate(t, 90*24*time.Hour, "a.example", "b.example")
		}, OK, "for a.example, b.example"},
		{"certificate", "for others", func(t *testing.T, c *server.Config) {
			c.TLSCert, c.TLSKey = certificate(t, 90*24*time.Hour, "a.example")
			c.Hosts = []string{"b.example"}
		}, Warning, "not for b.example"},
		{"certificate", "for nobody", func(t *testing.T, c *server.Config) {
			c.TLSCert, c.TLSKey = certificate(t, 90*24*time.Hour, "*.example")
			c.Listen = "0.0.0.0:0"
		}, Missing, "--hosts"},
		{"CA files", "no certificate", func(t *testing.T, c *server.Config) {
			c.CAFiles = []string{write(t, filepath.Join(t.TempDir(), "ca"), "nothing", 0o600)}
		}, Missing, "no certificate"},
		{"provider files", "broken", func(t *testing.T, c *server.Config) {
			c.ProvidersDir = t.TempDir()
			write(t, filepath.Join(c.ProvidersDir, "mine.yaml"), "name: mine\nnonsense: 1\n", 0o600)
		}, Missing, "mine.yaml:2"},
		{"egress", "not there", func(_ *testing.T, c *server.Config) {
			c.Upstreams = []egress.UpstreamURL{egress.UpstreamURL("http://user:s3cr3t@" + closed.Addr().String() + "/")}
		}, Missing, "not reached: " + closed.Addr().String()},
		{"egress", "not an upstream", func(_ *testing.T, c *server.Config) { c.Upstreams = []egress.UpstreamURL{"s3cr3t"} }, Missing, "upstream must be"},
	} {
		t.Run(tt.check+" "+tt.name, func(t *testing.T) {
			cfg := patient(t)
			tt.spoil(t, &cfg)
			r := examine(t, cfg)[tt.check]
			if r.Status != tt.status || !strings.Contains(r.Found+r.Mend, tt.found) {
				t.Errorf("%+v, want %s with %q", r, tt.status, tt.found)
			}
		})
	}
}

func TestShareRoom(t *testing.T) {
	dir := t.TempDir()
	for name, tt := range map[string]struct {
		a, b string
		want bool
	}{
		"the same":         {dir, dir, true},
		"not there yet":    {filepath.Join(dir, "state/homes"), dir, true},
		"two file systems": {"/proc", dir, false},
	} {
		if got, err := shareRoom(tt.a, tt.b); err != nil || got != tt.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestHealthy(t *testing.T) {
	if !Healthy([]Result{{Status: OK}, {Status: Warning}}) || Healthy([]Result{{Status: OK}, {Status: Missing}}) {
		t.Error("only what is missing makes it unhealthy")
	}
}

// A server that runs keeps the port and the database; both are as they should be.
func TestWhileAServerRuns(t *testing.T) {
	cfg := patient(t)
	db, err := server.OpenStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	lock := holdLock(t, cfg)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	cfg.Listen = l.Addr().String()
	got := examine(t, cfg)
	for _, name := range []string{"state directory", "database", "listen"} {
		if got[name].Status != OK {
			t.Errorf("%+v", got[name])
		}
	}
	if !strings.Contains(got["state directory"].Found, "running server") {
		t.Errorf("%+v", got["state directory"])
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, cfg)["listen"]; r.Status != Missing {
		t.Errorf("without a server: %+v", r)
	}
}

func TestAtLeast(t *testing.T) {
	for release, want := range map[string]bool{
		"6.1.0-28-amd64": true, "4.15.0": true, "4.14.300": false, "3.10.0-1160.el7": false, "5": false, "": false, "10.0-rc1": true,
	} {
		if atLeast(release, 4, 15) != want {
			t.Errorf("%q: not %v", release, want)
		}
	}
}

func TestEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := patient(t)
	cfg.Upstreams = []egress.UpstreamURL{egress.Direct}
	if Healthy(Examine(ctx, cfg)) {
		t.Error("what could not be asked is no good news")
	}
}

func newer(t *testing.T, cfg server.Config) {
	t.Helper()
	db, err := server.OpenStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := sql.Open("sqlite", server.DatabaseFile(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec("PRAGMA user_version=9999"); err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
}

// certificate makes one that is over after a time.
func certificate(t *testing.T, left time.Duration, names ...string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(left), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	text := func(kind string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}))
	}
	return write(t, filepath.Join(dir, "cert"), text("CERTIFICATE", der), 0o600), write(t, filepath.Join(dir, "key"), text("PRIVATE KEY", keyDER), 0o600)
}
