//go:build linux

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/anteroom/anteroom/internal/machine"
)

// creatorEnv makes this test program a server that makes one machine and can be
// killed while it does.
const creatorEnv = "ANTEROOM_TEST_CREATOR"

type creation struct {
	Config Config
	Image  string // its path, which is not in what describes it
	ID     string
}

// creatorMain makes a machine; it says when it begins.
func creatorMain() int {
	var c creation
	if err := json.Unmarshal([]byte(os.Getenv(creatorEnv)), &c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c.Config.Image.Path = c.Image
	c.Config.Logger = slog.New(slog.DiscardHandler)
	d, err := New(context.Background(), c.Config)
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

// creator is a program that makes a machine.
func creator(t *testing.T, cfg Config, id string) *exec.Cmd {
	t.Helper()
	cfg.Logger = nil
	config, err := json.Marshal(creation{Config: cfg, Image: cfg.Image.Path, ID: id})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), creatorEnv+"="+string(config))
	cmd.Stderr = os.Stderr
	return cmd
}
