package network

import (
	"errors"
	"fmt"
	"net/netip"
)

// World is three networks in a row, each in a namespace of its own:
//
//	Server ── Proxies ── Sites
//
// The server's only neighbours are the proxies. They have the default route of
// the server, too, and forward nothing: what the server sends to anywhere is
// seen on its interface and gets no further.
type World struct {
	Server, Proxies, Sites *Namespace
}

// The addresses of a world. Proxies listen on ProxyAddr and leave from ExitAddr.
var (
	ServerAddr  = netip.MustParseAddr("10.77.0.1")
	ServerAddr6 = netip.MustParseAddr("fd77::1")
	gateway     = netip.MustParseAddr("10.77.0.2")
	gateway6    = netip.MustParseAddr("fd77::2")
	SitesAddr   = netip.MustParseAddr("203.0.113.1")
)

// maxProxies is how many addresses a world has for proxies.
const maxProxies = 9

// ProxyAddr is where the server finds proxy n, counted from 0.
func ProxyAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 77, 0, byte(11 + n)}) }

// ExitAddr is from where sites see the connections of proxy n.
func ExitAddr(n int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(11 + n)}) }

// The interfaces' hardware addresses: known to all, so that nobody has to ask.
const (
	serverMAC  = "02:00:00:00:00:01"
	gatewayMAC = "02:00:00:00:00:02"
)

// NewWorld makes a world. The caller closes it.
func NewWorld() (*World, error) {
	w := &World{}
	for _, n := range []**Namespace{&w.Server, &w.Proxies, &w.Sites} {
		var err error
		if *n, err = NewNamespace(); err == nil {
			err = (*n).quiet()
		}
		if err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	if err := w.connect(); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (w *World) connect() error {
	in, exit := []string{"link set lo up"}, []string{}
	out := []string{
		"link set lo up",
		fmt.Sprintf("link add out address %s type veth peer name in address %s netns %s", serverMAC, gatewayMAC, w.Proxies.path()),
		"link set out addrgenmode none up",
		fmt.Sprintf("address add %s/24 dev out", ServerAddr),
		fmt.Sprintf("address add %s/64 dev out nodad", ServerAddr6),
	}
	for _, a := range append(proxyAddrs(), gateway, gateway6) {
		out = append(out, fmt.Sprintf("neighbour replace %s lladdr %s dev out nud permanent", a, gatewayMAC))
		in = append(in, fmt.Sprintf("address add %s/%d dev in", a, map[bool]int{true: 24, false: 64}[a.Is4()]))
	}
	out = append(out,
		fmt.Sprintf("route add default via %s", gateway),
		fmt.Sprintf("route add default via %s", gateway6),
	)
	in = append([]string{"link set in addrgenmode none up"}, append(in,
		fmt.Sprintf("neighbour replace %s lladdr %s dev in nud permanent", ServerAddr, serverMAC),
		fmt.Sprintf("neighbour replace %s lladdr %s dev in nud permanent", ServerAddr6, serverMAC))...)
	exit = append(exit,
		"link add exit type veth peer name site netns "+w.Sites.path(),
		"link set exit addrgenmode none up")
	for n := range maxProxies {
		exit = append(exit, fmt.Sprintf("address add %s/24 dev exit", ExitAddr(n)))
	}
	if err := w.Server.ip(out...); err != nil {
		return err
	}
	if err := w.Proxies.ip(append(in, exit...)...); err != nil {
		return err
	}
	return w.Sites.ip("link set lo up", "link set site addrgenmode none up", fmt.Sprintf("address add %s/24 dev site", SitesAddr))
}

func proxyAddrs() []netip.Addr {
	var all []netip.Addr
	for n := range maxProxies {
		all = append(all, ProxyAddr(n))
	}
	return all
}

// Close gives the world up.
func (w *World) Close() error {
	var err error
	for _, n := range []*Namespace{w.Server, w.Proxies, w.Sites} {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return err
}
