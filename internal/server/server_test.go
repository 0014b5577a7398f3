package server

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/store"
)

const hardenEnv = "ANTEROOM_TEST_HARDEN"

// Whoever opens the vault (serve, vault rotate) cannot be dumped with the key.
func TestOpenVaultHardens(t *testing.T) {
	if os.Getenv(hardenEnv) == "" { // a process of its own, since there is no way back
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOpenVaultHardens$", "-test.v")
		cmd.Env = append(os.Environ(), hardenEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	cfg := Defaults()
	cfg.StateDir = t.TempDir()
	db, err := OpenStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || before != 1 {
		t.Fatalf("dumpable is %d before (%v): the test shows nothing", before, err)
	}
	if _, err := OpenVault(t.Context(), cfg, db); err != nil {
		t.Fatal(err)
	}
	if after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || after != 0 {
		t.Errorf("dumpable is %d (%v)", after, err)
	}
}

func TestSignInLink(t *testing.T) {
	cfg := Defaults()
	cfg.StateDir = t.TempDir()
	cfg.WithoutLink = true
	db, err := OpenStore(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	listen := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	address, link, err := signInLink(t.Context(), cfg, db, listen)
	if err != nil || address != "http://127.0.0.1:8080" || link != "" {
		t.Fatalf("without a link: %q, %q, %v", address, link, err)
	}
	u, err := db.UserByName(t.Context(), cfg.User)
	if err != nil {
		t.Fatalf("the user was not made: %v", err)
	}
	if tokens, err := db.Tokens(t.Context(), u.ID); err != nil || len(tokens) > 0 {
		t.Errorf("a link that nobody sees was made: %v, %v", tokens, err)
	}
	cfg.WithoutLink = false
	if _, link, err = signInLink(t.Context(), cfg, db, listen); err != nil || !strings.HasPrefix(link, "http://127.0.0.1:8080/#login=") {
		t.Errorf("%q, %v", link, err)
	}
	if tokens, err := db.Tokens(t.Context(), u.ID); err != nil || len(tokens) != 1 || tokens[0].Kind != store.TokenLink {
		t.Errorf("%v, %v", tokens, err)
	}
	cfg.User = "another"
	if _, link, err = signInLink(t.Context(), cfg, db, listen); err != nil || link != "" {
		t.Errorf("a user was made beside others: %q, %v", link, err)
	}
}
