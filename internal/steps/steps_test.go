package steps

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p := New(f)
	if err := p.Do("First", func(status Status) error {
		status("not shown")
		p.Note("in %s", "between")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	bad := errors.New("it broke")
	if err := p.Do("Second", func(Status) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("the step's error is %v", err)
	}
	out, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^· First …\nin between\n✓ First +0\.\d s\n· Second …\n✗ Second +0\.\d s  it broke\n$`)
	if !want.Match(out) {
		t.Errorf("printed %q", out)
	}
}

func TestTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := &Printer{out: &out, terminal: true}
		if err := p.Do("Step", func(status Status) error {
			status("\x1b[2J  halfway\r\n")
			<-time.After(3 * time.Second)
			status(strings.Repeat("ä", 200))
			<-time.After(time.Second)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(out.String(), "\r\033[K")
		if len(lines) < 15 || !strings.Contains(lines[10], "halfway") || strings.Contains(lines[10], "\x1b") {
			t.Errorf("%d lines, the tenth is %q", len(lines), lines[10])
		}
		long := lines[len(lines)-3]
		if !utf8.ValidString(long) || strings.Count(long, "ä") != maxWords {
			t.Errorf("a long status: %q", long)
		}
		if last := lines[len(lines)-1]; !strings.HasPrefix(last, "✓ Step") || !strings.HasSuffix(last, "4.0 s\n") {
			t.Errorf("the last line is %q", last)
		}
	})
}
