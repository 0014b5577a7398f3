package egress

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/test/e2e/harness"
	"github.com/anteroom/anteroom/test/idp"
	"github.com/anteroom/anteroom/test/network"
	"github.com/anteroom/anteroom/test/upstream"
)

// The sentences with which a session says how its way out stands.
const (
	failing = "does not answer at the moment"
	mended  = "works again"
)

// TestFaults has a person's upstream fail in the middle of a sign-in, in one way
// after the other, for each kind of upstream. The session does the right thing;
// nothing is sent anywhere but to that upstream; and when it is over the server
// holds nothing that it did not hold before.
func TestFaults(t *testing.T) {
	for n, scheme := range schemes[:kinds] {
		t.Run(scheme, func(t *testing.T) { faults(t, n) })
	}
}

// faults is TestFaults at one of the upstreams.
func faults(t *testing.T, own int) {
	ctx := limit(t, 4*time.Minute)
	who := newPerson(t, ctx, "faults")
	port := who.give(t, ctx, own)
	who.SignIn(t, ctx, idp.Claude)
	up := shared.ups[own]
	t.Cleanup(func() {
		up.SetFault(upstream.Fault{})
		up.SetExit(network.ExitAddr(own))
		must(t, up.Revive())
	})
	waitIdle(t, ctx, own)
	c := capture(t, up)
	before := settled(t, ctx)
	t.Run("planted", func(t *testing.T) { plantedHold(t, ctx, before) })

	for _, test := range []struct {
		name  string
		fault func(t *testing.T, id string)
	}{
		{"it dies and comes back", func(t *testing.T, id string) {
			up.Die()
			says(t, ctx, who, id, failing)
			must(t, up.Revive())
			says(t, ctx, who, id, failing+".*"+mended)
			who.Finish(t, ctx, idp.Codex)
		}},
		{"it refuses the credentials", func(t *testing.T, id string) {
			up.SetFault(upstream.Fault{Status: http.StatusProxyAuthRequired})
			says(t, ctx, who, id, failing)
			up.SetFault(upstream.Fault{})
			says(t, ctx, who, id, failing+".*"+mended)
			who.Finish(t, ctx, idp.Codex)
		}},
		{"slow answers", func(t *testing.T, _ string) {
			up.SetFault(upstream.Fault{Delay: time.Second})
			who.Finish(t, ctx, idp.Codex)
			up.SetFault(upstream.Fault{})
		}},
		{"bytes right behind the answer", func(t *testing.T, _ string) {
			tries := []try{
				{Name: "first", Do: "proxy", Say: connect(upstream.Greeter+":443", ""), want: "200 .*\r\n\r\n" + upstream.Greeting},
				{Name: "half", Do: "proxy", Say: connect(upstream.Echoer+":443", "") + "once more", want: "200 .*\r\n\r\nonce more"},
			}
			judge(t, tries, who.probe(t, ctx, tries))
			who.Finish(t, ctx, idp.Codex)
		}},
		{"it closes half", func(t *testing.T, id string) {
			up.SetFault(upstream.Fault{Half: true, Host: "auth.openai.com"})
			must(t, who.Page.SignInAt(ctx, idp.Codex, who.Email(), idp.DefaultPassword))
			failed(t, ctx, who, id, session.ReasonLoginExited)
			up.SetFault(upstream.Fault{})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			id := who.Begin(t, ctx, idp.Codex)
			test.fault(t, id)
			must(t, who.Page.Home(ctx))
			nothingStays(t, ctx, before)
		})
	}
	t.Run("its address changes", func(t *testing.T) { changes(t, ctx, who, up, port) })
	clean(t, ctx, c)
}

