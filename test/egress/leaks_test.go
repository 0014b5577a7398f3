package egress

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/network"
	"github.com/anteroom/anteroom/test/upstream"
)

// try is one way out that the probe tries in a machine.
type try struct {
	Name, Do, To, Say string

	// want is what the probe must tell: an expression for what arrived and what
	// went wrong, a line each. Empty: nothing may have arrived.
	want string
	// caught is want in machines that hand on what takes no notice of the proxy.
	caught string
}

type result struct{ Name, Got, Err string }

// public and public6 are addresses of the public internet that the upstream may
// be asked for. It refuses.
const (
	public  = "1.1.1.1"
	public6 = "2606:4700::1111"
)

// probe runs tries in a person's machine and returns what came of them.
func (s someone) probe(t *testing.T, ctx context.Context, tries []try) map[string]result {
	t.Helper()
	command := s.bring(t, ctx, tries)
	return told(t, tries, s.Run(t, ctx, command))
}

// bring brings the probe and tries into a person's machine, and returns the
// command that runs it.
func (s someone) bring(t *testing.T, ctx context.Context, tries []try) (command string) {
	t.Helper()
	_, err := s.EnsureMachine(ctx)
	must(t, err)
	home := filepath.Join(shared.StateDir(), "homes", s.id)
	program, err := os.ReadFile(shared.probe)
	must(t, err)
	cases, err := json.Marshal(tries)
	must(t, err)
	for name, content := range map[string][]byte{"probe": program, "cases.json": cases} {
		file := filepath.Join(home, name)
		must(t, os.WriteFile(file, content, 0o755)) //nolint:gosec // it is to be run
		must(t, os.Chmod(file, 0o755))              //nolint:gosec // the same
	}
	return "~/probe < ~/cases.json"
}

// told reads what the probe told.
func told(t *testing.T, tries []try, text string) map[string]result {
	t.Helper()
	var results []result
	if err := json.Unmarshal([]byte(text), &results); err != nil || len(results) != len(tries) {
		t.Fatalf("of %d tries the probe tells %q: %v", len(tries), text, err)
	}
	found := map[string]result{}
	for _, r := range results {
		found[r.Name] = r
	}
	return found
}

// judge checks what came of tries.
func judge(t *testing.T, tries []try, results map[string]result) {
	t.Helper()
	for _, one := range tries {
		t.Run(one.Name, func(t *testing.T) {
			r, want := results[one.Name], one.want
			if one.caught != "" {
				want = one.caught
			}
			if strings.Contains(r.Got, secret) {
				t.Errorf("it got to the host's own port: %q", r.Got)
			}
			if want == "" {
				if r.Got != "" {
					t.Errorf("something arrived: %q", r.Got)
				}
				if r.Err == "" {
					t.Error("it did not fail")
				}
				return
			}
			if text := r.Got + "\n" + r.Err; !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("it told %q, want %q", text, want)
			}
		})
	}
}

// secret is what the host's own ports answer. No machine ever sees it.
const secret = "THIS-IS-THE-HOST"

// hostPorts has the host itself answer at the ports that machines may reach, on
// all of its addresses.
func hostPorts(t *testing.T) {
	t.Helper()
	for _, port := range []string{"80", "443", "53"} {
		l, err := shared.world.Server.Listen("[::]:" + port)
		must(t, err)
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(secret), secret)
				_ = conn.Close()
			}
		}()
	}
}

// TestLeaks tries, from inside of a person's own machine and of the Chromium of
// their browser machine, every way out that there might be, and checks packet by
// packet that nothing but the person's own upstream was sent anything.
func TestLeaks(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	who := newPerson(t, ctx, "leaks")
	_, err := who.EnsureMachine(ctx)
	must(t, err)
	who.wayOpen(t, ctx)
	hostPorts(t)
	_, own := who.port(t, ctx)
	up, other := shared.ups[own], shared.ups[(own+1)%len(shared.ups)]
	waitIdle(t, ctx, own)
	before := map[*upstream.Server]int{}
	for _, u := range shared.ups {
		before[u] = len(u.Asked())
	}
	c := capture(t, up)

	tries := slices.Concat(allowed(own, other), targets(other), unproxied(other))
	t.Run("machine", func(t *testing.T) { judge(t, tries, who.probe(t, ctx, tries)) })
	t.Run("chromium", func(t *testing.T) { inChromium(t, ctx, who, own, other) })
	t.Run("namespaces", func(t *testing.T) { shut(t) })
	clean(t, ctx, c)

	for n, u := range shared.ups {
		asked := u.Asked()[before[u]:]
		if n != own && len(asked) > 0 {
			t.Errorf("upstream %d, of nobody here, was asked for %v", n, asked)
		}
		for _, a := range asked {
			if !mayAsk(a, own) {
				t.Errorf("the upstream was asked for %+v", a)
			}
		}
	}
	t.Run("planted", func(t *testing.T) { planted(t, ctx, c, other) })
}

