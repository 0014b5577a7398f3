package main

import (
	"context"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// icmpEcho is an ICMP echo request, its checksum included.
var icmpEcho = []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}

// rawSocket makes a socket of the kind To and, where that is one for it, sends an
// ICMP echo request to the address Say. "interfaces" tells of the network
// interfaces instead.
func rawSocket(_ context.Context, t try) (string, error) {
	if t.To == "interfaces" {
		return interfaces()
	}
	kinds := map[string][3]int{
		"ping": {unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP},
		"icmp": {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		"ip":   {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW},
		// ETH_P_ALL, as the network writes it.
		"packet":  {unix.AF_PACKET, unix.SOCK_RAW, unix.ETH_P_ALL << 8},
		"vsock":   {unix.AF_VSOCK, unix.SOCK_STREAM, 0},
		"netlink": {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE},
	}
	k, ok := kinds[t.To]
	if !ok {
		return "", fmt.Errorf("there is no socket %s", t.To)
	}
	fd, err := unix.Socket(k[0], k[1], k[2])
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if k[0] != unix.AF_INET {
		return "made", nil
	}
	to := unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(t.Say).To4())}
	if err := unix.Sendto(fd, icmpEcho, 0, &to); err != nil {
		return "", fmt.Errorf("send: %w", err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	b := make([]byte, maxGot)
	n, _, err := unix.Recvfrom(fd, b, 0)
	if err != nil {
		return "", fmt.Errorf("receive: %w", err)
	}
	return fmt.Sprintf("%d bytes came back", n), nil
}

func interfaces() (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	var out []string
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			return "", err
		}
		out = append(out, fmt.Sprint(i.Name, " ", addrs))
	}
	return strings.Join(out, "\n"), nil
}
