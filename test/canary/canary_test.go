package canary_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/anteroom/anteroom/test/canary"
)

const secret = "sk-test/oat01+0123456789abcdefghijklmnopqrstuvwxyz"

func scanner(t *testing.T) *canary.Scanner {
	t.Helper()
	s, err := canary.New([]string{secret, "another-secret-that-is-nowhere"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestForms(t *testing.T) {
	tests := map[string]string{
		"plain": "x" + secret + "y",
		"hex":   hex.EncodeToString([]byte(secret)),
		"URL":   "code=" + url.QueryEscape(secret) + "&x",
		"UTF-16": func() string {
			var b strings.Builder
			for _, c := range []byte(secret) {
				b.Write([]byte{c, 0})
			}
			return b.String()
		}(),
		"base64+0":    base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64+1":    base64.StdEncoding.EncodeToString([]byte("a" + secret)),
		"base64+2":    base64.StdEncoding.EncodeToString([]byte("ab" + secret + "and more")),
		"base64url+0": base64.RawURLEncoding.EncodeToString([]byte("abc" + secret)),
	}
	s := scanner(t)
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			for _, text := range []string{text, strings.Repeat("-", 3<<20) + text + strings.Repeat("-", 100)} {
				found, err := s.Read(strings.NewReader(text))
				if err != nil || !slices.Contains(found, name) {
					t.Errorf("found %v, %v in %d bytes", found, err, len(text))
				}
			}
		})
	}
}

// Wherever a secret is cut by a read, it is found.
func TestCut(t *testing.T) {
	s := scanner(t)
	text := strings.Repeat(".", 1000) + secret + strings.Repeat(".", 1000)
	for name, r := range map[string]func(io.Reader) io.Reader{"byte": iotest.OneByteReader, "half": iotest.HalfReader, "late": iotest.DataErrReader} {
		if found, err := s.Read(r(strings.NewReader(text))); err != nil || len(found) != 1 {
			t.Errorf("%s: found %v, %v", name, found, err)
		}
	}
}

func TestNothing(t *testing.T) {
	s := scanner(t)
	text := bytes.Repeat([]byte(secret[:len(secret)-1]+" "+secret[1:]+"\n"), 100)
	if found, err := s.Read(bytes.NewReader(text)); err != nil || len(found) != 0 {
		t.Errorf("found %v, %v in parts of the secret", found, err)
	}
	if _, err := canary.New([]string{"short"}); err == nil {
		t.Error("a short secret is taken")
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	deep := filepath.Join(dir, "a", "b")
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	plain := filepath.Join(deep, "file")
	name := filepath.Join(dir, url.QueryEscape(secret))
	for path, content := range map[string]string{plain: "..." + secret, name: "", filepath.Join(dir, "clean"): "nothing"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := scanner(t).Files(dir)
	want := []canary.Found{{Where: "the name of " + name, As: "URL"}, {Where: plain, As: "plain"}}
	for _, w := range want {
		if !slices.Contains(found, w) {
			t.Errorf("found %v, %v; want %v", found, err, w)
		}
	}
	if len(found) != len(want) || err != nil {
		t.Errorf("found %v, %v; want %v", found, err, want)
	}
}

func TestProcesses(t *testing.T) {
	s := scanner(t)
	if found, err := s.Processes(); err != nil || len(found) != 0 {
		t.Fatalf("found %v, %v before anything was planted", found, err)
	}
	for part, cmd := range map[string]*exec.Cmd{
		"cmdline": exec.Command("cat", "-", secret),
		"environ": {Path: "/bin/cat", Args: []string{"cat"}, Env: []string{"TOKEN=" + secret}},
	} {
		t.Run(part, func(t *testing.T) {
			in, err := cmd.StdinPipe() // it runs until this is closed
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = in.Close(); _ = cmd.Wait() }()
			found, err := s.Processes()
			if err != nil || len(found) != 1 || !strings.HasSuffix(found[0].Where, part) {
				t.Errorf("found %v, %v", found, err)
			}
		})
	}
}
