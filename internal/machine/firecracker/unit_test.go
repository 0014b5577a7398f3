//go:build linux

package firecracker

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/machine"
)

func TestParseVersion(t *testing.T) {
	for output, want := range map[string]Version{
		"Firecracker v1.10.1\n\nSupported snapshot data format versions: 4.0.0\n": {1, 10, 1, ""},
		"Firecracker v1.16.2\n2026-09-03T10:00:00 exiting successfully\n":         {1, 16, 2, ""},
		"Jailer v1.17.0-dev\n":                  {1, 17, 0, "dev"},
		"Firecracker v1.12.0-12-gabcdef-dirty ": {1, 12, 0, "12-gabcdef-dirty"},
	} {
		if got, err := ParseVersion(output); err != nil || got != want {
			t.Errorf("%q: %+v, %v", output, got, err)
		}
	}
	for _, output := range []string{"", "1.10.1", "Firecracker 1.10.1", "Firecracker v1.10", "Firecracker v1.10.1.2", "QEMU emulator version 7.2", "Firecracker v9999999.1.1", "\nFirecracker v1.10.1"} {
		if v, err := ParseVersion(output); !errors.Is(err, ErrVersion) {
			t.Errorf("%q is taken for %v (%v)", output, v, err)
		}
	}
}

func TestUsable(t *testing.T) {
	for text, want := range map[string]struct{ usable, override bool }{
		"0.25.0": {false, false}, "1.9.1": {false, false}, "1.10.0-rc1": {false, false}, "1.10.0": {true, false}, "1.15.2": {true, false},
		"1.16.0-dev": {true, false}, "1.16.0": {true, true}, "1.17.0-dev": {true, true}, "1.99.0": {true, true}, "2.0.0": {false, true},
	} {
		v, err := ParseVersion("Firecracker v" + text)
		if err != nil {
			t.Fatal(err)
		}
		if v.Restores() == (text == "1.16.0") {
			t.Errorf("%s restores: %v", v, v.Restores())
		}
		if err := v.Usable(); (err == nil) != want.usable || v.hasVsockOverride() != want.override || v.String() != text {
			t.Errorf("%s: %v, override %v", v, err, v.hasVsockOverride())
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("Firecracker v1.10.1\n")
	f.Add("Jailer v1.17.0-dev")
	f.Fuzz(func(t *testing.T, output string) {
		if v, err := ParseVersion(output); err == nil {
			again, err := ParseVersion("Firecracker v" + v.String())
			if err != nil || again != v {
				t.Errorf("%q is %v, and that is %v (%v)", output, v, again, err)
			}
		}
	})
}

func FuzzReadOK(f *testing.F) {
	for _, s := range []string{"OK 1073741824\n", "OK 1\nmore", "OK \n", "OK 12", "", "NO 1\n", "OK 1x\n", "OK 99999999999\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		r := bytes.NewReader(said)
		err := readOK(r)
		if read := len(said) - r.Len(); read > maxAnswer {
			t.Errorf("%d bytes of %q are read", read, said)
		}
		if err != nil {
			return
		}
		line, _, found := bytes.Cut(said, []byte("\n"))
		if !found || !bytes.HasPrefix(line, []byte("OK ")) || r.Len() != len(said)-len(line)-1 {
			t.Errorf("%q is taken for an answer, and %d bytes are left", said, r.Len())
		}
	})
}

// guests answers each connection to a socket in turn, and keeps what was asked.
func guests(t *testing.T, answers ...func(net.Conn)) (dial func(context.Context) (net.Conn, error), asked func() []string) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 64)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			said, _ := bufio.NewReader(conn).ReadString('\n')
			lines <- said
			answers[min(i, len(answers)-1)](conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-ended })
	return func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.Addr().String())
		}, func() []string {
			close(lines)
			return slices.Collect(func(yield func(string) bool) {
				for l := range lines {
					if !yield(l) {
						return
					}
				}
			})
		}
}

func say(text string) func(net.Conn) {
	return func(conn net.Conn) { _, _ = io.WriteString(conn, text) }
}

