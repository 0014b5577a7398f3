//go:build linux

package guest

import (
	"bytes"
	"errors"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// term is the host's end of a terminal.
type term struct {
	t      *testing.T
	conn   net.Conn
	served chan error
	out    bytes.Buffer
	buf    []byte
}

func newTerminals(t *testing.T) *Terminals {
	t.Helper()
	ts := NewTerminals(testUser(t), []string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8", "PS1=$ ", "HISTFILE="})
	t.Cleanup(ts.Close)
	return ts
}

func openTerm(t *testing.T, ts *Terminals, cols, rows int) *term {
	t.Helper()
	host, guest := net.Pipe()
	x := &term{t: t, conn: host, served: make(chan error, 1)}
	if err := host.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() { x.served <- ts.Serve(guest, cols, rows) }()
	t.Cleanup(func() { _ = host.Close() })
	return x
}

func (x *term) send(kind guestapi.TermFrameType, payload []byte) {
	x.t.Helper()
	if err := guestapi.WriteTermFrame(x.conn, kind, payload); err != nil {
		x.t.Fatalf("%v; the terminal: %v", err, <-x.served)
	}
}

func (x *term) typed(s string) { x.t.Helper(); x.send(guestapi.TermData, []byte(s)) }

// until reads until the output holds what is wanted, and returns all since the
// last call.
func (x *term) until(want string) string {
	x.t.Helper()
	for !strings.Contains(x.out.String(), want) {
		kind, payload, err := guestapi.ReadTermFrame(x.conn, x.buf)
		if err != nil || kind != guestapi.TermData {
			x.t.Fatalf("waiting for %q: frame %d, %v; so far %q", want, kind, err, x.out.String())
		}
		x.out.Write(payload)
	}
	defer x.out.Reset()
	return x.out.String()
}

func (x *term) exit() int32 {
	x.t.Helper()
	for {
		kind, payload, err := guestapi.ReadTermFrame(x.conn, x.buf)
		if err != nil {
			x.t.Fatal(err)
		}
		if kind == guestapi.TermExit {
			code, err := guestapi.DecodeTermExit(payload)
			if err != nil {
				x.t.Fatal(err)
			}
			return code
		}
	}
}

func TestTerminal(t *testing.T) {
	ts := newTerminals(t)
	x := openTerm(t, ts, 91, 33)
	// Two strings make one in the output only, not in the echo of what is typed.
	x.typed("stty size; id -u; echo $HOME $TERM do''ne\n")
	got := x.until("done")
	for _, want := range []string{"33 91", strconv.Itoa(ts.user.UID), ts.user.Home + " xterm-256color done"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	x.send(guestapi.TermResize, guestapi.EncodeTermSize(120, 40))
	x.typed("stty size; tty; test -O $(tty) && echo mi''ne\n")
	if got := x.until("mine"); !strings.Contains(got, "40 120") || !strings.Contains(got, "/dev/pts/") {
		t.Errorf("after a resize: %q", got)
	}
	x.typed("sh -c 'echo run''ning; exec sleep 1000'\n")
	x.until("running")
	x.typed("\x03")
	x.typed("exit 7\n")
	if code := x.exit(); code != 7 {
		t.Errorf("exit code %d", code)
	}
	if err := <-x.served; err != nil {
		t.Error(err)
	}
}

var childPid = regexp.MustCompile(`pid=(\d+)\.`)

// child starts something that ignores being hung up on, and returns its pid.
func (x *term) child() int {
	x.t.Helper()
	x.typed("setsid sh -c 'trap \"\" HUP TERM; echo pid''=$$.; while :; do sleep 1; done' &\n")
	seen := ""
	for {
		seen += x.until(".")
		if m := childPid.FindStringSubmatch(seen); m != nil {
			pid, err := strconv.Atoi(m[1])
			if err != nil {
				x.t.Fatal(err)
			}
			return pid
		}
	}
}

func gone(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ")
}

func TestTerminalEndsWithItsStream(t *testing.T) {
	ts := newTerminals(t)
	x := openTerm(t, ts, 80, 24)
	pid := x.child()
	if gone(pid) {
		t.Fatal("it is not there")
	}
	_ = x.conn.Close()
	if err := <-x.served; err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("something is left behind")
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func TestTerminalsClose(t *testing.T) {
	ts := newTerminals(t)
	a, b := openTerm(t, ts, 80, 24), openTerm(t, ts, 80, 24)
	pids := []int{a.child(), b.child()}
	ts.Close()
	for _, pid := range pids {
		if !gone(pid) {
			t.Error("something is left behind")
		}
	}
	if err := openTerm(t, ts, 80, 24).served; <-err == nil {
		t.Error("a terminal was opened after Close")
	}
}

func TestTerminalsAreCounted(t *testing.T) {
	ts := newTerminals(t)
	var open []*term
	for range maxTerminals {
		x := openTerm(t, ts, 0, 0) // no size: the usual
		x.typed("stty size; echo rea''dy\n")
		if got := x.until("ready"); !strings.Contains(got, "24 80") {
			t.Errorf("size: %q", got)
		}
		open = append(open, x)
	}
	if err := <-openTerm(t, ts, 80, 24).served; !errors.Is(err, ErrTooManyTerminals) {
		t.Errorf("one too many: %v", err)
	}
	_ = open[0].conn.Close()
	<-open[0].served
	openTerm(t, ts, 80, 24).until("$")
}

// A host that breaks the rules, or does not read, ends only its own terminal.
func TestTerminalAgainstItsHost(t *testing.T) {
	for name, frames := range map[string][]byte{
		"unknown type":   {9, 0, 0, 0, 0},
		"large":          {0, 0xff, 0, 0, 0},
		"exit":           {2, 0, 0, 0, 4, 0, 0, 0, 0},
		"impossible":     {1, 0, 0, 0, 4, 0, 0, 0, 0},
		"stops reading":  append([]byte{0, 0, 0, 0, 4}, "yes\n"...),
		"half of a head": {0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			ts := newTerminals(t)
			x := openTerm(t, ts, 80, 24)
			x.until("$")
			if _, err := x.conn.Write(frames); err != nil {
				t.Fatal(err)
			}
			if len(frames) == 2 {
				_ = x.conn.Close()
			}
			if name == "stops reading" {
				ts.Close()
			}
			go func() { // whatever is still sent
				for {
					if _, _, err := guestapi.ReadTermFrame(x.conn, nil); err != nil {
						return
					}
				}
			}()
			select {
			case <-x.served:
			case <-time.After(20 * time.Second):
				t.Error("it goes on")
			}
		})
	}
}