// wayOpen waits until the person's own machine can reach something.
func (s someone) wayOpen(t *testing.T, ctx context.Context) {
	t.Helper()
	s.Run(t, ctx, "until curl -sSf -o /dev/null https://"+exitSite+"/json; do sleep 0.2; done")
}

// waitIdle waits until no upstream but one has a connection: what tests before
// have left.
func waitIdle(t *testing.T, ctx context.Context, but int) {
	t.Helper()
	must(t, until(ctx, func() error {
		for n, u := range shared.ups {
			if n != but && u.Open() > 0 {
				return fmt.Errorf("upstream %d has %d connections", n, u.Open())
			}
		}
		return nil
	}))
}

// mayAsk says whether an upstream may have been asked for something by a person.
func mayAsk(a upstream.Asked, own int) bool {
	host, port, err := net.SplitHostPort(a.To)
	names := append(shared.IDP.Hosts(), public, public6, upstream.Greeter, upstream.Echoer, "prefetched.example.net", "stun.example.com")
	return err == nil && (port == "443" || port == "80") && slices.Contains(names, host) && a.User == fmt.Sprintf("customer-%d", own)
}

// allowed are tries of what works, and of headers that would have it work
// otherwise.
func allowed(own int, other *upstream.Server) []try {
	exit := regexp.QuoteMeta(`"ip":"` + network.ExitAddr(own).String() + `"`)
	noHeader := regexp.QuoteMeta(`"Proxy-Authorization":""`)
	names := "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("customer-1:p@ss:w/rd?1%")) + "\r\n" +
		"X-Forwarded-For: 203.0.113.99\r\nForwarded: for=203.0.113.99\r\nVia: 1.1 " + other.Address().String() + "\r\n" +
		"Anteroom-User: owner\r\nAnteroom-Upstream: " + other.Address().String() + "\r\nAnteroom-Egress: allowed\r\n"
	return []try{
		{Name: "HTTP", Do: "get", To: "http://" + exitSite + "/json", want: exit},
		{Name: "HTTPS", Do: "get", To: "https://" + exitSite + "/json", want: exit},
		{Name: "a header names another identity, HTTP", Do: "get", To: "http://" + exitSite + "/json", Say: names, want: noHeader + ".*" + exit},
		{Name: "a header names another identity, HTTPS", Do: "inside", To: exitSite, Say: names, want: exit},
		{Name: "the site speaks first", Do: "proxy", Say: connect(upstream.Greeter+":443", ""), want: "200 .*\r\n\r\n" + upstream.Greeting},
		{Name: "the machine ends its direction first", Do: "proxy", Say: connect(upstream.Echoer+":443", "") + "and says this", want: "200 .*\r\n\r\nand says this"},
		{Name: "DNS over HTTPS", Do: "get", To: "https://" + public + "/dns-query?name=example.com", want: "Bad Gateway"},
		{Name: "a request without a proxy's form", Do: "proxy", Say: "GET / HTTP/1.1\r\nHost: " + exitSite + "\r\n\r\n", want: "bad_request"},
	}
}

// connect is a CONNECT with more header lines.
func connect(to, header string) string {
	return "CONNECT " + to + " HTTP/1.1\r\nHost: " + to + "\r\n" + header + "\r\n"
}

