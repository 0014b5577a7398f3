package egress

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	long := strings.Repeat("a", 64)
	for _, tc := range []struct {
		in   string
		want string // host:port
		code Code
	}{
		{in: "example.com:443", want: "example.com:443"},
		{in: "EXAMPLE.Com:80", want: "example.com:80"},
		{in: "a-b.xn--p1ai:443", want: "a-b.xn--p1ai:443"},
		{in: "_dmarc.example.com:443", want: "_dmarc.example.com:443"},
		{in: "3com.example.4x:443", want: "3com.example.4x:443"},
		{in: "1.1.1.1:443", want: "1.1.1.1:443"},
		{in: "[2606:4700::1111]:443", want: "[2606:4700::1111]:443"},
		{in: "[2606:4700:0:0::1111]:443", want: "[2606:4700::1111]:443"},

		// not host:port
		{in: "", code: BadTarget},
		{in: "example.com", code: BadTarget},
		{in: "example.com:", code: BadTarget},
		{in: ":443", code: BadTarget},
		{in: "example.com:443:443", code: BadTarget},
		{in: "example.com:+443", code: BadTarget},
		{in: "example.com:0443", code: BadTarget},
		{in: "example.com:443/", code: BadTarget},
		{in: "example.com:0x1bb", code: BadTarget},
		{in: "example.com:65979", code: BadTarget}, // 443 + 65536
		{in: "example.com:-1", code: BadTarget},
		{in: "user@example.com:443", code: BadTarget},
		{in: "user:pass@example.com:443", code: BadTarget},
		{in: "evil.com@127.0.0.1:443", code: BadTarget},
		{in: "http://example.com:443", code: BadTarget},
		{in: "exa mple.com:443", code: BadTarget},
		{in: "example.com%2f:443", code: BadTarget},
		{in: "example.com%00:443", code: BadTarget},
		{in: "example..com:443", code: BadTarget},
		{in: ".example.com:443", code: BadTarget},
		{in: "-a.example.com:443", code: BadTarget},
		{in: "a-.example.com:443", code: BadTarget},
		{in: long + ".com:443", code: BadTarget},
		{in: strings.Repeat("a.", 127) + "com:443", code: BadTarget},
		{in: "ex\u00e4mple.com:443", code: BadTarget},
		{in: "\u2460\u2461\u2466.0.0.1:443", code: BadTarget}, // circled digits
		{in: "127\u30020\u30020\u30021:443", code: BadTarget}, // ideographic full stops

		// brackets
		{in: "[example.com]:443", code: BadTarget}, // GHSA-qwrf-gfpj-qvj6
		{in: "[127.0.0.1]:443", code: BadTarget},
		{in: "[]:443", code: BadTarget},
		{in: "[::1:443", code: BadTarget},
		{in: "[2606:4700::1111]", code: BadTarget},
		{in: "[2606:4700::1111]443", code: BadTarget},
		{in: "[2606:4700::1111]x:443", code: BadTarget},
		{in: "[[2606:4700::1111]]:443", code: BadTarget},
		{in: "2606:4700::1111:443", code: BadTarget},
		{in: "[2606:4700::1111%25eth0]:443", code: AddressRefused},
		{in: "[fe80::1%eth0]:443", code: AddressRefused},

		// trailing dots
		{in: "example.com.:443", code: BadTarget},
		{in: "localhost.:443", code: BadTarget},
		{in: "127.0.0.1.:443", code: BadTarget},

		// ports
		{in: "example.com:22", code: PortRefused},
		{in: "example.com:25", code: PortRefused},
		{in: "example.com:8080", code: PortRefused},
		{in: "example.com:65535", code: PortRefused},
		{in: "example.com:0", code: BadTarget},

		// names that are not public
		{in: "localhost:443", code: NameRefused},
		{in: "LOCALHOST:443", code: NameRefused},
		{in: "a.localhost:443", code: NameRefused},
		{in: "metadata:80", code: NameRefused},
		{in: "metadata.google.internal:80", code: NameRefused},
		{in: "printer.local:80", code: NameRefused},
		{in: "host.localdomain:80", code: NameRefused},
		{in: "1.0.0.127.in-addr.arpa:80", code: NameRefused},
		{in: "nas.home.arpa:80", code: NameRefused},
		{in: "git.corp:443", code: NameRefused},
		{in: "router.lan:80", code: NameRefused},

		// addresses, and what some programs take for one
		{in: "127.0.0.1:80", code: AddressRefused},
		{in: "169.254.169.254:80", code: AddressRefused},
		{in: "2130706433:80", code: AddressRefused},
		{in: "0177.0.0.1:80", code: AddressRefused},
		{in: "0x7f.0.0.1:80", code: AddressRefused},
		{in: "0x7f000001:80", code: AddressRefused},
		{in: "0X7F000001:80", code: AddressRefused},
		{in: "127.1:80", code: AddressRefused},
		{in: "127.0.1:80", code: AddressRefused},
		{in: "0:80", code: AddressRefused},
		{in: "8.8.8.010:80", code: AddressRefused}, // 8.8.8.8 to some, 8.8.8.10 to others
		{in: "1.1.1.1.1:80", code: AddressRefused},
		{in: "256.1.1.1:80", code: AddressRefused},
		{in: "a.0x:80", code: AddressRefused},
		{in: "example.123:80", code: AddressRefused},
		{in: "[::1]:80", code: AddressRefused},
		{in: "[::]:80", code: AddressRefused},
		{in: "[::ffff:127.0.0.1]:80", code: AddressRefused},
		{in: "[::ffff:7f00:1]:80", code: AddressRefused},
		{in: "[::ffff:8.8.8.8]:80", code: AddressRefused}, // an unusual spelling
		{in: "[::127.0.0.1]:80", code: AddressRefused},
		{in: "[64:ff9b::7f00:1]:80", code: AddressRefused},
		{in: "[2002:7f00:1::]:80", code: AddressRefused},
		{in: "[fd00:ec2::254]:80", code: AddressRefused},
	} {
		got, err := parseTarget(tc.in, 0)
		var e *Error
		switch {
		case tc.code == "" && err != nil:
			t.Errorf("%q: %v", tc.in, err)
		case tc.code == "" && got.hostport() != tc.want:
			t.Errorf("%q: got %q, want %q", tc.in, got.hostport(), tc.want)
		case tc.code != "" && (!errors.As(err, &e) || e.Code != tc.code):
			t.Errorf("%q: got %+v and %v, want the code %s", tc.in, got, err, tc.code)
		}
	}
	if got, err := parseTarget("example.com", 80); err != nil || got.port != 80 {
		t.Errorf("the default port: %+v, %v", got, err)
	}
}

