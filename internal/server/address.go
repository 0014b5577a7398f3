package server

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

// HostNames are the names under which browsers reach the server, beside those
// of loopback: the domain of its ACME certificate and the configured ones; where
// there are none, those that the certificate in TLSCert is for. It fails where
// that cannot be read, or names nothing that a browser elsewhere could ask for.
func (c Config) HostNames() ([]string, error) {
	if c.ACMEDomain != "" {
		return append([]string{c.ACMEDomain}, c.Hosts...), nil
	}
	if len(c.Hosts) > 0 || c.TLSCert == "" || c.BehindProxy {
		return c.Hosts, nil
	}
	names, err := certificateHosts(c.TLSCert)
	if err != nil {
		return nil, fmt.Errorf("tls-cert: %w", err)
	}
	if host, _, err := net.SplitHostPort(c.Listen); len(names) == 0 && err == nil && !loopback(host) {
		return nil, fmt.Errorf("tls-cert: %s names no host in full: give hosts, the names under which browsers reach the server, such as anteroom.example.org: requests for other names are refused", c.TLSCert)
	}
	return names, nil
}

// certificateHosts are the names and IPv4 addresses that the certificate in a
// file is for, without those that hold a *.
func certificateHosts(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	for block != nil && block.Type != "CERTIFICATE" { // such as the key
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New(file + " holds no certificate in PEM form")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var out []string
	for _, name := range cert.DNSNames {
		if !strings.Contains(name, "*") {
			out = append(out, strings.ToLower(name))
		}
	}
	for _, ip := range cert.IPAddresses {
		if ip.To4() != nil {
			out = append(out, ip.String())
		}
	}
	return out, nil
}

// BaseURL is the address at which a person's browser finds the server that
// listens at listen. Without HTTPS that is this computer's own browser, whatever
// names there are. The port is left out where it is the proxy's in front, or
// that of ACME, which knows no other than 443.
func (c Config) BaseURL(listen string) (string, error) {
	if !c.secure() {
		return "http://" + listen, nil
	}
	hosts, err := c.HostNames()
	if err != nil {
		return "", err
	}
	if len(hosts) == 0 { // on loopback
		return "https://" + listen, nil
	}
	if _, port, err := net.SplitHostPort(listen); err == nil && port != "443" && !c.BehindProxy && c.ACMEDomain == "" {
		return "https://" + net.JoinHostPort(hosts[0], port), nil
	}
	return "https://" + hosts[0], nil
}

// LocalURL is the address at which a program on this computer finds the server:
// past a proxy where it can, as a person's browser elsewhere.
func (c Config) LocalURL() (string, error) {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if c.TLSCert == "" && c.ACMEDomain == "" && loopback(host) {
		return "http://" + net.JoinHostPort(host, port), nil
	}
	return c.BaseURL(c.Listen)
}
