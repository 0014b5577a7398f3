//go:build linux

package gvisor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/machinetest"
)

// creatorEnv makes this test program a server that makes one machine and can be
// killed while it does.
const creatorEnv = "ANTEROOM_TEST_CREATOR"

type creation struct {
	Config Config
	ID     string
}

// creatorMain makes a machine; it says when it begins.
func creatorMain() int {
	var c creation
	if err := json.Unmarshal([]byte(os.Getenv(creatorEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c.Config.Logger = slog.New(slog.DiscardHandler)
	d, err := New(c.Config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	d.UseSnapshot("test")
	d.HasSnapshot() // checked before, so that the moments below are those of Create
	fmt.Println("begins")
	if _, err := d.Create(context.Background(), machine.Spec{ID: c.ID, Kind: machine.Browser}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("made")
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
	return 0
}

// testCreatorKilled: whenever a server is killed, the next one finds all that
// it left. What runsc was doing for it goes on for a while; reclaiming must
// end that too.
func testCreatorKilled(t *testing.T, cfg Config) {
	d := newDriver(t, cfg)
	before := trace(t, cfg.StateDir)
	for _, after := range []time.Duration{0, 5 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond, -1} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			killCreator(t, cfg, after)
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if _, err := machine.NewManager(d, cfg.Logger).Reclaim(ctx, nil); err != nil {
				t.Fatal(err)
			}
			// A runsc that had not begun ends by itself, for want of its directory.
			left := trace(t, cfg.StateDir)
			for !slices.Equal(left, before) && ctx.Err() == nil {
				<-time.After(10 * time.Millisecond)
				left = trace(t, cfg.StateDir)
			}
			if !slices.Equal(left, before) {
				t.Errorf("left: %q\nwant: %q", left, before)
			}
		})
	}
}

// killCreator starts a creator and kills it, after a time or (-1) once it has
// made its machine.
func killCreator(t *testing.T, cfg Config, after time.Duration) {
	t.Helper()
	cfg.Logger = nil
	config, err := json.Marshal(creation{Config: cfg, ID: fmt.Sprintf("%skilled%d", machinetest.Prefix(), max(after.Milliseconds(), 0))})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), creatorEnv+"="+string(config))
	cmd.Stderr = os.Stderr
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
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "begins" {
		t.Fatalf("the creator says %q", lines.Text())
	}
	if after < 0 {
		if !lines.Scan() || lines.Text() != "made" {
			t.Fatalf("the creator says %q", lines.Text())
		}
	} else {
		<-time.After(after)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}
