//go:build linux

package catch

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestAnswers(t *testing.T) {
	s := newNames()
	long := strings.Repeat("a.", 120) + "example.com"
	for name, test := range map[string]struct {
		kind dnsmessage.Type
		code dnsmessage.RCode
		want []netip.Addr
	}{
		"example.com":              {dnsmessage.TypeA, dnsmessage.RCodeSuccess, []netip.Addr{address4(firstNumber)}},
		"EXAMPLE.com":              {dnsmessage.TypeAAAA, dnsmessage.RCodeSuccess, []netip.Addr{address6(firstNumber)}},
		"eXample.com":              {dnsmessage.TypeMX, dnsmessage.RCodeSuccess, nil},
		"Example.com":              {dnsmessage.Type(65), dnsmessage.RCodeSuccess, nil}, // HTTPS
		"exAmple.com":              {dnsmessage.TypeALL, dnsmessage.RCodeSuccess, nil},
		"localhost":                {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"printer":                  {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"printer.local":            {dnsmessage.TypeAAAA, dnsmessage.RCodeNameError, nil},
		"metadata.google.internal": {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"1.0.18.198.in-addr.arpa":  {dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil},
		"127.0.0.1":                {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"0x7f.1":                   {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"a b.example.com":          {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"a\x00.example.com":        {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"[example.com]":            {dnsmessage.TypeA, dnsmessage.RCodeNameError, nil},
		"":                         {dnsmessage.TypeNS, dnsmessage.RCodeNameError, nil},
	} {
		if code, got := parse(t, s.answer(question(t, name, test.kind))); code != test.code || !slices.Equal(got, test.want) {
			t.Errorf("%q: %v, %v, want %v, %v", name, code, got, test.code, test.want)
		}
	}
	if code, got := parse(t, s.answer(question(t, long, dnsmessage.TypeAAAA))); code != dnsmessage.RCodeSuccess || len(got) != 1 {
		t.Errorf("a long name: %v, %v", code, got)
	}
}

func TestRefusedQuestions(t *testing.T) {
	s := newNames()
	good := question(t, "example.com", dnsmessage.TypeA)
	changed := func(at int, b byte) []byte {
		c := slices.Clone(good)
		c[at] = b
		return c
	}
	for name, test := range map[string]struct {
		query []byte
		code  int // -1: no answer
	}{
		"nothing":         {nil, -1},
		"half a header":   {good[:11], -1},
		"an answer":       {changed(2, 0x81), -1},
		"an update":       {changed(2, 0x28), int(dnsmessage.RCodeNotImplemented)},
		"no question":     {changed(5, 0), int(dnsmessage.RCodeFormatError)},
		"two announced":   {changed(5, 2), int(dnsmessage.RCodeFormatError)},
		"a cut one":       {good[:len(good)-1], int(dnsmessage.RCodeFormatError)},
		"a loop":          {append(good[:12:12], 0xc0, 12, 0, 1, 0, 1), int(dnsmessage.RCodeFormatError)},
		"another class":   {changed(len(good)-1, 3), int(dnsmessage.RCodeRefused)},
		"a long one":      {append(slices.Clone(good), make([]byte, maxQuery)...), int(dnsmessage.RCodeFormatError)},
		"65535 additions": {changed(11, 0xff), int(dnsmessage.RCodeFormatError)},
	} {
		got := s.answer(test.query)
		if got == nil {
			if test.code != -1 {
				t.Errorf("%s: no answer", name)
			}
			continue
		}
		if code, all := parse(t, got); int(code) != test.code || len(all) > 0 {
			t.Errorf("%s: %v, %v", name, code, all)
		}
	}
}

func TestOptions(t *testing.T) {
	n := dnsmessage.MustNewName("example.com.")
	var h dnsmessage.ResourceHeader
	if err := h.SetEDNS0(4096, dnsmessage.RCodeSuccess, true); err != nil {
		t.Fatal(err)
	}
	m := dnsmessage.Message{
		Header:      dnsmessage.Header{ID: 4711},
		Questions:   []dnsmessage.Question{{Name: n, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{Options: []dnsmessage.Option{{Code: 10, Data: []byte("cookie")}}}}},
	}
	query, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	var got dnsmessage.Message
	if err := got.Unpack(newNames().answer(query)); err != nil || len(got.Answers) != 1 || len(got.Additionals) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	if got.Additionals[0].Header.Type != dnsmessage.TypeOPT {
		t.Errorf("%+v", got.Additionals[0])
	}
}

func TestNames(t *testing.T) {
	s := newNames()
	first := s.number("first.example")
	if n := s.number("first.example"); n != first {
		t.Errorf("the second time it is %d, not %d", n, first)
	}
	held := s.number("held.example")
	name, release, ok := s.hold(held)
	if !ok || name != "held.example" {
		t.Fatalf("%q, %v", name, ok)
	}
	for i := range 2 * maxNames {
		if n := s.number(fmt.Sprintf("n%d.example", i)); n < firstNumber || n >= numbers {
			t.Fatalf("the number is %d", n)
		}
		s.number("first.example")
	}
	if n := s.number("first.example"); n != first {
		t.Errorf("a name that is used has another number: %d", n)
	}
	if name, again, ok := s.hold(held); !ok || name != "held.example" {
		t.Errorf("a name with a connection is %q, %v", name, ok)
	} else {
		again()
	}
	release()
	if _, _, ok := s.hold(firstNumber + 2); ok {
		t.Error("a name that nobody uses any more has its number still")
	}
	if len(s.byName) != maxNames || len(s.byNumber) != maxNames || s.recent.Len() != maxNames {
		t.Errorf("there are %d, %d and %d", len(s.byName), len(s.byNumber), s.recent.Len())
	}
	for i := range maxNames {
		s.number(fmt.Sprintf("m%d.example", i))
	}
	if _, _, ok := s.hold(held); ok {
		t.Error("a name whose connections have ended stays for ever")
	}
}

// The numbers are used up before one is given again.
func TestNumbersGoRound(t *testing.T) {
	s := newNames()
	kept := s.number("kept.example")
	seen := map[uint32]bool{kept: true}
	for i := range numbers - firstNumber - 1 {
		n := s.number(fmt.Sprintf("n%d.example", i))
		if seen[n] {
			t.Fatalf("number %d is given again after %d", n, i)
		}
		seen[n] = true
		s.number("kept.example")
	}
	if n := s.number("next.example"); n == kept || !seen[n] {
		t.Errorf("the one after the last is %d", n)
	}
}

func TestNumberOf(t *testing.T) {
	for _, n := range []uint32{0, 1, firstNumber, 1 << 16, numbers - 1} {
		for _, a := range []netip.Addr{address4(n), address6(n)} {
			if got, synthetic := numberOf(a); !synthetic || got != n {
				t.Errorf("%s is %d, %v, want %d", a, got, synthetic, n)
			}
		}
	}
	for _, a := range []string{"198.17.255.255", "198.20.0.0", "10.0.0.1", "fd61:6e74:6572::1:0:0", "fd61:6e74:6573::1", "::ffff:198.18.0.5", "::1"} {
		if n, synthetic := numberOf(netip.MustParseAddr(a)); synthetic {
			t.Errorf("%s is taken for number %d", a, n)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"example.com", "localhost", "a.b.c.d.e.example", "1.2.3.4"} {
		for _, kind := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeTXT, 65} {
			f.Add(question(f, name, kind))
		}
	}
	f.Add([]byte{})
	s := newNames()
	f.Fuzz(func(t *testing.T, query []byte) {
		out := s.answer(query)
		if out == nil {
			return
		}
		if len(out) > maxAnswer {
			t.Fatalf("the answer has %d bytes", len(out))
		}
		var m dnsmessage.Message
		if err := m.Unpack(out); err != nil {
			t.Fatalf("the answer cannot be read: %v", err)
		}
		if !m.Response || len(query) < 2 || m.ID != uint16(query[0])<<8|uint16(query[1]) {
			t.Fatalf("an answer to something else: %+v", m.Header)
		}
		if len(m.Answers) > 1 || len(m.Answers) == 1 && (len(m.Questions) != 1 || m.RCode != dnsmessage.RCodeSuccess) {
			t.Fatalf("%+v", m)
		}
		for _, a := range m.Answers {
			name := strings.ToLower(strings.TrimSuffix(m.Questions[0].Name.String(), "."))
			var got netip.Addr
			switch r := a.Body.(type) {
			case *dnsmessage.AResource:
				got = netip.AddrFrom4(r.A)
			case *dnsmessage.AAAAResource:
				got = netip.AddrFrom16(r.AAAA)
			default:
				t.Fatalf("%T", r)
			}
			n, synthetic := numberOf(got)
			if !synthetic || n < firstNumber || n >= numbers {
				t.Fatalf("%q has the address %s", name, got)
			}
			behind, release, ok := s.hold(n)
			if !ok || behind != name || !strings.Contains(name, ".") || strings.HasSuffix(name, ".internal") {
				t.Fatalf("%q is answered with what stands for %q", name, behind)
			}
			release()
		}
	})
}
