package rtc

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestParsePublic(t *testing.T) {
	got, err := ParsePublic([]string{"203.0.113.7", "203.0.113.8:9", "2001:db8::1", "[2001:db8::2]:9", "::ffff:203.0.113.9"}, 8081)
	want := []string{"203.0.113.7:8081", "203.0.113.8:9", "[2001:db8::1]:8081", "[2001:db8::2]:9", "203.0.113.9:8081"}
	var text []string
	for _, a := range got {
		text = append(text, a.String())
	}
	if err != nil || !slices.Equal(text, want) {
		t.Errorf("%v, %v", text, err)
	}
	for _, bad := range []string{"", "x", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "203.0.113.7:x", "203.0.113.7:99999"} {
		if got, err := ParsePublic([]string{bad}, 1); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}

func TestCandidates(t *testing.T) {
	got := candidates([]netip.AddrPort{netip.MustParseAddrPort("203.0.113.7:8081"), netip.MustParseAddrPort("[2001:db8::1]:9")})
	want := []string{
		"1 1 udp 2130706431 203.0.113.7 8081 typ host",
		"2 1 tcp 1520435199 203.0.113.7 8081 typ host tcptype passive",
		"3 1 udp 2130706175 2001:db8::1 9 typ host",
		"4 1 tcp 1520434943 2001:db8::1 9 typ host tcptype passive",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// FuzzOffer: what is taken has one video to receive, and no candidate left.
func FuzzOffer(f *testing.F) {
	f.Add([]byte(newViewer(f, nil).offer()))
	f.Add([]byte("v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=video 9 X 96\r\nm=application 9 X y\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := parseOffer(text)
		if err != nil {
			return
		}
		if len(o.desc.MediaDescriptions) != 2 || o.codec == "" || o.ufrag == "" || o.candidates > maxCandidates {
			t.Fatalf("%+v", o)
		}
		n := dropCandidates(&o.desc.Attributes)
		for _, m := range o.desc.MediaDescriptions {
			n += dropCandidates(&m.Attributes)
		}
		if n != 0 {
			t.Fatalf("%d candidates are left", n)
		}
		if _, err := o.desc.Marshal(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzFragment: what is taken restarts with credentials that are some, or not at
// all.
func FuzzFragment(f *testing.F) {
	f.Add([]byte("a=ice-ufrag:abcdefgh\r\na=ice-pwd:abcdefghabcdefghabcdefgh\r\nm=video 9 X 96\r\na=mid:0\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseFragment(text)
		if err != nil {
			return
		}
		if (r.ufrag != "" || r.pwd != "") && !credentials(r.ufrag, r.pwd) || r.candidates > maxCandidates {
			t.Fatalf("%+v", r)
		}
	})
}

// New that failed for its port can be tried again with the same registry.
func TestNewAgain(t *testing.T) {
	taken := newGateway(t, nil)
	reg := prometheus.NewRegistry()
	if _, err := New(Config{Address: taken.Address().String(), Registerer: reg}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("%v", err)
	}
	g, err := New(Config{Address: "127.0.0.1:0", Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
