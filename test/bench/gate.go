package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store/sqlite"
	"github.com/anteroom/anteroom/internal/ways"
	"github.com/anteroom/anteroom/test/network"
)

// gateUsers is how many users have their way opened for the first time.
const gateUsers = 20

// openGates measures from the assignment of a port to an open way: a row in
// SQLite, the exit address asked through the port, every host of Claude Code
// reached.
func (r *egressReport) openGates(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "anteroom-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	db, err := sqlite.Open(ctx, sqlite.Config{Path: filepath.Join(dir, "anteroom.db")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	asked := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "203.0.113.1") }))
	defer asked.Close()
	roots := x509.NewCertPool()
	roots.AddCert(asked.Certificate())
	ups, stop, err := gateUpstreams(asked.Listener.Addr().String())
	if err != nil {
		return err
	}
	defer stop()
	p, err := egress.New(egress.Config{Roots: roots, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	w, err := ways.New(ctx, ways.Config{Database: db, Proxy: p, Upstreams: ups, Exit: ways.Exit{URL: "https://example.com/"}})
	if err != nil {
		return err
	}
	providers, err := provider.Load("")
	if err != nil {
		return err
	}
	claude, err := providers.Get("claude")
	if err != nil {
		return err
	}
	r.gate.what = "a user's first port, from its assignment to an open way"
	for i := range gateUsers {
		u, err := db.CreateUser(ctx, fmt.Sprint("user", i))
		if err != nil {
			return err
		}
		w.Use(u.ID)
		began := time.Now()
		if _, err := w.Open(ctx, u.ID, claude); err != nil {
			return fmt.Errorf("opening a way: %w", err)
		}
		r.gate.add(time.Since(began))
	}
	return nil
}

// gateUpstreams are as many upstream ports, each of which leads to site,
// whatever it is asked for.
func gateUpstreams(site string) (ups []egress.Upstream, stop func(), err error) {
	connect := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out, err := net.Dial("tcp", site)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = out.Close()
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		network.Join(conn, out)
	})
	var servers []*httptest.Server
	stop = func() {
		for _, s := range servers {
			s.CloseClientConnections()
			s.Close()
		}
	}
	var urls []egress.UpstreamURL
	for range gateUsers {
		s := httptest.NewServer(connect)
		servers = append(servers, s)
		urls = append(urls, egress.UpstreamURL(s.URL))
	}
	ups, err = egress.ParseUpstreams(urls)
	return ups, stop, err
}
