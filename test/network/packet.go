package network

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

// Packet is what a capture tells of a packet.
type Packet struct {
	Interface string
	Sent      bool           // not received
	Protocol  string         // "tcp", "udp", "icmp", "icmpv6", else "ip 47", "ether 0x0806"
	From, To  netip.AddrPort // invalid where the protocol has none; the ports are 0 where it has no ports
	Type      int            // of icmp and icmpv6
}

func (p Packet) String() string {
	verb := "received"
	if p.Sent {
		verb = "sent"
	}
	return fmt.Sprintf("%s %s on %s: %s to %s", p.Protocol, verb, p.Interface, p.From, p.To)
}

// Between says whether it is TCP between an address, with any port, and an
// address and port.
func (p Packet) Between(a netip.Addr, b netip.AddrPort) bool {
	return p.Protocol == "tcp" && (p.From.Addr() == a && p.To == b || p.To.Addr() == a && p.From == b)
}

// Where things are in the headers of IPv4, IPv6 and the protocols in them.
const (
	ipv4Header, ipv4Protocol, ipv4From = 20, 9, 12
	ipv6Header, ipv6Next, ipv6From     = 40, 6, 8
	hopByHop                           = 0
)

// parse tells of a packet from its first bytes, behind the link's header.
func parse(ether uint16, b []byte) Packet {
	switch {
	case ether == unix.ETH_P_IP && len(b) >= ipv4Header:
		from, _ := netip.AddrFromSlice(b[ipv4From : ipv4From+4])
		to, _ := netip.AddrFromSlice(b[ipv4From+4 : ipv4From+8])
		rest := b[min(int(b[0]&15)*4, len(b)):]
		if binary.BigEndian.Uint16(b[6:8])&0x1fff != 0 {
			rest = nil // not the first fragment: it has no ports
		}
		return transport(int(b[ipv4Protocol]), from, to, rest)
	case ether == unix.ETH_P_IPV6 && len(b) >= ipv6Header:
		from, _ := netip.AddrFromSlice(b[ipv6From : ipv6From+16])
		to, _ := netip.AddrFromSlice(b[ipv6From+16 : ipv6From+32])
		next, rest := int(b[ipv6Next]), b[ipv6Header:]
		if next == hopByHop && len(rest) >= 8 {
			next, rest = int(rest[0]), rest[min(8*(int(rest[1])+1), len(rest)):]
		}
		return transport(next, from, to, rest)
	}
	return Packet{Protocol: fmt.Sprintf("ether 0x%04x", ether)}
}

func transport(protocol int, from, to netip.Addr, b []byte) Packet {
	p := Packet{From: netip.AddrPortFrom(from, 0), To: netip.AddrPortFrom(to, 0)}
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		p.Protocol = map[int]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
		if len(b) >= 4 {
			p.From = netip.AddrPortFrom(from, binary.BigEndian.Uint16(b))
			p.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:]))
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.Protocol = map[int]string{unix.IPPROTO_ICMP: "icmp", unix.IPPROTO_ICMPV6: "icmpv6"}[protocol]
		if len(b) > 0 {
			p.Type = int(b[0])
		}
	default:
		p.Protocol = "ip " + strconv.Itoa(protocol)
	}
	return p
}
