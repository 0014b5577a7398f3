package rtc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/turn/v5"
)

const (
	turnRealm = "anteroom"
	// maxRelays limits the allocations of all users, maxRelaysEach those with one
	// name, which is good for ten minutes.
	maxRelays     = 512
	maxRelaysEach = 8
	maxTurnTCP    = 512
)

var errRelayed = errors.New("rtc: this relay leads to the gateway only")

// turnServer is a TURN server in this process. Its relays lead to the gateway's
// own UDP socket: whatever a client asks for, there is no other way in the code.
type turnServer struct {
	server *turn.Server
	relay  Relay
	quota  quota
}

func newTurnServer(address string, to *sockets) (*turnServer, error) {
	udp, tcp, err := listenBoth(address)
	if err != nil {
		return nil, err
	}
	t := &turnServer{relay: Relay{secret: make([]byte, 32)}, quota: quota{each: make(map[string]int)}}
	rand.Read(t.relay.secret)
	port := strconv.Itoa(int(addrPort(udp.LocalAddr()).Port()))
	for _, a := range to.public {
		host := net.JoinHostPort(a.Addr().String(), port)
		t.relay.urls = append(t.relay.urls, "turn:"+host+"?transport=udp", "turn:"+host+"?transport=tcp")
	}
	allocate := onlyTo{to: to}
	permit := func(_ net.Addr, peer net.IP) bool {
		ip, ok := netip.AddrFromSlice(peer)
		return ok && to.announces(ip.Unmap())
	}
	t.server, err = turn.NewServer(turn.ServerConfig{
		Realm: turnRealm, LoggerFactory: silent(), AuthHandler: t.authenticate,
		QuotaHandler: func(user, _ string, _ net.Addr) bool { return t.quota.room(user) },
		EventHandler: turn.EventHandler{
			OnAllocationCreated: func(_, _ net.Addr, _, user, _ string, _ net.Addr, _ int) { t.quota.add(user, 1) },
			OnAllocationDeleted: func(_, _ net.Addr, _, user, _ string) { t.quota.add(user, -1) },
		},
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: udp, RelayAddressGenerator: allocate, PermissionHandler: permit}},
		ListenerConfigs:   []turn.ListenerConfig{{Listener: newLimited(tcp, maxTurnTCP), RelayAddressGenerator: allocate, PermissionHandler: permit}},
	})
	if err != nil {
		return nil, errors.Join(err, udp.Close(), tcp.Close())
	}
	return t, nil
}

// authenticate takes a name that has not expired, with its HMAC as password.
func (t *turnServer) authenticate(r *turn.RequestAttributes) (userID string, key []byte, ok bool) {
	until, _, _ := strings.Cut(r.Username, ":")
	sec, err := strconv.ParseInt(until, 10, 64)
	if err != nil || len(r.Username) > 64 {
		return "", nil, false
	}
	left := time.Until(time.Unix(sec, 0))
	if left <= 0 || left > relayTime+time.Minute {
		return "", nil, false
	}
	return r.Username, turn.GenerateAuthKey(r.Username, turnRealm, relayPassword(t.relay.secret, r.Username)), true
}

// onlyTo makes the relays.
type onlyTo struct{ to *sockets }

// Validate implements turn.RelayAddressGenerator.
func (onlyTo) Validate() error { return nil }

// AllocatePacketConn implements turn.RelayAddressGenerator. The relay's own port
// is on loopback where the gateway can be reached there.
func (o onlyTo) AllocatePacketConn(turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	target := o.to.local()
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(target.Addr(), 0)), net.UDPAddrFromAddrPort(target))
	if err != nil {
		return nil, nil, fmt.Errorf("rtc: relay: %w", err)
	}
	r := &relayConn{UDPConn: conn, to: o.to}
	r.peer.Store(&o.to.public[0])
	return r, conn.LocalAddr(), nil
}

// AllocateListener and AllocateConn implement turn.RelayAddressGenerator: there
// is no relaying over TCP.
func (onlyTo) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, errRelayed
}

// AllocateConn is described at AllocateListener.
func (onlyTo) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) { return nil, errRelayed }

// relayConn is a socket that is connected to the gateway's. To the client the
// gateway has the address that it was announced with.
type relayConn struct {
	*net.UDPConn
	to   *sockets
	peer atomic.Pointer[netip.AddrPort] // as the client last called it
}

// WriteTo implements net.PacketConn.
func (r *relayConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	at := addrPort(addr)
	for i := range r.to.public {
		if r.to.public[i] == at {
			r.peer.Store(&r.to.public[i])
			return r.Write(p)
		}
	}
	return 0, errRelayed
}

// ReadFrom implements net.PacketConn.
func (r *relayConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, err := r.Read(p)
	return n, net.UDPAddrFromAddrPort(*r.peer.Load()), err
}

// local is where the UDP socket is reached from this computer.
func (s *sockets) local() netip.AddrPort {
	ip := s.address.Addr()
	switch {
	case !ip.IsUnspecified():
	case ip.Is4():
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		ip = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(ip, s.address.Port())
}

func (s *sockets) announces(ip netip.Addr) bool {
	for _, a := range s.public {
		if a.Addr() == ip {
			return true
		}
	}
	return false
}

// quota counts allocations, by name and in all.
type quota struct {
	mu   sync.Mutex
	all  int
	each map[string]int
}

func (q *quota) room(user string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all < maxRelays && q.each[user] < maxRelaysEach
}

func (q *quota) add(user string, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.all += n
	if q.each[user] += n; q.each[user] <= 0 {
		delete(q.each, user)
	}
}
