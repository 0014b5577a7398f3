//go:build linux

package guest

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/line"
)

// screenHost serves the agent's route for the screen, with a shell script as the
// encoder.
func screenHost(t *testing.T, script string) (*Screens, string) {
	t.Helper()
	dir := openTempDir(t)
	program(t, dir, "screen", script)
	s := NewScreens(testUser(t), []string{"PATH=/usr/bin:/bin", "DISPLAY=:7"}, nil)
	s.program = filepath.Join(dir, "screen")
	a := &Agent{logger: slog.New(slog.DiscardHandler)}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.screen(&person{screens: s}, w, r)
	}))
	t.Cleanup(server.Close)
	t.Cleanup(s.Close)
	return s, server.Listener.Addr().String()
}

// openScreen asks for the screen and returns the answer's status and, if it is
// 101, the stream.
func openScreen(t *testing.T, address, codec string) (int, net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /screen?codec="+codec+" HTTP/1.1\r\nHost: guest\r\nConnection: Upgrade\r\nUpgrade: "+line.Upgrade+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode, conn, r
}

func TestScreen(t *testing.T) {
	_, address := screenHost(t, `echo "$$ $(id -u) $DISPLAY $*"; exec cat`)
	status, conn, r := openScreen(t, address, "vp8")
	if status != http.StatusSwitchingProtocols {
		t.Fatal(status)
	}
	first, err := r.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(first)
	if want := strconv.Itoa(testUser(t).UID) + " :7 --codec vp8 --vnc /run/person/vnc.sock"; strings.Join(f[1:], " ") != want {
		t.Errorf("got %q, want %q", first, want)
	}
	if _, err := io.WriteString(conn, "there and back\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); got != "there and back\n" {
		t.Errorf("%q, %v", got, err)
	}
	pid, err := strconv.Atoi(f[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	waitFor(t, "the program's end", func() bool { return gone(pid) })
}

// A program that is killed lets go of nothing: another one does it.
func TestScreenIsRestored(t *testing.T) {
	said := filepath.Join(openTempDir(t), "said")
	if err := os.WriteFile(said, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(said, 0o666); err != nil { // whatever the umask
		t.Fatal(err)
	}
	_, address := screenHost(t, `[ "$1" = --restore ] && { echo "$*" >>`+said+`; exit; }; echo up; read x; [ "$x" != die ] || kill -9 $$`)
	for _, last := range []string{"live", "die"} {
		if text, err := os.ReadFile(said); err != nil || len(text) > 0 {
			t.Errorf("restored without a reason: %q, %v", text, err)
		}
		_, conn, r := openScreen(t, address, "vp8")
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, last+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "it to be restored", func() bool {
		text, err := os.ReadFile(said)
		return err == nil && string(text) == "--restore\n"
	})
}

func TestScreensAreLimited(t *testing.T) {
	// What neither reads nor ends by itself is ended.
	s, address := screenHost(t, `trap "" TERM; echo $$; while :; do sleep 1; done`)
	if status, _, _ := openScreen(t, address, "h264"); status != http.StatusBadRequest {
		t.Errorf("an unknown codec: %d", status)
	}
	var pids []int
	var first net.Conn
	for range maxScreens {
		status, conn, r := openScreen(t, address, "vp8")
		if status != http.StatusSwitchingProtocols {
			t.Fatal(status)
		}
		if first == nil {
			first = conn
		}
		said, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		pid, err := strconv.Atoi(strings.TrimSpace(said))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	if status, _, _ := openScreen(t, address, "vp8"); status != http.StatusTooManyRequests {
		t.Errorf("one too many: %d", status)
	}
	_ = first.Close()
	waitFor(t, "a place", func() bool {
		status, conn, _ := openScreen(t, address, "vp8")
		_ = conn.Close()
		return status == http.StatusSwitchingProtocols
	})
	s.Close()
	for _, pid := range pids {
		if !gone(pid) {
			t.Errorf("process %d is still there", pid)
		}
	}
	if status, _, _ := openScreen(t, address, "vp8"); status != http.StatusTooManyRequests {
		t.Errorf("after the end: %d", status)
	}
}
