package network

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// The addresses of a link.
var (
	LinkServerAddr = netip.MustParseAddr("10.78.0.1")
	LinkPersonAddr = netip.MustParseAddr("10.78.0.2")
)

// linkDevice is the name of a link's interface, on both sides.
const linkDevice = "road"

// Link is the network between a person and a server, each in a namespace of its
// own. Nothing else can be reached in either. Its weather can be changed while
// it is in use.
type Link struct {
	Server, Person *Namespace

	mu      sync.Mutex
	delayed *delayLine
}

// NewLink makes a link. The caller closes it. It needs the programs nft and tc,
// beside ip.
func NewLink() (*Link, error) {
	l := &Link{}
	for _, n := range []**Namespace{&l.Server, &l.Person} {
		var err error
		if *n, err = NewNamespace(); err == nil {
			err = (*n).quiet()
		}
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	if err := l.connect(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Link) connect() error {
	if err := l.Server.ip(
		"link set lo up",
		fmt.Sprintf("link add %s type veth peer name %s netns %s", linkDevice, linkDevice, l.Person.path()),
		fmt.Sprintf("address add %s/24 dev %s", LinkServerAddr, linkDevice),
		fmt.Sprintf("link set %s addrgenmode none up", linkDevice),
	); err != nil {
		return err
	}
	if err := l.Person.ip(
		"link set lo up",
		fmt.Sprintf("address add %s/24 dev %s", LinkPersonAddr, linkDevice),
		fmt.Sprintf("link set %s addrgenmode none up", linkDevice),
		fmt.Sprintf("route add default via %s", LinkServerAddr),
	); err != nil {
		return err
	}
	for _, n := range []*Namespace{l.Server, l.Person} {
		if err := n.routeLoopback(); err != nil {
			return err
		}
	}
	return nil
}

// Open makes a TCP port of the person's loopback address the same as that of the
// server's, by the kernel's address translation. So a server that rightly serves
// pages without HTTPS to its own computer only is reached over a network, and
// both it and a browser take that for as safe.
func (l *Link) Open(port uint16) error {
	if err := l.Person.nft(fmt.Sprintf(`table ip door {
		chain out { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport %d dnat to %s; }
		chain from { type nat hook postrouting priority 100; ip saddr 127.0.0.1 oifname != "lo" snat to %s; }
	}`, port, LinkServerAddr, LinkPersonAddr)); err != nil {
		return err
	}
	return l.Server.nft(fmt.Sprintf(`table ip door {
		chain in { type nat hook prerouting priority -100; iifname != "lo" tcp dport %d dnat to 127.0.0.1; }
		chain from { type nat hook input priority 100; iifname != "lo" tcp dport %d snat to 127.0.0.1; }
	}`, port, port))
}

// routeLoopback lets the loopback address be translated to and from another
// interface's, by whatever way packets come.
func (n *Namespace) routeLoopback() error {
	return n.Do(func() error {
		var errs error
		for name, value := range map[string]string{"route_localnet": "1", "rp_filter": "0"} {
			for _, which := range []string{"all", "default", linkDevice} {
				errs = errors.Join(errs, os.WriteFile("/proc/sys/net/ipv4/conf/"+which+"/"+name, []byte(value), 0))
			}
		}
		return errs
	})
}

// nft carries out commands of the program nft, all or none.
func (n *Namespace) nft(commands string) error {
	return n.Do(func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(commands + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("network: nft: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// Drop has the link drop, from now on, the packets that one of the expressions
// of nftables matches, in both directions, and no others. An expression that
// names a port names the server's, as PORT does in "udp PORT 8081".
func (l *Link) Drop(expressions ...string) error {
	var in, out strings.Builder
	for _, e := range expressions {
		fmt.Fprintf(&in, "iifname != \"lo\" %s drop\n", strings.ReplaceAll(e, "PORT", "dport"))
		fmt.Fprintf(&out, "oifname != \"lo\" %s drop\n", strings.ReplaceAll(e, "PORT", "sport"))
	}
	return l.Server.nft(fmt.Sprintf(`table inet weather
		delete table inet weather
		table inet weather {
			chain in { type filter hook prerouting priority -300; %s }
			chain out { type filter hook postrouting priority 300; %s }
		}`, in.String(), out.String()))
}

// Lose has the link lose so many of a hundred packets, in each direction, by
// chance. It takes the place of what Drop has set.
func (l *Link) Lose(percent int) error {
	if percent >= 100 {
		return l.Drop("")
	}
	return l.Drop(fmt.Sprintf("numgen random mod 100 < %d", percent))
}

// Rate limits the link to so many bits in a second in each direction, behind a
// queue of at most 300 ms; 0 is no limit.
func (l *Link) Rate(bits int) error {
	for _, n := range []*Namespace{l.Server, l.Person} {
		args := []string{"qdisc", "replace", "dev", linkDevice, "root", "tbf", "rate", fmt.Sprint(bits), "burst", "4kb", "latency", "300ms"}
		if bits == 0 {
			args = []string{"qdisc", "replace", "dev", linkDevice, "root", "noqueue"}
		}
		if err := n.Do(func() error {
			if out, err := exec.Command("tc", args...).CombinedOutput(); err != nil {
				return fmt.Errorf("network: tc: %w: %s", err, strings.TrimSpace(string(out)))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Delay makes every packet of the link take so long for the way there and back;
// 0 is no delay. Packets keep their order.
func (l *Link) Delay(roundTrip time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.delayed != nil {
		err := l.delayed.close()
		l.delayed = nil
		if err != nil {
			return err
		}
	}
	if roundTrip == 0 {
		return nil
	}
	d, err := newDelayLine(l, roundTrip/2)
	l.delayed = d
	return err
}

// Fair gives the link good weather.
func (l *Link) Fair() error { return errors.Join(l.Drop(), l.Rate(0), l.Delay(0)) }

// Close gives the link up.
func (l *Link) Close() error {
	var err error
	if l.delayed != nil {
		err = l.delayed.close()
	}
	for _, n := range []*Namespace{l.Server, l.Person} {
		if n != nil {
			err = errors.Join(err, n.Close())
		}
	}
	return err
}
