package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/server"
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

// A link is a key for a quarter of an hour: none in a journal.
func TestNoLinkInAJournal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = r.Close(), w.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(int(w.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{
		"":                                     false,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false, // standard output was led elsewhere
	} {
		t.Setenv("JOURNAL_STREAM", stream)
		if got := isJournal(w); got != want {
			t.Errorf("JOURNAL_STREAM=%s: %v", stream, got)
		}
	}
	got := printed(t, func(a *app) { a.ready(server.Config{User: "owner"}, "https://a.example", "") })
	if !strings.Contains(got, "ready at https://a.example\n") || !strings.Contains(got, "anteroom user link") {
		t.Errorf("without a link: %s", got)
	}
}
