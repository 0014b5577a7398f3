package e2e

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/test/canary"
	"github.com/anteroom/anteroom/test/idp"
)

// TestCanary looks for every token and code that was issued in all that the
// sessions so far have left on this host. The tokens are on the CLI machines,
// in memory, and nowhere else in the clear.
func TestCanary(t *testing.T) {
	ctx := limit(t, 3*time.Minute)
	who := newPerson(t, ctx, shared.rig, "canary")
	who.SignIn(t, ctx, idp.Claude)
	// The tool's own use of the token is where it could come to lie in the home.
	who.Run(t, ctx, "claude -p hello")

	tokens := shared.rig.IDP.IssuedTokens()
	scanner, err := canary.New(tokens)
	must(t, err)
	t.Logf("looking for %d tokens and codes", len(tokens))
	look := func() []string {
		t.Helper()
		began := time.Now()
		files, err := scanner.Files(shared.rig.Dir())
		must(t, err)
		processes, err := scanner.Processes()
		must(t, err)
		t.Logf("looked in %.1fs", time.Since(began).Seconds())
		var all []string
		for _, f := range slices.Concat(files, processes) {
			all = append(all, f.Where)
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	for _, where := range look() {
		t.Errorf("a token is in %s", where)
	}

	want := plant(t, tokens[len(tokens)-1])
	if found := look(); !slices.Equal(found, want) {
		t.Errorf("planted in\n  %s\nfound in\n  %s", strings.Join(want, "\n  "), strings.Join(found, "\n  "))
	}
}

// plant leaves a token in each of the places where one could come to lie, and
// returns their names. The test's end takes it away.
func plant(t *testing.T, token string) []string {
	t.Helper()
	state := shared.rig.StateDir()
	homes, err := filepath.Glob(filepath.Join(state, "homes", "*"))
	must(t, err)
	if len(homes) == 0 {
		t.Fatal("nobody has a home")
	}
	var places []string
	for path, content := range map[string]string{
		filepath.Join(homes[0], "planted"):       "token=" + token,
		filepath.Join(state, "anteroom.db-copy"): strings.Repeat("\x00", 5000) + token,
		shared.rig.LogFile():                     "level=INFO token=" + base64.StdEncoding.EncodeToString([]byte("Bearer "+token)) + "\n",
	} {
		size := int64(0)
		if info, err := os.Stat(path); err == nil {
			size = info.Size()
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = f.WriteString(content)
		must(t, err)
		must(t, f.Close())
		t.Cleanup(func() {
			if size == 0 {
				must(t, os.Remove(path))
			}
		})
		places = append(places, path)
	}
	for part, cmd := range map[string]*exec.Cmd{
		"cmdline": exec.Command("cat", "-", token),
		"environ": {Path: "/bin/cat", Args: []string{"cat"}, Env: []string{"TOKEN=" + token}},
	} {
		in, err := cmd.StdinPipe() // it runs until this is closed
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		places = append(places, fmt.Sprintf("process %d: %s", cmd.Process.Pid, part))
	}
	slices.Sort(places)
	return places
}

// asked finds in the server's log for which session a machine asked for a name.
var asked = regexp.MustCompile(`msg=egress .*\bsession=([a-z2-7]+) .*\bname=(\S+) `)

// TestQuiet checks that the browser machines so far have reached for nothing
// but what their tool and its sign-in need: Chromium has calls of its own to
// make, which tell its maker who signs in to what, and when.
func TestQuiet(t *testing.T) {
	ctx := limit(t, time.Minute)
	files, err := provider.Load("")
	must(t, err)
	also := map[string][]string{
		// Where the sign-in ends, and the tool's own telemetry.
		"gemini": {"developers.google.com", "play.googleapis.com"},
	}
	log, err := os.ReadFile(shared.rig.LogFile())
	must(t, err)
	lines := asked.FindAllStringSubmatch(string(log), -1)
	if len(lines) == 0 {
		t.Fatal("the log tells of no connection")
	}
	strange := map[string]int{}
	for _, m := range lines {
		s, err := shared.rig.DB().Session(ctx, session.ID(m[1]))
		must(t, err)
		file, err := files.Get(s.Provider)
		if errors.Is(err, provider.ErrUnknown) {
			continue // a tool that another test has made up
		}
		must(t, err)
		if !slices.Contains(slices.Concat(file.Hosts, also[s.Provider]), m[2]) {
			strange[s.Provider+": "+m[2]]++
		}
	}
	for what, n := range strange {
		t.Errorf("%s: asked for %d times", what, n)
	}
}