// changes has the exit address change in the middle of a sign-in.
func changes(t *testing.T, ctx context.Context, who someone, up *upstream.Server, port store.Port) {
	id := who.Begin(t, ctx, idp.Codex)
	tunnel := []try{{Name: "held", Do: "hold", To: upstream.Echoer + ":443"}}
	command := who.bring(t, ctx, tunnel)
	before := len(up.Asked())
	held := make(chan string, 1)
	go func() {
		out, _, err := who.Shell(ctx, command)
		held <- out
		if err != nil {
			t.Error(err)
		}
	}()
	must(t, until(ctx, func() error {
		if !slices.ContainsFunc(up.Asked()[before:], func(a upstream.Asked) bool { return a.To == upstream.Echoer+":443" && a.Taken }) {
			return fmt.Errorf("the tunnel is not there")
		}
		return nil
	}))
	seen := len(shared.IDP.Requests())
	was, is := up.Exit(), network.ExitAddr(len(shared.ups)+1)
	up.SetExit(is)
	failed(t, ctx, who, id, session.ReasonExitChanged)
	s, err := who.Session(ctx, id)
	must(t, err)
	if want := fmt.Sprintf("Its exit address was %s and is %s.", was, is); s.Detail != want {
		t.Errorf("the session says %q, want %q", s.Detail, want)
	}
	now, _ := who.port(t, ctx)
	if now.State != store.PortQuarantined || now.UserID != who.id || now.ExitAddress != was.String() {
		t.Errorf("the port is %+v, want it in quarantine, still theirs", now)
	}
	if r := told(t, tunnel, <-held)["held"]; !strings.Contains(r.Got, "200") || strings.Contains(r.Err, "timeout") {
		t.Errorf("the tunnel that was open: %+v; want it to be ended", r)
	}
	must(t, until(ctx, func() error {
		if n := up.Open(); n > 0 {
			return fmt.Errorf("the upstream still has %d connections", n)
		}
		return nil
	}))
	tries := []try{{Name: "afterwards", Do: "proxy", Say: connect(exitSite+":443", ""), want: "no_upstream"}}
	judge(t, tries, who.probe(t, ctx, tries))
	for _, q := range shared.IDP.Requests()[seen:] {
		if q.From == is.String() && q.Host != exitSite {
			t.Errorf("from the other address there came %+v", q)
		}
	}
	id = who.Connect(t, ctx, idp.Codex)
	failed(t, ctx, who, id, session.ReasonPortShut)
	if port.PortKey != now.PortKey {
		t.Errorf("they were moved from %s to %s", port.PortKey, now.PortKey)
	}
}

// failed waits for the session that the page shows to have failed for a reason,
// with its sentence.
func failed(t *testing.T, ctx context.Context, who someone, id string, want session.Reason) {
	t.Helper()
	who.Ended(t, ctx, want)
	s, err := who.Session(ctx, id)
	must(t, err)
	if s.State != session.Failed || s.Reason != want || s.CredentialID != "" {
		t.Errorf("the session is %s, %s, with credential %q; want %s and none", s.State, s.Reason, s.CredentialID, want)
	}
	must(t, shared.WaitNoBrowserMachines(ctx))
}

// says waits until a session's messages so far, in one line, match an
// expression.
func says(t *testing.T, ctx context.Context, who someone, id, expression string) {
	t.Helper()
	re := regexp.MustCompile(expression)
	var all strings.Builder
	if err := who.Follow(ctx, id, func(e harness.Event) bool {
		fmt.Fprintf(&all, "%s ", e.Message)
		return re.MatchString(all.String())
	}); err != nil {
		t.Fatalf("the session says %q, want %q: %v", all.String(), expression, err)
	}
}

// held is what the server holds: goroutines, and descriptors by what they are.
type held struct {
	goroutines  int
	descriptors map[string]int
}

