package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // in the error; empty: none
	}{
		{"defaults", func(*Config) {}, ""},
		{"IPv6 loopback", func(c *Config) { c.Listen = "[::1]:8080" }, ""},
		{"localhost", func(c *Config) { c.Listen = "localhost:8080" }, ""},
		{"no port", func(c *Config) { c.Listen = "127.0.0.1" }, "must be host:port"},
		{"elsewhere", func(c *Config) { c.Listen = "0.0.0.0:8080" }, "needs HTTPS"},
		{"everywhere", func(c *Config) { c.Listen = ":8080" }, "needs HTTPS"},
		{"a name", func(c *Config) { c.Listen = "anteroom.example:8080" }, "needs HTTPS"},
		{"elsewhere behind a proxy", func(c *Config) { c.Listen, c.BehindProxy, c.Hosts = ":8080", true, []string{"a.example"} }, ""},
		{"behind a proxy without a name", func(c *Config) { c.BehindProxy = true }, "behind-proxy needs hosts"},
		{"elsewhere with a certificate", func(c *Config) { c.Listen, c.TLSCert, c.TLSKey = ":443", "c", "k" }, ""},
		{"elsewhere with ACME", func(c *Config) { c.Listen, c.ACMEDomain = ":443", "anteroom.example" }, ""},
		{"ACME for nobody else", func(c *Config) { c.ACMEDomain = "anteroom.example" }, "listen on 0.0.0.0:443"},
		{"certificate without key", func(c *Config) { c.TLSCert = "c" }, "belong together"},
		{"two certificates", func(c *Config) { c.TLSCert, c.TLSKey, c.ACMEDomain = "c", "k", "a.example" }, "exclude each other"},
		{"media elsewhere", func(c *Config) {
			c.MediaAddress, c.MediaPublic = "0.0.0.0:9000", []string{"203.0.113.7", "[2001:db8::1]:9001"}
		}, ""},
		{"no media", func(c *Config) { c.MediaAddress = "off" }, ""},
		{"no media and its address", func(c *Config) { c.MediaAddress, c.MediaPublic = "off", []string{"203.0.113.7"} }, "media-address is off"},
		{"media without port", func(c *Config) { c.MediaAddress = "127.0.0.1" }, "must be host:port"},
		{"media by name", func(c *Config) { c.MediaAddress = "media.example:1" }, "must have an IP address"},
		{"public by name", func(c *Config) { c.MediaPublic = []string{"media.example"} }, "browsers take no names"},
		{"public nowhere", func(c *Config) { c.MediaPublic = []string{"0.0.0.0"} }, "not an address that a browser can reach"},
		{"TURN without secret", func(c *Config) { c.TurnURLs = []string{"turn:a.example:3478"} }, "belong together"},
		{"TURN of another form", func(c *Config) { c.TurnURLs, c.TurnSecretFile = []string{"https://a.example"}, "/nowhere" }, "looks like turn:"},
		{"TURN without its file", func(c *Config) { c.TurnURLs, c.TurnSecretFile = []string{"turn:a.example:3478"}, "/nowhere" }, "no such file"},
		{"two TURN servers", func(c *Config) { c.TurnURLs, c.TurnListen = []string{"turn:a.example:3478"}, "127.0.0.1:1" }, "give one of them"},
		{"TURN of its own, nowhere", func(c *Config) { c.TurnListen = "x" }, "must be host:port"},
		{"no state", func(c *Config) { c.StateDir = "" }, "state"},
		{"no time", func(c *Config) { c.SessionTime = time.Second }, "between 1m and 24h"},
		{"too long", func(c *Config) { c.SessionTime = 25 * time.Hour }, "between 1m and 24h"},
		{"too little memory", func(c *Config) { c.MachineMemory = 1 << 20 }, "at least 512 MiB"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Defaults()
			tt.change(&c)
			err := c.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestHostNames(t *testing.T) {
	named := certificate(t, "A.example", "*.example.org", "192.0.2.7", "2001:db8::7")
	nameless := certificate(t, "*.example.org")
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   string // the names
		fails  string // in the error
	}{
		{"loopback only", func(*Config) {}, "", ""},
		{"configured", func(c *Config) { c.Hosts = []string{"a.example"} }, "a.example", ""},
		{"ACME", func(c *Config) { c.ACMEDomain, c.Hosts = "a.example", []string{"b.example"} }, "a.example b.example", ""},
		{"from the certificate", func(c *Config) { c.Listen, c.TLSCert = ":443", named }, "a.example 192.0.2.7", ""},
		{"before the certificate's", func(c *Config) { c.Listen, c.TLSCert, c.Hosts = ":443", named, []string{"b.example"} }, "b.example", ""},
		{"the proxy's, not the certificate's", func(c *Config) {
			c.Listen, c.TLSCert, c.BehindProxy, c.Hosts = ":443", named, true, []string{"b.example"}
		}, "b.example", ""},
		{"a certificate for anything", func(c *Config) { c.Listen, c.TLSCert = ":443", nameless }, "", "give hosts"},
		{"one on loopback", func(c *Config) { c.TLSCert = nameless }, "", ""},
		{"no file", func(c *Config) { c.TLSCert = nameless + ".gone" }, "", "tls-cert: open"},
		{"no certificate", func(c *Config) { c.TLSCert = "config_test.go" }, "", "PEM"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := Defaults()
			tt.change(&c)
			got, err := c.HostNames()
			if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("%v, want %q", err, tt.fails)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// certificate makes a file with a certificate for names and addresses.
func certificate(t *testing.T, names ...string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cert.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "PARAMETERS", Bytes: []byte("before it")})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAddresses(t *testing.T) {
	names := []string{"a.example", "b.example"}
	for _, tt := range []struct {
		name        string
		c           Config
		base, local string
	}{
		{"loopback", Config{Listen: "127.0.0.1:8080"}, "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"IPv6 loopback", Config{Listen: "[::1]:8080"}, "http://[::1]:8080", "http://[::1]:8080"},
		{"names without HTTPS", Config{Listen: "127.0.0.1:8080", Hosts: names}, "http://127.0.0.1:8080", "http://127.0.0.1:8080"},
		{"certificate", Config{Listen: "0.0.0.0:8443", TLSCert: "c", Hosts: names}, "https://a.example:8443", "https://a.example:8443"},
		{"at the usual port", Config{Listen: "[::]:443", TLSCert: "c", Hosts: names}, "https://a.example", "https://a.example"},
		{"of which the name is taken", Config{Listen: ":8443", TLSCert: certificate(t, "c.example")}, "https://c.example:8443", "https://c.example:8443"},
		{"on loopback without a name", Config{Listen: "[::1]:8443", TLSCert: certificate(t)}, "https://[::1]:8443", "https://[::1]:8443"},
		{"ACME", Config{Listen: "0.0.0.0:443", ACMEDomain: "d.example", Hosts: names}, "https://d.example", "https://d.example"},
		{"ACME behind another port", Config{Listen: ":8443", ACMEDomain: "d.example"}, "https://d.example", "https://d.example"},
		{"proxy", Config{Listen: "127.0.0.1:8080", BehindProxy: true, Hosts: names}, "https://a.example", "http://127.0.0.1:8080"},
		{"proxy elsewhere", Config{Listen: "[::]:8080", BehindProxy: true, Hosts: names}, "https://a.example", "http://127.0.0.1:8080"},
		{"proxy of one address", Config{Listen: "192.0.2.7:8080", BehindProxy: true, Hosts: names}, "https://a.example", "https://a.example"},
		{"proxy that is spoken to by HTTPS", Config{Listen: ":8443", TLSCert: "c", BehindProxy: true, Hosts: names}, "https://a.example", "https://a.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := tt.c.BaseURL(tt.c.Listen); err != nil || got != tt.base {
				t.Errorf("for browsers: %q, %v, want %q", got, err, tt.base)
			}
			if got, err := tt.c.LocalURL(); err != nil || got != tt.local {
				t.Errorf("from here: %q, %v, want %q", got, err, tt.local)
			}
		})
	}
}
