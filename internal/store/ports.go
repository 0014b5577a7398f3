package store

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"
)

// ErrNoPort says that no upstream port is left for a user: all are assigned,
// resting or in quarantine, or refuse what the provider needs.
var ErrNoPort = errors.New("store: no upstream port is left")

// ParseAddress reads an IPv4 or IPv6 address and returns it in its usual
// spelling; ErrInvalid for anything else.
func ParseAddress(s string) (string, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return "", fmt.Errorf("%w: that is no address", ErrInvalid)
	}
	return a.Unmap().String(), nil
}

// PortKey names an upstream port.
type PortKey struct {
	Host string
	Port int
}

// ParsePortKey reads what String writes; ErrInvalid for anything else.
func ParsePortKey(s string) (PortKey, error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return PortKey{}, fmt.Errorf("%w: an upstream port is host:port", ErrInvalid)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	key := PortKey{Host: host, Port: int(port)}
	if err != nil || key.String() != s {
		return PortKey{}, fmt.Errorf("%w: an upstream port is host:port", ErrInvalid)
	}
	return key, nil
}

// String is host:port.
func (k PortKey) String() string { return net.JoinHostPort(k.Host, strconv.Itoa(k.Port)) }

// PortState is where an upstream port stands.
type PortState string

// The states of an upstream port.
const (
	PortFree        PortState = "free"
	PortAssigned    PortState = "assigned"    // a user has it, for good
	PortResting     PortState = "resting"     // released, and not given to anybody until RestUntil
	PortQuarantined PortState = "quarantined" // not used at all, until an administrator says so; its user keeps it
)

// Port is an upstream port's row.
type Port struct {
	PortKey
	State  PortState
	UserID string
	// ExitAddress is where its user was first seen to come from; empty before.
	ExitAddress string
	Reason      string // of the quarantine
	AssignedAt  time.Time
	RestUntil   time.Time
	CheckedAt   time.Time // when the exit address was last seen
	// Refuses has a name that its proxy refuses, by provider.
	Refuses map[string]string
}
