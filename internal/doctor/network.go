package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/server"
)

const (
	dialTime   = 5 * time.Second
	expiresIn  = 14 * 24 * time.Hour
	dialsAtMax = 8
)

func (e *exam) listen(context.Context) Result {
	l, err := net.Listen("tcp", e.cfg.Listen)
	switch {
	case err == nil:
		_ = l.Close()
		return ok(e.cfg.Listen + " is free")
	case errors.Is(err, syscall.EADDRINUSE) && e.server:
		return ok(e.cfg.Listen + " is in use, as it should be while the server runs")
	case errors.Is(err, syscall.EADDRINUSE):
		return missing(e.cfg.Listen+" is in use by another program", "stop that (ss -ltnp shows it), or give another address with --listen")
	}
	return missing(err.Error(), "give another address with --listen")
}

func (e *exam) certificate(context.Context) Result {
	switch {
	case e.cfg.ACMEDomain != "":
		return ok("got by ACME for " + e.cfg.ACMEDomain + ", which must lead here at port 443")
	case e.cfg.TLSCert == "":
		return ok("none is configured")
	}
	pair, err := tls.LoadX509KeyPair(e.cfg.TLSCert, e.cfg.TLSKey)
	if err != nil {
		return missing(err.Error(), "give a certificate and its own key, both PEM, in tls-cert and tls-key")
	}
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return missing(err.Error(), "give another certificate in tls-cert")
	}
	hosts, err := e.cfg.HostNames()
	if err != nil {
		return missing(err.Error(), "name with --hosts under which names browsers reach the server")
	}
	for _, h := range hosts {
		if err := cert.VerifyHostname(h); err != nil {
			return warning("it is not for "+h+": browsers refuse it there", "give a certificate for all of hosts, or take the name out of hosts")
		}
	}
	found := "good until " + cert.NotAfter.Format(time.DateOnly)
	if len(hosts) > 0 {
		found += " for " + strings.Join(hosts, ", ")
	}
	switch left := time.Until(cert.NotAfter); {
	case left < 0:
		return missing("over since "+cert.NotAfter.Format(time.DateOnly), "renew the certificate, and start the server again")
	case left < expiresIn:
		return warning(found, "renew it in time, and start the server again")
	}
	return ok(found)
}

func (e *exam) caFiles(context.Context) Result {
	if len(e.cfg.CAFiles) == 0 {
		return ok("none are configured")
	}
	if _, err := server.ReadCAs(e.cfg.CAFiles); err != nil {
		return missing(err.Error(), "name files that hold certificates in PEM form only")
	}
	return ok(strings.Join(e.cfg.CAFiles, ", "))
}

func (e *exam) providers(context.Context) Result {
	set, err := provider.Load(e.cfg.ProvidersDir)
	if err != nil {
		return missing(err.Error(), "mend the file at the line that it names")
	}
	var names []string
	for _, f := range set.All() {
		names = append(names, f.Name)
	}
	return ok(strings.Join(names, ", "))
}

// egress connects to each upstream; where there is none, to every host that a
// provider needs.
func (e *exam) egress(ctx context.Context) Result {
	ups, err := e.cfg.Ways()
	if err != nil {
		return missing(err.Error(), "write the upstreams, and what is asked of them, as it says")
	}
	var through []string
	for _, u := range ups {
		if !u.IsDirect() {
			through = append(through, u.Addr())
		}
	}
	if len(through) > 0 {
		if bad := unreachable(ctx, through); len(bad) > 0 {
			return missing("not reached: "+strings.Join(bad, ", "), "check the upstream's host and port, and this host's firewall")
		}
		return ok("the upstream answers at " + strings.Join(through, ", "))
	}
	hosts := e.providerHosts()
	bad := unreachable(ctx, hosts)
	switch {
	case len(bad) == 0:
		return ok(fmt.Sprintf("straight to the internet; all %d hosts of the providers answer", len(hosts)))
	case len(bad) == len(hosts):
		return missing("none of the providers' hosts is reached", "check this host's name service, route and firewall (ports 80 and 443 outwards), or configure an upstream")
	}
	return warning("not reached: "+strings.Join(bad, ", "), "their tools cannot sign in from here: check the firewall, or configure an upstream")
}

// proxyless says whether programs that ignore the proxy
// variables reach the egress too.
func (e *exam) proxyless(context.Context) Result {
	return ok("caught, by a TUN device of the machine's own kernel, gVisor's or a virtual machine's; this computer needs none for it")
}

func (e *exam) providerHosts() []string {
	set, err := provider.Load(e.cfg.ProvidersDir)
	if err != nil {
		return nil // said already
	}
	var out []string
	for _, f := range set.All() {
		for _, h := range f.Hosts {
			out = append(out, net.JoinHostPort(h, "443"))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// unreachable returns the addresses to which no connection can be made.
func unreachable(ctx context.Context, addresses []string) []string {
	ok := make([]bool, len(addresses))
	slots := make(chan struct{}, dialsAtMax)
	var work sync.WaitGroup
	for i, a := range addresses {
		work.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			conn, err := (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "tcp", a)
			if err == nil {
				ok[i] = true
				_ = conn.Close()
			}
		})
	}
	work.Wait()
	var bad []string
	for i, a := range addresses {
		if !ok[i] {
			bad = append(bad, a)
		}
	}
	return bad
}