// targets are tries of destinations that the proxy must refuse, each by CONNECT
// and as a plain request.
func targets(other *upstream.Server) []try {
	_, serverPort, _ := net.SplitHostPort(shared.door.Address())
	var all []try
	for to, code := range map[string]string{
		"127.0.0.1:443":                             "address_refused",
		"127.0.0.1:" + serverPort:                   "port_refused",
		"0.0.0.0:80":                                "address_refused",
		"localhost:80":                              "name_refused",
		network.ServerAddr.String() + ":443":        "address_refused",
		"[" + network.ServerAddr6.String() + "]:80": "address_refused",
		other.Address().String():                    "port_refused",
		other.Address().Addr().String() + ":443":    "address_refused",
		network.SitesAddr.String() + ":80":          "address_refused",
		"169.254.169.254:80":                        "address_refused",
		"metadata.google.internal:80":               "name_refused",
		"[fe80::1]:80":                              "address_refused",
		"[fe80::1%25eth0]:80":                       "bad_target|address_refused",
		"[::1]:443":                                 "address_refused",
		"100.64.0.1:443":                            "address_refused",
		"192.168.0.1:80":                            "address_refused",
		"2852039166:80":                             "address_refused", // decimal
		"0251.0376.0251.0376:80":                    "address_refused", // octal
		"0xa9fea9fe:80":                             "address_refused", // hexadecimal
		"169.254.43518:80":                          "address_refused", // three parts
		"[::ffff:169.254.169.254]:80":               "address_refused", // mapped
		"[64:ff9b::a9fe:a9fe]:80":                   "address_refused", // NAT64
		"[2002:a9fe:a9fe::1]:80":                    "address_refused", // 6to4
		"[example.com]:443":                         "bad_target|bad_request",
		exitSite + ".:443":                          "bad_target",
		"169.254.169.254.:80":                       "bad_target",
		exitSite + "@169.254.169.254:80":            "bad_target",
		exitSite + ":443@10.77.0.12:443":            "bad_target",
		"a%40" + exitSite + ":443":                  "bad_target|bad_request",
		exitSite + "#@10.77.0.12:80":                "bad_target",
		exitSite + ":25":                            "port_refused",
		exitSite + ":0443":                          "bad_target",
		exitSite + ":":                              "bad_target",
		exitSite + "\t:80":                          "bad_request|bad_target",
	} {
		all = append(all, try{Name: "CONNECT " + to, Do: "proxy", Say: connect(to, ""), want: `(?i)HTTP/1\.1 4\d\d [^\r]*\r\nAnteroom-Egress: (` + code + `)\r\n`})
		if !strings.HasSuffix(to, ":80") || strings.ContainsAny(to, "#\t") {
			continue
		}
		all = append(all, try{
			Name: "GET " + to, Do: "proxy", Say: "GET http://" + strings.TrimSuffix(to, ":80") + "/ HTTP/1.1\r\nHost: " + exitSite + "\r\n\r\n",
			want: `(?i)HTTP/1\.1 4\d\d [^\r]*\r\nAnteroom-Egress: (` + code + `)\r\n`,
		})
	}
	return all
}

