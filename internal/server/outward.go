package server

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/ways"
)

// Outward is every setting of the way from the machines to the internet.
type Outward struct {
	// Upstreams are "direct" alone, or proxies' URLs.
	Upstreams []egress.UpstreamURL
	// Shared has all users leave through the one upstream, instead of each
	// through a port of their own. Direct is always shared.
	Shared bool

	ExitCheck         string // "decodo", an address that tells who asks it, or "" for nobody
	ExitPointer       string // where in its answer; a JSON pointer
	ExitSecond        string // a second opinion
	ExitSecondPointer string
	ExitEvery         time.Duration
	PortRest          time.Duration // of a released port

	Allow, Deny []string // names that machines may reach
	MaxConns    int      // connections of one machine
	ConnectTime time.Duration
	IdleTime    time.Duration
	TotalTime   time.Duration // of one connection
	MaxBytes    int64         // of one connection
}

func outwardDefaults() Outward {
	return Outward{
		Upstreams: []egress.UpstreamURL{egress.Direct},
		ExitEvery: time.Minute, PortRest: 24 * time.Hour,
		MaxConns: egress.DefaultMaxConns, ConnectTime: egress.DefaultConnectTimeout, IdleTime: egress.DefaultIdleTimeout,
		TotalTime: egress.DefaultTotalTimeout, MaxBytes: egress.DefaultMaxBytes,
	}
}

// decodo is the ExitCheck that means Decodo's own.
const decodo = "decodo"

func (o Outward) exit() ways.Exit {
	e := ways.Exit{URL: o.ExitCheck, Pointer: o.ExitPointer, SecondURL: o.ExitSecond, SecondPointer: o.ExitSecondPointer, Every: o.ExitEvery}
	if e.URL == decodo {
		e.URL = ways.DecodoURL
		if e.Pointer == "" {
			e.Pointer = ways.DecodoPointer
		}
	}
	return e
}

func (o Outward) rules() egress.Rules { return egress.Rules{Allow: o.Allow, Deny: o.Deny} }

// Ways returns the upstreams, checked with all that belongs to them. Its errors
// hold no part of an upstream's URL.
func (o Outward) Ways() ([]egress.Upstream, error) {
	ups, err := egress.ParseUpstreams(o.Upstreams)
	if err != nil {
		return nil, err
	}
	if err := o.rules().Check(); err != nil {
		return nil, err
	}
	return ups, ways.Check(ups, o.Shared, o.exit())
}

// outward is the machines' way to the internet. Its Run is to be run.
type outward struct {
	*ways.Ways
	proxy   *egress.Proxy
	service *control.Service // set before anything runs
}

func newOutward(ctx context.Context, cfg Config, db *sqlite.DB, cas string, registry *prometheus.Registry) (*outward, error) {
	ups, err := cfg.Ways()
	if err != nil {
		return nil, err
	}
	roots, err := rootsWith(cas)
	if err != nil {
		return nil, err
	}
	out := &outward{}
	out.proxy, err = egress.New(egress.Config{
		Rules: cfg.rules(), Roots: roots,
		MaxConns: cfg.MaxConns, ConnectTimeout: cfg.ConnectTime, IdleTimeout: cfg.IdleTime, TotalTimeout: cfg.TotalTime, MaxBytes: cfg.MaxBytes,
		Logger: cfg.Logger, Registerer: registry,
		Health: func(up egress.Upstream, works bool) { out.Health(up, works) },
	})
	if err != nil {
		return nil, err
	}
	out.Ways, err = ways.New(ctx, ways.Config{
		Database: db, Proxy: out.proxy, Upstreams: ups, Shared: cfg.Shared, Exit: cfg.exit(), Rest: cfg.PortRest, Logger: cfg.Logger,
		Lost: func(userID string, why *ways.Error) { out.service.WayLost(userID, why) },
		News: func(userID, sentence string) { out.service.WayNews(userID, sentence) },
	})
	if err != nil {
		return nil, errors.Join(err, out.proxy.Close())
	}
	return out, nil
}

// rootsWith are the system's authorities and further ones.
func rootsWith(cas string) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("the system's certificate authorities: %w", err)
	}
	roots.AppendCertsFromPEM([]byte(cas))
	return roots, nil
}
