package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/provider"
)

// printed is what f prints on standard output.
func printed(t *testing.T, f func(a *app)) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	f(&app{out: out, err: out})
	text, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A tunnel is needed only where the link leads to this computer itself.
func TestConnectLink(t *testing.T) {
	here := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080}
	for link, tunnel := range map[string]bool{
		"http://127.0.0.1:8080/sessions/x#login=y": true,
		"https://a.example/sessions/x#login=y":     false,
	} {
		got := printed(t, func(a *app) { a.printConnectLink(&provider.File{Title: "Tool"}, here, link) })
		if !strings.Contains(got, link) || strings.Contains(got, "ssh -L 8080:127.0.0.1:8080") != tunnel {
			t.Errorf("%s: %s", link, got)
		}
	}
}
