//go:build linux

package firecracker

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
)

// creatorEnv makes this test program a server that makes one machine and can be
// killed while it does.
const creatorEnv = "ANTEROOM_TEST_CREATOR"

type creation struct {
	Config Config
	ID     string
	Cold   bool
}

// creatorMain makes a machine; it says when it begins and when it has.
func creatorMain() int {
	var c creation
	if err := json.Unmarshal([]byte(os.Getenv(creatorEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c.Config.Logger = slog.New(slog.DiscardHandler)
	d, err := New(context.Background(), c.Config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	d.UseSnapshot("test")
	d.HasSnapshot() // checked before, so that what follows is Create's
	fmt.Println("begins")
	if _, err := d.Create(context.Background(), machine.Spec{ID: c.ID, Kind: machine.Browser, Cold: c.Cold}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("made")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	return 0
}

// Whenever a server is killed while it makes a machine, the next one finds all
// that it left. Each step is reached, and held there, before the server is
// killed.
func TestCreatorKilled(t *testing.T) {
	good := settings("1.16.2")
	cfg := pretended(t, good)
	d := newDriver(t, cfg)
	save(t, d)
	before := trace(t, cfg.StateDir)
	type moment struct {
		what    string
		cold    bool
		spoil   func(*fctest.Settings)
		reached string // a file in the jail's root; empty: the machine is made
	}
	moments := []moment{{"made", false, func(*fctest.Settings) {}, ""}}
	for _, step := range []string{"begin", "cgroups", "jailed"} {
		moments = append(moments, moment{"the jailer: " + step, true, func(s *fctest.Settings) { s.JailerHangs = step }, fctest.ReachedFile})
	}
	for _, operation := range []string{"PUT /machine-config", "PUT /boot-source", "PUT /drives/image", "PUT /vsock", "PUT /actions", "PUT /snapshot/load"} {
		moments = append(moments, moment{operation, operation != "PUT /snapshot/load", func(s *fctest.Settings) {
			s.Faults = map[string]fctest.Fault{operation: {Hang: true}}
		}, fctest.RequestsFile})
	}
	for i, m := range moments {
		t.Run(m.what, func(t *testing.T) {
			s := good
			m.spoil(&s)
			change(t, cfg, s)
			id := newID(200 + i)
			killCreator(t, d, creation{Config: cfg, ID: id, Cold: m.cold}, m.reached, m.what)
			if _, err := machine.NewManager(d, cfg.Logger).Reclaim(limited(t), nil); err != nil {
				t.Fatal(err)
			}
			if left := trace(t, cfg.StateDir); !slices.Equal(left, before) {
				t.Errorf("left: %q\nwant: %q", left, before)
			}
		})
	}
}

// creator is a program that makes a machine.
func creator(t *testing.T, c creation) *exec.Cmd {
	t.Helper()
	c.Config.Logger = nil
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), creatorEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	return cmd
}

// killCreator starts a creator and kills it once it has come to a step.
func killCreator(t *testing.T, d *Driver, c creation, reached, operation string) {
	t.Helper()
	cmd := creator(t, c)
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if reached == "" {
		lines := bufio.NewScanner(out)
		for lines.Scan() && lines.Text() == "begins" {
			continue
		}
		if lines.Text() != "made" {
			t.Errorf("the creator says %q", lines.Text())
		}
	} else {
		awaitStep(t, d, c.ID, reached, operation)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

// awaitStep waits until a machine's jailer, or its Firecracker, has come to where
// it hangs.
func awaitStep(t *testing.T, d *Driver, id, reached, operation string) {
	t.Helper()
	file := filepath.Join(jailRoot(d.jailDir(id), "firecracker", id), reached)
	for ctx := limited(t); ctx.Err() == nil; <-time.After(2 * time.Millisecond) {
		if _, err := os.Stat(file); err != nil {
			continue
		}
		if reached != fctest.RequestsFile || slices.ContainsFunc(requests(t, d, id), func(r fctest.Request) bool { return r.Operation == operation }) {
			return
		}
	}
	t.Errorf("%s was never reached", operation)
}