func TestPublicAddr(t *testing.T) {
	for _, s := range []string{
		"1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.1", "192.167.1.1",
		"198.17.255.255", "198.20.0.1", "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888",
		"::ffff:8.8.8.8",
	} {
		if !publicAddr(netip.MustParseAddr(s)) {
			t.Errorf("%s is refused, but it is public", s)
		}
	}
	for _, s := range []string{
		"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255", "127.0.0.1", "127.255.255.254",
		"169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.0.1",
		"198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::10.0.0.1", "::8.8.8.8",
		"64:ff9b::808:808", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:0:53aa:64c:0:0:80ff:feff", "2001:2::1",
		"2001:10::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "2002:a00:1::1", "3fff::1", "5f00::1",
		"fc00::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1", "fe80::1%eth0", "2606:4700::1111%eth0",
	} {
		if publicAddr(netip.MustParseAddr(s)) {
			t.Errorf("%s is allowed, but it is not public", s)
		}
	}
	if publicAddr(netip.Addr{}) {
		t.Error("no address at all is allowed")
	}
}

// What the parser accepts must mean the same to whoever reads it next, and
// must be public if it is an address to anybody.
func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"example.com:443", "[::1]:80", "[example.com]:443", "0x7f.1:80", "u:p@h:80", "a..b:443", "1.1.1.1:443"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseTarget(s, 0)
		if err != nil {
			if codeOf(err, "") == "" {
				t.Fatalf("%q: an error without a code: %v", s, err)
			}
			return
		}
		if got.port != 80 && got.port != 443 {
			t.Fatalf("%q: port %d", s, got.port)
		}
		again, err := parseTarget(got.hostport(), 0)
		if err != nil || again != got {
			t.Fatalf("%q: %+v is parsed again as %+v, %v", s, got, again, err)
		}
		host, _, err := net.SplitHostPort(got.hostport())
		if err != nil || host != got.host {
			t.Fatalf("%q: net reads the host %q, not %q", s, host, got.host)
		}
		if a, err := netip.ParseAddr(got.host); err == nil && (!publicAddr(a) || got.addr != a) {
			t.Fatalf("%q: the address %s", s, a)
		}
		if strings.ContainsAny(got.host, "@/?#%\\ \r\n\x00") || strings.HasSuffix(got.host, ".") {
			t.Fatalf("%q: the host %q", s, got.host)
		}
	})
}