// unproxied are tries of what takes no notice of the proxy.
func unproxied(other *upstream.Server) []try {
	_, serverPort, _ := net.SplitHostPort(shared.door.Address())
	var all []try
	for name, to := range map[string]string{
		"the public internet": public + ":443", "IPv6": "[" + public6 + "]:443", "mail": public + ":25", "DNS over TCP": "8.8.8.8:53",
		"the host": network.ServerAddr.String() + ":443", "the host, IPv6": "[" + network.ServerAddr6.String() + "]:443",
		"the host, mapped": "[::ffff:" + network.ServerAddr.String() + "]:80", "the server's port": network.ServerAddr.String() + ":" + serverPort,
		"loopback": "127.0.0.1:443", "loopback, the server's port": "127.0.0.1:" + serverPort, "loopback, all addresses": "0.0.0.0:80",
		"another upstream": other.Address().String(), "the sites": sitesAddress(), "the gateway": "10.77.0.2:80",
		"metadata": "169.254.169.254:80", "link-local": "[fe80::1%lo]:80", "the neighbourhood": "192.168.1.1:80", "localhost": "localhost:80",
	} {
		all = append(all, try{Name: "TCP to " + name, Do: "tcp", To: to, Say: "GET / HTTP/1.0\r\n\r\n"})
	}
	const request = "GET / HTTP/1.1\r\nHost: " + exitSite + "\r\nConnection: close\r\n\r\n"
	dnsQuery := "\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01"
	stun := "\x00\x01\x00\x00\x21\x12\xa4\x42anteroom-stn"
	quic := "\xc0\x00\x00\x00\x01\x08anteroom\x00\x00\x44\x9e" + strings.Repeat("\x00", 1180)
	for name, one := range map[string][2]string{
		"QUIC": {public + ":443", quic}, "STUN": {public + ":3478", stun}, "STUN, IPv6": {"[" + public6 + "]:3478", stun},
		"NTP": {public + ":123", strings.Repeat("\x1b", 48)}, "the host": {network.ServerAddr.String() + ":53", dnsQuery},
		"DNS": {"8.8.8.8:53", dnsQuery}, "multicast": {"224.0.0.251:5353", dnsQuery}, "broadcast": {"255.255.255.255:67", "discover"}, "link-local": {"169.254.169.254:53", dnsQuery},
	} {
		one := try{Name: "UDP, " + name, Do: "udp", To: one[0], Say: one[1]}
		if strings.HasSuffix(one.To, ":53") {
			one.caught = "example" // whomever is asked, the machine itself answers
		}
		all = append(all, one)
	}
	return append(all,
		try{Name: "TCP to a name", Do: "tcp", To: exitSite + ":80", Say: request, caught: network.ExitAddr(0).String()[:len("203.0.113.")]},
		try{Name: "TCP to a name that speaks first", Do: "tcp", To: upstream.Greeter + ":443", caught: upstream.Greeting},
		try{Name: "HTTPS without the proxy", Do: "direct", To: "https://" + exitSite + "/json", caught: `"ip":"203\.0\.113\.`},
		try{Name: "TCP to a name, port 25", Do: "tcp", To: exitSite + ":25"},
		try{Name: "look up a name", Do: "dns", Say: exitSite, caught: `^\d+\.`},
		try{Name: "look up a name, TCP", Do: "dns", To: "tcp 8.8.8.8:53", Say: exitSite, caught: `^\d+\.`},
		try{Name: "look up metadata", Do: "dns", Say: "metadata.google.internal"},
		try{Name: "ping", Do: "socket", To: "ping", Say: public},
		try{Name: "raw ICMP", Do: "socket", To: "icmp", Say: public},
		try{Name: "raw IP", Do: "socket", To: "ip", Say: public},
		try{Name: "packet socket", Do: "socket", To: "packet"},
		try{Name: "vsock", Do: "socket", To: "vsock"},
	)
}

//go:embed testdata/secure.html
var securePage string

//go:embed testdata/plain.html
var plainPage string

// report is what the two pages find out.
type report struct {
	// Candidates are those that WebRTC gathered, and Gathering how far it came.
	Candidates []string
	Gathering  string
	QUIC       string            // what came of WebTransport
	Got        map[string]string // by address: what was got; absent if nothing
}

// inChromium has the Chromium of a browser machine open pages that try to leave.
func inChromium(t *testing.T, ctx context.Context, who someone, own int, other *upstream.Server) {
	fill := strings.NewReplacer("{{REPORT}}", "https://"+reportSite, "{{PLAIN}}", "http://"+plainSite, "{{EXIT}}", exitSite,
		"{{SERVER}}", shared.door.Address(), "{{HOST}}", network.ServerAddr.String(), "{{HOST6}}", network.ServerAddr6.String(),
		"{{OTHER}}", other.Address().Addr().String(), "{{PUBLIC}}", public)
	shared.pages.Store(new(fill.Replace(plainPage)))
	shared.IDP.SetFault(idp.Codex, idp.AtPage, idp.Fault{Instead: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(fill.Replace(securePage)))
	}})
	t.Cleanup(shared.IDP.ClearFaults)
	s, err := who.StartSession(ctx, string(idp.Codex))
	must(t, err)
	exit := `"ip":"` + network.ExitAddr(own).String() + `"`
	for _, page := range []string{"secure", "plain"} {
		var text string
		select {
		case text = <-shared.reports:
		case <-ctx.Done():
			t.Fatalf("the %s page has not reported", page)
		}
		var r report
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			t.Fatalf("the %s page reports %q: %v", page, text, err)
		}
		t.Logf("the %s page reports %s", page, text)
		if len(r.Candidates) > 0 || r.Gathering != "gathering" && r.Gathering != "complete" {
			t.Errorf("the %s page: WebRTC (%s) has gathered %q", page, r.Gathering, r.Candidates)
		}
		if page == "secure" && r.QUIC != "failed" {
			t.Errorf("the %s page: WebTransport: %q", page, r.QUIC)
		}
		for from, got := range r.Got {
			if !strings.Contains(from, exitSite) {
				t.Errorf("the %s page got %q from %s", page, got, from)
			}
		}
		if got := r.Got[map[string]string{"secure": "https", "plain": "http"}[page]+"://"+exitSite+"/json"]; !strings.Contains(got, exit) {
			t.Errorf("the %s page got %q from the exit site, want %s", page, got, exit)
		}
	}
	must(t, who.Call(ctx, http.MethodDelete, "/sessions/"+string(s.ID), nil, nil))
	must(t, shared.WaitNoBrowserMachines(ctx))
}

