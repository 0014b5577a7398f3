package e2e

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

// TestProgramsThatKnowNoProxy: they leave by the same way as all else, over the
// egress and its upstream, and what it refuses is refused to them at once.
func TestProgramsThatKnowNoProxy(t *testing.T) {
	ctx := limit(t, 2*time.Minute)
	who := newPerson(t, ctx, shared.rig, "proxyless")
	machine, err := who.EnsureMachine(ctx)
	must(t, err)
	site := shared.rig.IDP.Hosts()[0]
	const unset = "unset HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy; "
	// What bash says last of an error, behind the last colon.
	refused := func(to string) string {
		return unset + `bash -c "exec 3<>` + to + ` && echo hello >&3 && read -t 20 <&3" 2>&1 | sed -n 's/.*: //;$p'`
	}
	for _, try := range []struct{ command, want string }{
		{"env | grep -ic '_proxy='", "8"},
		{"curl --noproxy '*' -sS -o /dev/null -w '%{http_code} %{ssl_verify_result}' https://" + site + "/nowhere", "404 0"},
		{unset + `node -e 'fetch("https://` + site + `/nowhere").then(r => console.log(r.status))'`, "404"},
		{"getent hosts printer.local; echo $?", "2"},
		{"getent hosts localhost >/dev/null; echo $?", "0"},
		{refused("/dev/tcp/" + site + "/25"), "Connection refused"},
		{refused("/dev/tcp/169.254.169.254/80"), "Connection refused"},
		{refused("/dev/tcp/127.0.0.1/22"), "Connection refused"},
		{refused("/dev/tcp/unknown.example.com/443"), "Connection refused"},
		{refused("/dev/udp/192.0.2.1/443"), "Connection refused"},
		{refused("/dev/udp/2001:db8::1/3478"), "Connection refused"},
	} {
		began := time.Now()
		if out := who.Run(t, ctx, try.command); out != try.want {
			t.Errorf("%s: %q, want %q", try.command, out, try.want)
		}
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("%s: after %s", try.command, took)
		}
	}
	through := slices.ContainsFunc(shared.rig.IDP.Requests(), func(r idp.Request) bool {
		return r.Host == site && r.Path == "/nowhere" && r.TLS && r.ProxyUser != "" && strings.HasPrefix(r.UserAgent, "curl/")
	})
	if !through {
		t.Error("the upstream has not seen the request")
	}
	log, err := os.ReadFile(shared.rig.LogFile())
	must(t, err)
	for _, what := range []string{
		"name=" + regexp.QuoteMeta(site) + " port=443 .*decision=allowed",
		"name=" + regexp.QuoteMeta(site) + " port=25 .*decision=port_refused",
		"name=169[.]254[.]169[.]254 port=80 .*decision=address_refused",
		"name=unknown[.]example[.]com port=443 .*decision=upstream_refused",
	} {
		if !regexp.MustCompile("msg=egress .*machine=" + machine.ID + " .*" + what).Match(log) {
			t.Errorf("the log of the machine has no %s", what)
		}
	}
}
