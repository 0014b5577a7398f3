//go:build linux

package catch

import (
	"container/list"
	"encoding/binary"
	"net/netip"
	"sync"
)

// maxNames is how many names have addresses at a time. It is well above
// maxConns, so that there is always one that no connection needs.
const maxNames = 4096

// The synthetic addresses. 198.18.0.0/15 is set aside for measurements between
// networks (RFC 2544): no public host has such an address. The other range is
// one of the unique local ones, "anter" in hexadecimal. A name has the same
// number in both. The first numbers are not given to names: they are those of
// the device and of the server of names.
const (
	firstNumber  = 256
	numbers      = 1 << 17
	deviceNumber = 1
	serverNumber = 2
)

func range4() netip.Prefix { return netip.MustParsePrefix("198.18.0.0/15") }
func range6() netip.Prefix { return netip.MustParsePrefix("fd61:6e74:6572::/96") }

// address4 and address6 are the two addresses of a number.
func address4(n uint32) netip.Addr {
	b := range4().Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

func address6(n uint32) netip.Addr {
	b := range6().Addr().As16()
	binary.BigEndian.PutUint32(b[12:], n)
	return netip.AddrFrom16(b)
}

// numberOf is the number of a synthetic address.
func numberOf(a netip.Addr) (n uint32, synthetic bool) {
	switch {
	case range4().Contains(a):
		b := a.As4()
		return binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(range4().Addr().AsSlice()), true
	case range6().Contains(a):
		b := a.As16()
		return binary.BigEndian.Uint32(b[12:]), true
	}
	return 0, false
}

// names gives names numbers, and knows which name a number was given to. A name
// keeps its number as long as it is among the maxNames that were used last or a
// connection to it is open. A number that was taken back is the last one to be
// given again: a program that remembers it for longer than it should is
// refused, and not led to another name.
type names struct {
	mu       sync.Mutex // guards what follows
	byName   map[string]*list.Element
	byNumber map[uint32]*list.Element
	recent   *list.List // of *given, the one used last in front
	next     uint32
}

// given is a name that has a number.
type given struct {
	name   string
	number uint32
	conns  int // that are open to it
}

func newNames() *names {
	return &names{byName: map[string]*list.Element{}, byNumber: map[uint32]*list.Element{}, recent: list.New(), next: firstNumber}
}

// number returns the name's number, a new one if it has none.
func (s *names) number(name string) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.byName[name]; e != nil {
		s.recent.MoveToFront(e)
		return of(e).number
	}
	if s.recent.Len() >= maxNames {
		s.forget()
	}
	for s.byNumber[s.next] != nil {
		s.step()
	}
	e := s.recent.PushFront(&given{name: name, number: s.next})
	s.byName[name], s.byNumber[s.next] = e, e
	s.step()
	return of(e).number
}

func (s *names) step() {
	if s.next++; s.next == numbers {
		s.next = firstNumber
	}
}

// forget takes its number from the name that was used least lately and that no
// connection needs.
func (s *names) forget() {
	for e := s.recent.Back(); e != nil; e = e.Prev() {
		if g := of(e); g.conns == 0 {
			s.recent.Remove(e)
			delete(s.byName, g.name)
			delete(s.byNumber, g.number)
			return
		}
	}
}

// hold returns the name that a number was given to, which keeps it until
// release is called.
func (s *names) hold(n uint32) (name string, release func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.byNumber[n]
	if e == nil {
		return "", nil, false
	}
	s.recent.MoveToFront(e)
	g := of(e)
	g.conns++
	return g.name, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		g.conns--
	}, true
}

func of(e *list.Element) *given { return e.Value.(*given) } //nolint:errcheck // the list holds nothing else
