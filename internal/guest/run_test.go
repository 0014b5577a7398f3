//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

func TestRunCommand(t *testing.T) {
	u := testUser(t)
	env := []string{"PATH=/usr/bin:/bin", "WORD=hello"}
	sh := func(script string) guestapi.RunRequest {
		return guestapi.RunRequest{Argv: []string{"sh", "-c", script}}
	}
	run := func(req guestapi.RunRequest) guestapi.RunResult {
		t.Helper()
		out, err := RunCommand(t.Context(), u, env, req)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	req := sh(`id -u; pwd; echo $WORD; cat; echo oops >&2; exit 5`)
	req.Stdin = "typed"
	want := guestapi.RunResult{ExitCode: 5, Stdout: fmt.Sprintf("%d\n%s\nhello\ntyped", u.UID, u.Home), Stderr: "oops\n"}
	if got := run(req); got != want {
		t.Errorf("%+v", got)
	}
	if got := run(sh("yes | head -c 1000000; head -c 300000 /dev/zero >&2")); len(got.Stdout) != maxRunOutput || len(got.Stderr) != maxRunOutput {
		t.Errorf("%d and %d bytes", len(got.Stdout), len(got.Stderr))
	}
	if got := run(sh(`printf '\377ok'`)); got.Stdout != "\ufffdok" {
		t.Errorf("%q", got.Stdout)
	}
	big := sh("exit 0") // reads nothing of it
	big.Stdin = strings.Repeat("x", 1<<20)
	if got := run(big); got.ExitCode != 0 || got.TimedOut {
		t.Errorf("%+v", got)
	}
	// What stays behind does not hold it up, and does not stay.
	if got := run(sh(`setsid sh -c 'trap "" TERM; while :; do sleep 1; done' & echo started`)); got.Stdout != "started\n" || got.TimedOut {
		t.Errorf("%+v", got)
	}
	slow := sh(`trap '' TERM; echo begun; while :; do sleep 1; done`)
	slow.Timeout = "300ms"
	if got := run(slow); !got.TimedOut || got.Stdout != "begun\n" || got.ExitCode != 137 {
		t.Errorf("%+v", got)
	}
}

func TestRunCommandRefusals(t *testing.T) {
	u := testUser(t)
	for name, req := range map[string]guestapi.RunRequest{
		"nothing":        {},
		"no such":        {Argv: []string{"no-such-program"}},
		"too many words": {Argv: make([]string, maxRunArgs+1)},
		"too long":       {Argv: []string{"true", strings.Repeat("x", maxRunArg)}},
		"bad limit":      {Argv: []string{"true"}, Timeout: "soon"},
		"long limit":     {Argv: []string{"true"}, Timeout: "6m"},
		"negative limit": {Argv: []string{"true"}, Timeout: "-1s"},
		"a zero byte":    {Argv: []string{"true", "a\x00b"}},
	} {
		if _, err := RunCommand(t.Context(), u, []string{"PATH=/usr/bin:/bin"}, req); !errors.Is(err, ErrRunRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	began := time.Now()
	if out, err := RunCommand(ctx, u, []string{"PATH=/usr/bin:/bin"}, guestapi.RunRequest{Argv: []string{"sleep", "100"}}); err != nil || time.Since(began) > 30*time.Second || out.ExitCode == 0 {
		t.Errorf("%+v %v", out, err)
	}
}