// shut checks that every process of the machines is in the network that is
// captured, or in one that has nothing but loopback.
func shut(t *testing.T) {
	server, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", shared.PID()))
	must(t, err)
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(t, err)
	seen := 0
	for _, file := range files {
		args, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(args, []byte(shared.StateDir())) {
			continue
		}
		dir := filepath.Dir(file)
		in, err := os.Readlink(filepath.Join(dir, "ns/net"))
		if err != nil {
			continue // it has just ended
		}
		seen++
		if in == server {
			continue
		}
		devices, err := os.ReadFile(filepath.Join(dir, "net/dev"))
		if err != nil {
			continue
		}
		if lines := strings.Split(strings.TrimSpace(string(devices)), "\n"); len(lines) != 3 || !strings.HasPrefix(strings.TrimSpace(lines[2]), "lo:") {
			t.Errorf("%s: %q is in another network, with the interfaces\n%s", dir, args, devices)
		}
	}
	if seen < 2 {
		t.Errorf("only %d processes were found", seen)
	}
}

// planted has processes leak where the server runs, and wants the capture to
// tell of each.
func planted(t *testing.T, ctx context.Context, c *network.Capture, other *upstream.Server) {
	_, serverPort, _ := net.SplitHostPort(shared.door.Address())
	for _, to := range []netip.AddrPort{
		netip.MustParseAddrPort(public + ":443"), other.Address(), netip.AddrPortFrom(network.ServerAddr, 443),
		netip.MustParseAddrPort("127.0.0.1:" + serverPort),
	} {
		must(t, shared.world.Server.Do(func() error {
			// Whether somebody answers is all the same.
			return exec.CommandContext(ctx, "bash", "-c", fmt.Sprintf("timeout 1 bash -c 'echo leak > /dev/tcp/%s/%d' 2>/dev/null; true", to.Addr(), to.Port())).Run()
		}))
		strange, _, err := c.Strange(ctx)
		must(t, err)
		if !slices.ContainsFunc(strange, func(p network.Packet) bool { return p.Protocol == "tcp" && p.Sent && p.To == to }) {
			t.Errorf("a leak to %s was not captured, but %v", to, strange)
		}
	}
}

// TestNeighbours checks that one person's machine cannot reach another's.
func TestNeighbours(t *testing.T) {
	ctx := limit(t, time.Minute)
	one, two := newPerson(t, ctx, "one"), newPerson(t, ctx, "two")
	const answer = "I-AM-THE-NEIGHBOUR"
	two.Run(t, ctx, `(setsid node -e 'require("net").createServer(s => s.end("`+answer+`")).listen(8080, "::")' >/dev/null 2>&1 &)
until curl -s --http0.9 --noproxy '*' http://127.0.0.1:8080/ | grep -q `+answer+`; do sleep 0.1; done`)
	interfaces := []try{{Name: "interfaces", Do: "socket", To: "interfaces"}}
	var tries []try
	for _, address := range regexp.MustCompile(`[0-9a-f.:]+/\d+`).FindAllString(two.probe(t, ctx, interfaces)["interfaces"].Got, -1) {
		p, err := netip.ParsePrefix(address)
		must(t, err)
		tries = append(tries, try{Name: "TCP to " + p.Addr().String(), Do: "tcp", To: netip.AddrPortFrom(p.Addr(), 8080).String()})
	}
	if len(tries) == 0 {
		t.Fatal("the neighbour has no address, not even loopback's")
	}
	for _, one := range tries {
		tries = append(tries, try{Name: "CONNECT " + one.To, Do: "proxy", Say: connect(one.To, ""), want: `Anteroom-Egress: (port_refused|address_refused)`})
	}
	judge(t, tries, one.probe(t, ctx, tries))
}
