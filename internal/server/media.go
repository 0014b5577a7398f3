package server

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/anteroom/anteroom/internal/stream/rtc"
)

// mediaPort is that of the screens' sockets, UDP and TCP, where nothing else is
// said.
const mediaPort = "8081"

// mediaOff is the MediaAddress that turns WebRTC off.
const mediaOff = "off"

// Media is every setting of screens by WebRTC.
type Media struct {
	MediaAddress string   // host:port of UDP and TCP; empty: port 8081 of Listen's host; "off": no WebRTC
	MediaPublic  []string // addresses that browsers are told; empty: where it listens

	TurnURLs       []string // of a TURN server of the operator's
	TurnSecretFile string   // with the secret that it shares with this server
	TurnListen     string   // host:port of a TURN server in this process; empty: none
}

// check refuses what cannot be used, without opening anything.
func (m Media) check() error {
	if m.MediaAddress == mediaOff {
		if len(m.MediaPublic) > 0 || len(m.TurnURLs) > 0 || m.TurnSecretFile != "" || m.TurnListen != "" {
			return errors.New("media-address is off: media-public, turn-url, turn-secret-file and turn-listen mean nothing then")
		}
		return nil
	}
	if m.MediaAddress != "" {
		if host, port, err := net.SplitHostPort(m.MediaAddress); err != nil || port == "" {
			return fmt.Errorf("media-address: %q must be host:port, or off", m.MediaAddress)
		} else if host != "" && host != "localhost" && net.ParseIP(host) == nil {
			return fmt.Errorf("media-address: %q must have an IP address: it is what is listened on", m.MediaAddress)
		}
	}
	if _, err := rtc.ParsePublic(m.MediaPublic, 1); err != nil {
		return fmt.Errorf("media-public: %w", err)
	}
	if _, err := m.relay(); err != nil {
		return err
	}
	return nil
}

// relay is how pages reach viewers through a TURN server; nil if there is none.
func (m Media) relay() (*rtc.Relay, error) {
	if m.TurnListen != "" && (len(m.TurnURLs) > 0 || m.TurnSecretFile != "") {
		return nil, errors.New("turn-listen is a TURN server in this process, turn-url and turn-secret-file are for another: give one of them")
	}
	if m.TurnListen != "" {
		if _, port, err := net.SplitHostPort(m.TurnListen); err != nil || port == "" {
			return nil, fmt.Errorf("turn-listen: %q must be host:port", m.TurnListen)
		}
		return nil, nil
	}
	if len(m.TurnURLs) == 0 && m.TurnSecretFile == "" {
		return nil, nil
	}
	if len(m.TurnURLs) == 0 || m.TurnSecretFile == "" {
		return nil, errors.New("turn-url and turn-secret-file belong together: give both or neither")
	}
	r, err := rtc.NewRelay(m.TurnURLs, m.TurnSecretFile)
	if err != nil {
		return nil, fmt.Errorf("turn: %w", err)
	}
	return r, nil
}

// mediaAddress is where to listen. chosen says that the operator did not say, and
// any other port of a loopback address is as good.
func (c Config) mediaAddress() (address string, chosen bool) {
	if c.MediaAddress != "" {
		return c.MediaAddress, false
	}
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return "", false // Check has refused it
	}
	if port != "0" {
		port = mediaPort
	}
	return net.JoinHostPort(host, port), loopback(host)
}

// newGateway opens the screens' sockets; nil if they are off.
func newGateway(cfg Config, registry *prometheus.Registry) (*rtc.Gateway, error) {
	if cfg.MediaAddress == mediaOff {
		return nil, nil
	}
	address, chosen := cfg.mediaAddress()
	open := func(address string) (*rtc.Gateway, error) {
		return rtc.New(rtc.Config{
			Address: address, Public: cfg.MediaPublic, TurnListen: cfg.TurnListen, Registerer: registry, Logger: cfg.Logger,
		})
	}
	g, err := open(address)
	if errors.Is(err, syscall.EADDRINUSE) && chosen {
		host, _, _ := net.SplitHostPort(address)
		cfg.Logger.Info("the media port is in use: taking another", "address", address)
		g, err = open(net.JoinHostPort(host, "0"))
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s, UDP or TCP, is in use by another program: give another address with --media-address, or --media-address=off: %w", address, err)
	}
	if err != nil {
		return nil, fmt.Errorf("media-address: %w", err)
	}
	return g, nil
}

// iceServers are what pages are told of TURN servers; nil if there are none.
func (c Config) iceServers(g *rtc.Gateway) (func() []rtc.IceServer, error) {
	if g == nil {
		return nil, nil
	}
	if c.TurnListen != "" {
		return g.IceServers, nil
	}
	r, err := c.relay()
	if err != nil || r == nil {
		return nil, err
	}
	return r.Servers, nil
}
