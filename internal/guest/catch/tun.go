//go:build linux

package catch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// DeviceName is the name of the TUN device.
const DeviceName = "anteroom0"

// ResolvConf is the content of a resolv.conf that asks a Catcher.
func ResolvConf() string { return "nameserver " + address4(serverNumber).String() + "\n" }

// Open makes the TUN device and routes to it all that has no nearer way, of
// both address families. It needs CAP_NET_ADMIN in its network namespace, and a
// kernel with TUN devices. The device goes when the returned file is closed.
// (gVisor cannot save a machine that has one open.)
func Open() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	if err := attach(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("making the TUN device: %w", err), unix.Close(fd))
	}
	// Only now: Linux tells nobody of packets who began to wait before.
	device := os.NewFile(uintptr(fd), "/dev/net/tun")
	if err := route(); err != nil {
		return nil, errors.Join(fmt.Errorf("routing to the TUN device: %w", err), device.Close())
	}
	return device, nil
}

func attach(fd int) error {
	request, err := unix.NewIfreq(DeviceName)
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
}

// route gives the device its addresses and the default routes.
func route() error {
	device, err := net.InterfaceByName(DeviceName)
	if err != nil {
		return err
	}
	index := int32(device.Index) //nolint:gosec // the kernel's own
	if err := ask(unix.RTM_NEWLINK, 0, up(index)); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	for _, a := range []netip.Addr{address4(deviceNumber), address6(deviceNumber)} {
		if err := ask(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, address(index, a)); err != nil {
			return fmt.Errorf("address %s: %w", a, err)
		}
	}
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if err := ask(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, defaultRoute(index, all)); err != nil {
			return fmt.Errorf("route %s/0: %w", all, err)
		}
	}
	return nil
}

// up is the message that switches a device on.
func up(index int32) []byte {
	b := pack(nil, unix.IfInfomsg{Index: index, Flags: unix.IFF_UP, Change: unix.IFF_UP})
	return attribute(b, unix.IFLA_MTU, pack(nil, uint32(MTU)))
}

// address is the message that gives a device an address, and no network around
// it. gVisor takes IFA_LOCAL only, Linux both.
func address(index int32, a netip.Addr) []byte {
	b := pack(nil, unix.IfAddrmsg{
		Family: family(a), Prefixlen: uint8(a.BitLen()), Flags: unix.IFA_F_NODAD, Index: uint32(index), //nolint:gosec // at most 128; not negative
	})
	return attribute(attribute(b, unix.IFA_LOCAL, a.AsSlice()), unix.IFA_ADDRESS, a.AsSlice())
}

// defaultRoute is the message that sends all through a device. gVisor wants the
// destination spelt out that Linux leaves out.
func defaultRoute(index int32, all netip.Addr) []byte {
	b := pack(nil, unix.RtMsg{
		Family: family(all), Table: unix.RT_TABLE_MAIN, Protocol: unix.RTPROT_STATIC, Scope: unix.RT_SCOPE_LINK, Type: unix.RTN_UNICAST,
	})
	return attribute(attribute(b, unix.RTA_DST, all.AsSlice()), unix.RTA_OIF, pack(nil, index))
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// pack appends a value in the kernel's layout. The structures here have no gaps.
func pack(b []byte, v any) []byte {
	b, err := binary.Append(b, binary.NativeEndian, v)
	if err != nil {
		panic(err) // not a fixed size
	}
	return b
}

// attribute appends a netlink attribute to a message.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = pack(b, unix.RtAttr{Len: uint16(unix.SizeofRtAttr + len(value)), Type: kind}) //nolint:gosec // values are short
	b = append(b, value...)
	return append(b, make([]byte, -len(b)&(unix.NLMSG_ALIGNTO-1))...)
}

// ask sends the kernel a request and waits for its acknowledgement.
func ask(kind, flags uint16, body []byte) error {
	socket, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(socket) }()
	message := pack(nil, unix.NlMsghdr{
		Len: uint32(unix.SizeofNlMsghdr + len(body)), Type: kind, Flags: unix.NLM_F_REQUEST | unix.NLM_F_ACK | flags, Seq: 1, //nolint:gosec // it is short
	})
	if err := unix.Sendto(socket, append(message, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(socket, answer, 0)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(answer[:n])
	if err != nil {
		return err
	}
	for _, m := range messages {
		if m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4 {
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 { //nolint:gosec // a negative error number
				return unix.Errno(-code) //nolint:gosec // now positive
			}
			return nil
		}
	}
	return errors.New("the kernel answers something else")
}
