//go:build linux

package guest

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/provider"
)

// TestMain makes the test binary the browser under the hooks' names, as the
// agent's program is in a machine.
func TestMain(m *testing.M) {
	if name := filepath.Base(os.Args[0]); provider.HookName(name) && !strings.Contains(name, "test") {
		os.Exit(HookMain(os.Args))
	}
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// hookProgram is a copy of the test binary that every user may run.
var hookProgram string

func runTests(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "guest-test")
	if err != nil {
		return 1, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		return 1, err
	}
	hookProgram = filepath.Join(dir, "agent.test")
	if err := copyFile(hookProgram, "/proc/self/exe"); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// openTempDir is a temporary directory that every user may enter.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// testUser is an unprivileged user with a home of its own, or ourselves where
// the test does not run as root.
func testUser(t *testing.T) User {
	t.Helper()
	u := User{Name: "person", UID: os.Getuid(), GID: os.Getgid(), Home: filepath.Join(openTempDir(t), "home")}
	if u.UID == 0 {
		u.UID, u.GID = PersonUID, PersonGID
	}
	if err := os.Mkdir(u.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(u.Home, u.UID, u.GID); err != nil {
		t.Fatal(err)
	}
	return u
}

// put writes a file of u's below its home.
func put(t *testing.T, u User, path, content string) {
	t.Helper()
	file := filepath.Join(u.Home, path)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for p := file; p != u.Home; p = filepath.Dir(p) {
		if err := os.Lchown(p, u.UID, u.GID); err != nil {
			t.Fatal(err)
		}
	}
}

// program puts a shell script into a directory for PATH.
func program(t *testing.T, dir, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// toolFile is the provider file of the fake tools.
func toolFile(t *testing.T, change func(f *provider.File)) *provider.File {
	t.Helper()
	f := &provider.File{
		Name: "tool", Title: "Tool", Vendor: "Example", Terms: "https://example.com/terms", Version: "1",
		Login: provider.Login{Argv: []string{"tool", "login"}, Flow: "loopback", Timeout: "10m", ExitsOnSuccess: true},
		URL:   provider.URL{Hooks: []string{"BROWSER", "xdg-open", "x-www-browser", "xdg-settings"}, Hosts: []string{"login.example.com"}},
		Files: []provider.Credential{
			{Name: "creds", Path: ".tool/creds.json", Required: true, Secret: true, NonEmpty: []string{"/token"}, Types: map[string]string{"/token": "string"}},
			{Name: "account", Path: ".tool/account.json"},
		},
		Account: &provider.Value{Path: ".tool/account.json", Pointer: "/email"},
		Expiry:  &provider.Value{Path: ".tool/creds.json", Pointer: "/expires", Unit: "s"},
		Target: provider.Target{
			PrivateDirs: []provider.PrivateDir{{Path: ".tool", Keep: []string{"data"}, Skip: []string{"*.lock"}}},
			Seed:        []provider.Seed{{Path: ".tool/settings.json", Content: `{"seeded":true}`}, {Path: ".toolrc", Content: "seeded"}},
		},
		Hosts: []string{"login.example.com"},
		CAEnv: []string{"TOOL_CA"},
	}
	if change != nil {
		change(f)
	}
	if err := f.Validate(); err != nil {
		t.Fatal(err)
	}
	return f
}