// never answers until the other end gives up.
func never(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// A guest that does not listen yet, and a request that is never answered, are
// tried again; what comes behind the answer is the guest's.
func TestDialGuest(t *testing.T) {
	dial, asked := guests(t, say(""), say("OK"), say("NO 5\n"), never, say("OK 1073741825\nhello"))
	began := time.Now()
	conn, err := dialGuest(limited(t), dial, linePort, answerTime)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if took := time.Since(began); took < answerTime || took > 10*answerTime {
		t.Errorf("it took %s, with one answer that never came", took)
	}
	if rest, err := io.ReadAll(conn); err != nil || string(rest) != "hello" {
		t.Errorf("the guest says %q, %v", rest, err)
	}
	if got := asked(); !slices.Equal(got, slices.Repeat([]string{"CONNECT 1024\n"}, 5)) {
		t.Errorf("asked: %q", got)
	}
}

// An answer that is late each time comes in time once there is enough of it.
func TestDialGuestLate(t *testing.T) {
	late := func(conn net.Conn) {
		timer := time.NewTimer(100 * time.Millisecond)
		defer timer.Stop()
		<-timer.C
		_, _ = io.WriteString(conn, "OK 1\n")
	}
	dial, asked := guests(t, late)
	conn, err := dialGuest(limited(t), dial, linePort, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if n := len(asked()); n < 3 || n > 6 {
		t.Errorf("it took %d tries", n)
	}
}

func TestDialGuestEnds(t *testing.T) {
	dial, _ := guests(t, never)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := dialGuest(ctx, dial, linePort, answerTime); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a guest that never answers: %v", err)
	}
	reason := errors.New("the machine has ended")
	why, stop := context.WithCancelCause(t.Context())
	stop(reason)
	if _, err := dialGuest(why, dial, linePort, answerTime); !errors.Is(err, reason) {
		t.Errorf("a cause: %v", err)
	}
	gone := func(context.Context) (net.Conn, error) { return nil, machine.ErrGone }
	if _, err := dialGuest(limited(t), gone, linePort, answerTime); !errors.Is(err, machine.ErrGone) {
		t.Errorf("a machine that is gone: %v", err)
	}
}

func TestJailerArgs(t *testing.T) {
	c := confinement{id: "abcdefgh", uid: 1900100007, base: "/state/machines/abcdefgh/jail", memory: 1 << 30, cpus: 1.5, maxFile: 1 << 20}
	common := "--id abcdefgh --exec-file /opt/firecracker --uid 1900100007 --gid 1900100007 --chroot-base-dir /state/machines/abcdefgh/jail " +
		"--new-pid-ns --resource-limit fsize=68157440 --resource-limit no-file=256"
	const end = " -- --api-sock /run/api.sock"
	for groups, limits := range map[int]string{
		0: "",
		1: " --cgroup-version 1 --parent-cgroup anteroom --cgroup memory.limit_in_bytes=1140850688 --cgroup cpu.cfs_period_us=100000 --cgroup cpu.cfs_quota_us=150000 --cgroup pids.max=64",
		2: " --cgroup-version 2 --parent-cgroup anteroom --cgroup memory.max=1140850688 --cgroup cpu.max=150000 100000 --cgroup pids.max=64",
	} {
		c.groups = groups
		if got := strings.Join(jailerArgs("/opt/firecracker", c), " "); got != common+limits+end {
			t.Errorf("%d:\n%s, want\n%s", groups, got, common+limits+end)
		}
		// Nothing turns the seccomp filter off, and there is no network to join.
		for _, arg := range jailerArgs("/opt/firecracker", c) {
			if strings.Contains(arg, "seccomp") || strings.Contains(arg, "netns") {
				t.Errorf("%s", arg)
			}
		}
	}
}

func TestJail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can mount")
	}
	dir := t.TempDir()
	file, shared, saved := filepath.Join(dir, "file"), filepath.Join(dir, "shared"), filepath.Join(dir, "saved dir")
	for _, f := range []string{file, shared} {
		if err := os.WriteFile(f, []byte("content"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(saved, 0o755); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(dir, "a jail")
	root := jailRoot(base, "firecracker", "abcdefgh")
	t.Cleanup(func() { _ = unmountJail(base) })
	if err := mountJail(base, root, 4096, []bind{{file, "/image", false}, {shared, "/snapshot/home", true}, {saved, "/save", true}}); err != nil {
		t.Fatal(err)
	}
	if mounts, err := mountsBelow(base); err != nil || len(mounts) != 4 {
		t.Errorf("mounts: %q, %v", mounts, err)
	}
	if err := os.WriteFile(filepath.Join(root, "image"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to the image: %v", err)
	}
	for _, name := range []string{"snapshot/home", "save/state"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("new"), 0o600); err != nil {
			t.Error(err)
		}
	}
	if got := textOf(t, shared) + textOf(t, filepath.Join(saved, "state")); got != "newnew" {
		t.Errorf("on the host: %q", got)
	}
	if err := os.WriteFile(filepath.Join(root, "flood"), make([]byte, 2*jailRoom), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing more than there is room for: %v", err)
	}
	for range 2 {
		if err := unmountJail(base); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(base); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := unmountJail(filepath.Join(dir, "nothing")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
	// One that cannot be finished leaves something to unmount, and says why.
	if err := mountJail(filepath.Join(dir, "half"), filepath.Join(dir, "half/root"), 0, []bind{{filepath.Join(dir, "missing"), "/x", false}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with a file that is missing: %v", err)
	}
	if err := unmountJail(filepath.Join(dir, "half")); err != nil {
		t.Error(err)
	}
}

func TestDigHoles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "memory")
	content := make([]byte, 3<<20+100)
	for _, at := range []int{0, 5 * holeSize, 2<<20 + 17, 3<<20 + 50} {
		content[at] = 7
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := digHoles(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("it reads otherwise: %v", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil || st.Blocks*512 > 64<<10 {
		t.Errorf("it takes %d bytes (%v)", st.Blocks*512, err)
	}
}

func TestLastWords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if got := lastWords(path); !strings.Contains(got, "no such file") {
		t.Errorf("without a log: %q", got)
	}
	for said, want := range map[string]string{
		"":                                "",
		"one\r\n\x1b[31mtwo\xff\x00 \n":   "one [31mtwo",
		strings.Repeat("x", 2*maxWords):   strings.Repeat("x", maxWords),
		strings.Repeat("\n", 600) + "end": "end",
	} {
		if err := os.WriteFile(path, []byte(said), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lastWords(path); got != want {
			t.Errorf("%q becomes %q", said, got)
		}
	}
}

func TestUIDs(t *testing.T) {
	for u, good := range map[UIDs]bool{
		{First: 1_900_100_000, Count: 4096}: true, {First: 1000, Count: 1}: true,
		{}: false, {First: 0, Count: 10}: false, {First: 999, Count: 10}: false, {First: 1<<31 - 2, Count: 10}: false, {First: 1 << 31, Count: 1}: false,
	} {
		if err := u.check(); (err == nil) != good {
			t.Errorf("%+v: %v", u, err)
		}
	}
}

func TestParseUIDs(t *testing.T) {
	for text, want := range map[string]UIDs{"1900100000-1900104095": DefaultUIDs(), "5000-5000": {First: 5000, Count: 1}} {
		if got, err := ParseUIDs(text); err != nil || got != want || got.String() != text {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5000", "5000-", "-5000", "6000-5000", "10-20", "0-4294967295", "5000-99999999999", "a-b", "5000-6000-7000"} {
		if u, err := ParseUIDs(text); err == nil {
			t.Errorf("%q is taken for %v", text, u)
		}
	}
}

func TestBootArgs(t *testing.T) {
	for kind, want := range map[machine.Kind]string{machine.Browser: "anteroom.kind=browser anteroom.line=vsock-listen:1024 ", machine.CLI: "anteroom.kind=cli anteroom.line=vsock-listen:1024 "} {
		if got := bootArgs(kind); !strings.HasPrefix(got, want) || !strings.Contains(got, "panic=-1") {
			t.Errorf("%q", got)
		}
	}
}

func TestPrograms(t *testing.T) {
	good := install(t, settings("1.12.1"))
	fc, jailer := filepath.Join(good, "firecracker"), filepath.Join(good, "jailer")
	if v, err := CheckPrograms(t.Context(), fc, jailer); err != nil || v != (Version{1, 12, 1, ""}) {
		t.Errorf("%v, %v", v, err)
	}
	old, other := install(t, settings("1.9.1")), install(t, settings("1.13.0"))
	renamed := filepath.Join(good, "fc")
	if err := os.Link(fc, renamed); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what, fc, jailer string
		is               error
		says             string
	}{
		{"none", "/nonexistent/firecracker", jailer, ErrMissing, "firecracker-v" + Suggested + "-x86_64.tgz"},
		{"no jailer", fc, "/nonexistent/jailer", ErrMissing, "/nonexistent/jailer"},
		{"an old one", filepath.Join(old, "firecracker"), filepath.Join(old, "jailer"), ErrVersion, "must be 1.10.0 or newer"},
		{"two releases", fc, filepath.Join(other, "jailer"), ErrVersion, "take both from one release"},
		{"another program", "/bin/true", jailer, ErrVersion, "--version says"},
		{"one that fails", "/bin/false", jailer, nil, "exit status 1"},
		{"another name", renamed, jailer, nil, "firecracker in their name"},
	} {
		_, err := CheckPrograms(t.Context(), tt.fc, tt.jailer)
		if err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.says)
		}
	}
}

// New says what is missing.
func TestNewRefuses(t *testing.T) {
	cfg := pretended(t, settings("1.16.2"))
	for what, spoil := range map[string]func(*Config){
		"no programs":   func(c *Config) { c.Firecracker = "/nonexistent" },
		"no image":      func(c *Config) { c.Image = "/nonexistent" },
		"no kernel":     func(c *Config) { c.Kernel = "/nonexistent" },
		"no initrd":     func(c *Config) { c.Initrd = "/nonexistent" },
		"no user ids":   func(c *Config) { c.UIDs = UIDs{First: 5, Count: 5} },
		"no directory":  func(c *Config) { c.StateDir = "/proc/nothing" },
		"not a version": func(c *Config) { c.Jailer = "/bin/true" },
	} {
		bad := cfg
		spoil(&bad)
		if _, err := New(t.Context(), bad); err == nil || !strings.HasPrefix(err.Error(), "firecracker: ") && what != "not a version" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if fmt.Sprint(newDriver(t, cfg).Version()) != "1.16.2" {
		t.Error("it says another version")
	}
}
