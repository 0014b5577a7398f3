package machinetest

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
)

// configured makes a browser machine and configures it.
func configured(t *testing.T, s Setup) (id string, ack guestapi.Ack) {
	t.Helper()
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	client, _ := guest(t, s.Driver, id, created.Ref)
	return id, configure(t, s, client, id, machine.Browser)
}

func testInside(t *testing.T, s Setup) {
	if s.Exec == nil {
		t.Skip("SKIPPED: these machines have no kernel of their own")
	}
	a, ackA := configured(t, s)
	b, ackB := configured(t, s)
	if !ackA.Restored || !ackB.Restored {
		t.Fatalf("restored %v and %v: these are no clones", ackA.Restored, ackB.Restored)
	}
	t.Run("clones differ", func(t *testing.T) { testClones(t, s, a, b) })
	t.Run("isolation", func(t *testing.T) { testIsolation(t, s, a, b) })
}

func testClones(t *testing.T, s Setup, a, b string) {
	commands := []struct{ what, command string }{
		{"/dev/urandom", "head -c 32 /dev/urandom | sha256sum"},
		{"getrandom", "mktemp -u XXXXXXXXXXXXXXXXXXXX"},
		{"node", `node -e 'console.log(require("crypto").randomUUID())'`},
		{"machine-id", "cat /etc/machine-id"},
		{"clock", "date +%s"},
		{"zone", "date +%z"},
	}
	var all []string
	for _, c := range commands {
		all = append(all, c.command)
	}
	script := strings.Join(all, "; ")
	fromA, fromB := strings.Split(s.Exec(t, a, script), "\n"), strings.Split(s.Exec(t, b, script), "\n")
	if len(fromA) != len(commands) || len(fromB) != len(commands) {
		t.Fatalf("the machines say %q and %q", fromA, fromB)
	}
	const secrets = 4 // of commands, from the first
	for i := range secrets {
		if fromA[i] == fromB[i] || len(fromA[i]) < 16 {
			t.Errorf("%s: clones give %q and %q", commands[i].what, fromA[i], fromB[i])
		}
	}
	for _, from := range [][]string{fromA, fromB} {
		clock, err := strconv.ParseInt(from[secrets], 10, 64)
		if off := time.Since(time.Unix(clock, 0)).Abs(); err != nil || off > 10*time.Second {
			t.Errorf("the clock is off by %s (%v)", off, err)
		}
		if zone := from[secrets+1]; zone != "+0900" {
			t.Errorf("the time zone is %s, want Tokyo's", zone)
		}
	}
}

func testIsolation(t *testing.T, s Setup, a, b string) {
	var devices []string
	for line := range strings.Lines(s.Exec(t, a, "cat /proc/net/dev")) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			devices = append(devices, strings.TrimSpace(name))
		}
	}
	slices.Sort(devices)
	// The other end of the second one is the agent in the same machine.
	if !slices.Equal(devices, []string{"anteroom0", "lo"}) {
		t.Errorf("network devices: %q, want lo and the agent's only", devices)
	}
	const write = "echo mine > /usr/marker && echo mine > /etc/passwd && cat /usr/marker"
	if out := s.Exec(t, a, write); out != "mine" {
		t.Errorf("writing to the root: %q", out)
	}
	later, _ := configured(t, s)
	for _, id := range []string{b, later} {
		if out := s.Exec(t, id, "cat /usr/marker 2>/dev/null; grep -c '^root:' /etc/passwd"); out != "1" {
			t.Errorf("another machine sees what the first has written: %q", out)
		}
	}
	if out := s.Exec(t, a, "ls -d "+t.TempDir()+" /var/lib/anteroom /var/cache/anteroom 2>/dev/null"); out != "" {
		t.Errorf("it sees the host's files: %q", out)
	}
}

func testHome(t *testing.T, s Setup) {
	if s.Exec == nil {
		t.Skip("SKIPPED: these machines have no disk")
	}
	home := t.TempDir()
	run := func(command string) string {
		t.Helper()
		id, created := create(t, s.Driver, machine.Spec{Kind: machine.CLI, Home: home})
		client, _ := guest(t, s.Driver, id, created.Ref)
		configure(t, s, client, id, machine.CLI)
		out, err := client.Run(limited(t, s.Driver), guestapi.RunRequest{Argv: []string{"sh", "-c", command}, Timeout: "2m"})
		if err != nil || out.ExitCode != 0 {
			t.Fatalf("%s: %v, %+v", command, err, out)
		}
		if err := s.Driver.Destroy(limited(t, s.Driver), id); err != nil {
			t.Fatalf("destroy: %v", err)
		}
		return strings.TrimSpace(out.Stdout)
	}
	run("echo kept > ~/note; echo lost > /tmp/note; id -u")
	if out := run("cat ~/note; cat /tmp/note 2>/dev/null || echo gone; id -u"); out != "kept\ngone\n1000" {
		t.Errorf("after it was made again: %q", out)
	}
}
