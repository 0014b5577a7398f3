package sqlite

import (
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

const claimEnv = "ANTEROOM_TEST_SQLITE_CLAIM"

// TestPortsOfSeveralProcesses is its own claimants: each of four processes
// claims a port for each of a hundred users, of a hundred ports. Run with
// claimEnv it is one of them and prints who got which.
func TestPortsOfSeveralProcesses(t *testing.T) {
	if path := os.Getenv(claimEnv); path != "" {
		claimAll(t, openAt(t, path))
		return
	}
	const n = 100
	path := newPath(t)
	db := openAt(t, path)
	keys := make([]store.PortKey, n)
	for i := range keys {
		keys[i] = store.PortKey{Host: "proxy.example", Port: 10001 + i}
		if _, err := db.CreateUser(t.Context(), fmt.Sprintf("user %d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.SyncPorts(t.Context(), keys); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var cmds []*osexec.Cmd
	outs := make([]strings.Builder, 4)
	for i := range outs {
		cmd := osexec.CommandContext(ctx, os.Args[0], "-test.run=^TestPortsOfSeveralProcesses$", "-test.v")
		cmd.Env = append(os.Environ(), claimEnv+"="+path)
		cmd.Stdout, cmd.Stderr = &outs[i], &outs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	has, of := map[string]string{}, map[string]string{}
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("process %d: %v\n%s", i, err, outs[i].String())
		}
		got := 0
		for line := range strings.Lines(outs[i].String()) {
			user, port, ok := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "claimed ")), " has ")
			if !strings.HasPrefix(line, "claimed ") || !ok {
				continue
			}
			got++
			if was := has[user]; was != "" && was != port {
				t.Errorf("%s has %s and %s", user, was, port)
			}
			if was := of[port]; was != "" && was != user {
				t.Errorf("%s belongs to %s and %s", port, was, user)
			}
			has[user], of[port] = port, user
		}
		if got != n {
			t.Errorf("process %d got %d ports", i, got)
		}
	}
	late, err := db.CreateUser(t.Context(), "late")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := db.ClaimPort(t.Context(), late.ID, "claude", time.Time{}); !errors.Is(err, store.ErrNoPort) {
		t.Errorf("one more user: %v", err)
	}
}

func claimAll(t *testing.T, db *DB) {
	users, err := db.Users(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range users {
		p, _, err := db.ClaimPort(t.Context(), u.ID, "claude", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("claimed %s has %s\n", u.ID, p.PortKey)
	}
}