// hold looks at what the server holds. The door is to be shut: nobody talks to
// the server but the look itself.
func hold(ctx context.Context) (held, error) {
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return shared.door.Dial(ctx) },
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, shared.URL()+"/metrics", nil)
	if err != nil {
		return held{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return held{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return held{}, err
	}
	m := regexp.MustCompile(`(?m)^go_goroutines (\d+)$`).FindSubmatch(text)
	if m == nil {
		return held{}, fmt.Errorf("/metrics has no goroutines: %.200q", text)
	}
	h := held{descriptors: map[string]int{}}
	if h.goroutines, err = strconv.Atoi(string(m[1])); err != nil {
		return held{}, err
	}
	links, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", shared.PID()))
	if err != nil {
		return held{}, err
	}
	for _, link := range links {
		to, err := os.Readlink(link)
		if err != nil || strings.Contains(to, "/anteroom.db") {
			continue // closed in between, or of the pool of database connections
		}
		kind, _, _ := strings.Cut(to, ":[")
		h.descriptors[kind]++
	}
	return h, nil
}

// more says what the server holds beyond what it did before.
func (h held) more(before held) error {
	if h.goroutines > before.goroutines {
		return fmt.Errorf("%d goroutines, before %d", h.goroutines, before.goroutines)
	}
	for kind, n := range h.descriptors {
		if n > before.descriptors[kind] {
			return fmt.Errorf("%d descriptors of %s, before %d", n, kind, before.descriptors[kind])
		}
	}
	return nil
}

// manyLooks is how many looks are taken together: the server asks for exit
// addresses all the time, and counting itself takes goroutines, more or fewer.
const manyLooks = 21

// looks are the last so many, each of which is a while after the one before.
type looks []held

// again looks once more, and says what the server holds in the median, of each
// kind, once there have been enough looks.
func (l *looks) again(ctx context.Context) (median held, err error) {
	now, err := hold(ctx)
	if err != nil {
		return held{}, err
	}
	*l = append(*l, now)
	if len(*l) < manyLooks {
		return held{}, fmt.Errorf("only %d looks so far", len(*l))
	}
	*l = (*l)[len(*l)-manyLooks:]
	middle := func(number func(held) int) int {
		var all []int
		for _, h := range *l {
			all = append(all, number(h))
		}
		slices.Sort(all)
		return all[manyLooks/2]
	}
	median = held{goroutines: middle(func(h held) int { return h.goroutines }), descriptors: map[string]int{}}
	for kind := range now.descriptors {
		median.descriptors[kind] = middle(func(h held) int { return h.descriptors[kind] })
	}
	return median, nil
}

// settled is what the server holds once that does not get less any more.
func settled(t *testing.T, ctx context.Context) held {
	t.Helper()
	defer shared.door.Shut()()
	var l looks
	var last *held
	must(t, until(ctx, func() error {
		now, err := l.again(ctx)
		if err != nil {
			return err
		}
		less := last == nil || last.more(now) != nil
		last, l = &now, nil
		if less {
			return fmt.Errorf("it still gets less: %v", now)
		}
		return nil
	}))
	t.Logf("the server holds %d goroutines and %v", last.goroutines, last.descriptors)
	return *last
}

// plantedHold checks that one connection too many is seen.
func plantedHold(t *testing.T, ctx context.Context, before held) {
	defer shared.door.Shut()()
	conn, err := shared.door.Dial(ctx)
	must(t, err)
	var l looks
	must(t, until(ctx, func() error {
		now, err := l.again(ctx)
		if err == nil && now.more(before) == nil {
			err = fmt.Errorf("it is not seen: %v", now)
		}
		return err
	}))
	must(t, conn.Close())
	nothingStays(t, ctx, before)
}

// stayTime is how long the server may take to let go of something.
const stayTime = 30 * time.Second

// nothingStays waits until the server holds no more than before.
func nothingStays(t *testing.T, ctx context.Context, before held) {
	t.Helper()
	defer shared.door.Shut()()
	soon, cancel := context.WithTimeout(ctx, stayTime)
	defer cancel()
	var l looks
	var more error
	if err := until(soon, func() error {
		now, err := l.again(soon)
		if err == nil {
			more = now.more(before)
			err = more
		}
		return err
	}); err != nil {
		t.Errorf("the server holds more than before: %v (%v)", more, err)
	}
}
