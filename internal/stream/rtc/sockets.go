package rtc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/logging"
	"golang.org/x/sys/unix"
)

const (
	// tcpStall is how long a viewer over TCP may take nothing.
	tcpStall = 5 * time.Second
	// tcpUnsent is how much waits in the kernel for such a viewer: what is behind
	// it can still be left out.
	tcpUnsent = 32 << 10
	// tcpFirst is how long a new connection may wait with its first message.
	tcpFirst = 5 * time.Second
	// maxTCP limits the connections to the TCP socket, of whomever.
	maxTCP      = 1024
	udpBuffer   = 4 << 20
	maxPublic   = 16
	portRetries = 20
)

// sockets are what all viewers share.
type sockets struct {
	address netip.AddrPort
	public  []netip.AddrPort
	udp     udpMux
	tcp     ice.TCPMux
}

// silent keeps the library's words, which hold viewers' addresses, out of the
// log.
func silent() logging.LoggerFactory {
	return &logging.DefaultLoggerFactory{Writer: io.Discard, DefaultLogLevel: logging.LogLevelDisabled}
}

func listen(address string, public []string) (*sockets, error) {
	udp, tcp, err := listenBoth(address)
	if err != nil {
		return nil, err
	}
	at := addrPort(udp.LocalAddr())
	s := &sockets{address: at}
	if s.public, err = announced(at, public); err != nil {
		return nil, errors.Join(err, udp.Close(), tcp.Close())
	}
	log := silent().NewLogger("ice")
	_ = udp.SetWriteBuffer(udpBuffer) // a keyframe is sent at once
	_ = udp.SetReadBuffer(udpBuffer)
	s.udp = udpMux{ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: udp, Logger: log}), at}
	s.tcp = ice.NewTCPMuxDefault(ice.TCPMuxParams{
		Listener: newLimited(tcp, maxTCP), Logger: log, ReadBufferSize: 64,
		FirstStunBindTimeout: tcpFirst, AliveDurationForConnFromStun: tcpFirst,
	})
	return s, nil
}

// listenBoth opens both sockets on one port.
func listenBoth(address string) (*net.UDPConn, net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, nil, fmt.Errorf("%q must be host:port: %w", address, err)
	}
	for try := 0; ; try++ {
		at, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return nil, nil, err
		}
		udp, err := net.ListenUDP("udp", at)
		if err != nil {
			return nil, nil, err
		}
		got := addrPort(udp.LocalAddr()).Port()
		tcp, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(got))))
		if err == nil {
			return udp, tcp, nil
		}
		_ = udp.Close()
		if port != "0" || !errors.Is(err, syscall.EADDRINUSE) || try == portRetries {
			return nil, nil, err
		}
	}
}

// addrPort is a UDP address; the zero value of any other.
func addrPort(a net.Addr) netip.AddrPort {
	u, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	at := u.AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// announced are the addresses that viewers are told.
func announced(at netip.AddrPort, public []string) ([]netip.AddrPort, error) {
	if len(public) > 0 {
		return ParsePublic(public, at.Port())
	}
	if !at.Addr().IsUnspecified() {
		return []netip.AddrPort{at}, nil
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("this computer's addresses: %w", err)
	}
	var out []netip.AddrPort
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, _ := netip.AddrFromSlice(n.IP)
		ip = ip.Unmap()
		if ip.IsGlobalUnicast() && (ip.Is4() || !at.Addr().Is4()) && len(out) < maxPublic {
			out = append(out, netip.AddrPortFrom(ip, at.Port()))
		}
	}
	if len(out) == 0 {
		return nil, errors.New("this computer has no address that others could reach: say which to announce")
	}
	return out, nil
}

// ParsePublic reads addresses that are to be announced, with or without a port.
func ParsePublic(public []string, port uint16) ([]netip.AddrPort, error) {
	if len(public) > maxPublic {
		return nil, fmt.Errorf("at most %d addresses can be announced", maxPublic)
	}
	var out []netip.AddrPort
	for _, p := range public {
		full, err := netip.ParseAddrPort(p)
		if err != nil {
			ip, err := netip.ParseAddr(p)
			if err != nil {
				return nil, fmt.Errorf("%q must be an IP address, or one with a port: browsers take no names here", p)
			}
			full = netip.AddrPortFrom(ip, port)
		}
		ip := full.Addr().Unmap()
		if ip.IsUnspecified() || ip.IsMulticast() || ip.Zone() != "" {
			return nil, fmt.Errorf("%q is not an address that a browser can reach", p)
		}
		out = append(out, netip.AddrPortFrom(ip, full.Port()))
	}
	return out, nil
}

// Close closes both. No connection may be left.
func (s *sockets) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// udpMux makes one candidate for each family of addresses: what viewers are told
// is public, not what the library finds out about interfaces.
type udpMux struct {
	*ice.UDPMuxDefault
	at netip.AddrPort
}

// GetListenAddresses implements ice.UDPMux.
func (m udpMux) GetListenAddresses() []net.Addr {
	addr := func(ip netip.Addr) net.Addr { return net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, m.at.Port())) }
	switch ip := m.at.Addr(); {
	case !ip.IsUnspecified():
		return []net.Addr{m.LocalAddr()}
	case ip.Is4():
		return []net.Addr{addr(netip.AddrFrom4([4]byte{127, 0, 0, 1}))}
	}
	return []net.Addr{addr(netip.AddrFrom4([4]byte{127, 0, 0, 1})), addr(netip.IPv6Loopback())}
}

// limited hands out at most so many connections at a time, and closes further
// ones at once.
type limited struct {
	net.Listener
	places chan struct{}
}

func newLimited(l net.Listener, n int) *limited { return &limited{l, make(chan struct{}, n)} }

// Accept implements net.Listener.
func (l *limited) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(50 * time.Millisecond) // the library would give up for good
				continue
			}
			return nil, err
		}
		select {
		case l.places <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		lowLatency(conn)
		return &tcpConn{Conn: conn, left: func() { <-l.places }}, nil
	}
}

// lowLatency keeps little in the kernel's buffer: an old picture in it would be
// in the way of a new one.
func lowLatency(conn net.Conn) {
	t, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, tcpUnsent)
		})
	}
}
