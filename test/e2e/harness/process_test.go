package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const racing = `package main

func main() {
	n, done := 0, make(chan bool)
	go func() { n++; done <- true }()
	n++
	<-done
	println(n)
}
`

// What the race detector writes into a server's log fails its test.
func TestDataRaces(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "serve.log")
	if err := os.WriteFile(log, []byte("level=INFO msg=serving\nlevel=WARN msg=\"a race\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := dataRaces(log); err != nil {
		t.Errorf("a log without any: %v", err)
	}
	if err := dataRaces(filepath.Join(dir, "none")); err == nil {
		t.Error("no log, and no error")
	}
	program := filepath.Join(dir, "racing.go")
	if err := os.WriteFile(program, []byte(racing), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", "-race", program)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("a program with a race ended well: %s", out)
	}
	f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(out); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dataRaces(log); err == nil || !strings.Contains(err.Error(), "1 data races") || !strings.Contains(err.Error(), "main.main") {
		t.Errorf("a log with one: %v", err)
	}
}
