//go:build linux

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/socket"
)

// speak is a QMP server in a directory that answers each command with the lines
// that answers has for it, and "return" to all others.
func speak(t *testing.T, greeting string, answers map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := socket.Listen(dir, qmpSocket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveQMP(conn, greeting, answers)
		}
	}()
	return dir
}

func serveQMP(conn net.Conn, greeting string, answers map[string]string) {
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, greeting+"\n")
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		var in struct{ Execute string }
		if json.Unmarshal(lines.Bytes(), &in) != nil {
			return
		}
		answer, ok := answers[in.Execute]
		if !ok {
			answer = `{"return":{}}`
		}
		if answer == "" {
			return
		}
		_, _ = io.WriteString(conn, answer+"\n")
	}
}

const hello = `{"QMP":{"version":{}}}`

func TestMonitor(t *testing.T) {
	dir := speak(t, hello, map[string]string{
		"query-status": `{"event":"STOP","data":{}}` + "\n" + `{"return":{"status":"paused"}}`,
		"migrate":      `{"return":{}}` + "\n" + `{"event":"MIGRATION","data":{"status":"active"}}` + "\n" + `{"event":"MIGRATION","data":{"status":"completed"}}`,
		"bad":          `{"error":{"class":"GenericError","desc":"` + strings.Repeat("no", 5000) + `"}}`,
	})
	m, err := openMonitor(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var out struct{ Status string }
	if err := m.call(t.Context(), "query-status", nil, &out); err != nil || out.Status != "paused" {
		t.Errorf("%+v, %v", out, err)
	}
	if name, _, err := m.awaitAny(t.Context(), "SHUTDOWN", "STOP"); err != nil || name != "STOP" {
		t.Errorf("the event that came before: %q, %v", name, err)
	}
	if err := m.call(t.Context(), "migrate", nil, nil); err != nil {
		t.Error(err)
	}
	if err := m.migrated(t.Context()); err != nil {
		t.Error(err)
	}
	if err := m.call(t.Context(), "bad", nil, nil); err == nil || len(err.Error()) > 400 {
		t.Errorf("an error: %.500v", err)
	}
}

func TestMigrationFails(t *testing.T) {
	dir := speak(t, hello, map[string]string{
		"migrate":       `{"return":{}}` + "\n" + `{"event":"MIGRATION","data":{"status":"failed"}}`,
		"query-migrate": `{"return":{"status":"failed","error-desc":"No space left on device"}}`,
	})
	m, err := openMonitor(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.call(t.Context(), "migrate", nil, nil); err != nil {
		t.Error(err)
	}
	if err := m.migrated(t.Context()); err == nil || !strings.Contains(err.Error(), "No space left") {
		t.Errorf("%v", err)
	}
}

// A QEMU that a guest has taken over may say anything: it costs an error.
func TestHostileMonitor(t *testing.T) {
	for name, greeting := range map[string]string{
		"no greeting": `{"return":{}}`, "no JSON": "hello", "nothing": "",
		"without end": strings.Repeat("x", 2*maxMessage),
	} {
		if m, err := openMonitor(t.Context(), speak(t, greeting, nil)); err == nil {
			m.close()
			t.Errorf("%s: it was taken for QEMU", name)
		}
	}
	events := strings.Repeat(`{"event":"X","data":{}}`+"\n", 1000)
	m, err := openMonitor(t.Context(), speak(t, hello, map[string]string{"many": events + `{"return":{}}`, "away": "", "silence": `{"event":"Y"}`}))
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	if err := m.call(t.Context(), "many", nil, nil); err != nil || len(m.events) > maxEvents {
		t.Errorf("%d events are kept, %v", len(m.events), err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.call(short, "silence", nil, nil); err == nil {
		t.Error("it waited for an answer, and got one")
	}
	other, err := openMonitor(t.Context(), speak(t, hello, map[string]string{"away": ""}))
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if err := other.call(t.Context(), "away", nil, nil); err == nil {
		t.Error("a QEMU that ends is said to have answered")
	}
}

func TestFlags(t *testing.T) {
	spec := machine.Spec{MemoryBytes: 1 << 30, CPUs: 1.5}
	for _, accelerator := range []string{emulated, withKVM} {
		flags := machineFlags(accelerator, spec)
		for _, want := range []string{"-nodefaults", "-no-user-config", "1024M", sandbox} {
			if !slices.Contains(flags, want) {
				t.Errorf("%s: %q lacks %s", accelerator, flags, want)
			}
		}
		all := strings.Join(flags, " ")
		if strings.Contains(all, "net") || strings.Contains(all, "vnc") || !strings.Contains(all, "-smp 2") {
			t.Errorf("%s: %q", accelerator, flags)
		}
		line := commandLine(accelerator, "browser")
		if !strings.Contains(line, "anteroom.line=virtio:"+portName) || strings.Contains(line, "tsc=reliable") != (accelerator == emulated) {
			t.Errorf("%s: %q", accelerator, line)
		}
	}
	var f descriptors
	image, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	disk := strings.Join(diskFlags(&f, "image", image, false), " ")
	if strings.Count(disk, "read-only=on") != 2 || !strings.Contains(disk, "fd=3,set=3") || strings.Contains(disk, os.DevNull) {
		t.Errorf("the image's disk: %s", disk)
	}
	f.close()
}

// User ids are never two machines' at a time, and those that are free are found.
func TestTakeUID(t *testing.T) {
	d := &Driver{cfg: Config{StateDir: t.TempDir(), FirstUID: 1000}}
	var ids []int
	for i := range 3 {
		id := fmt.Sprintf("machine%d", i)
		if err := os.MkdirAll(d.machineDir(id), 0o700); err != nil {
			t.Fatal(err)
		}
		uid, err := d.takeUID(id)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, uid)
	}
	if err := os.RemoveAll(d.machineDir("machine1")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(d.machineDir("machine3"), 0o700); err != nil {
		t.Fatal(err)
	}
	uid, err := d.takeUID("machine3")
	if err != nil || !slices.Equal(append(ids, uid), []int{1000, 1001, 1002, 1001}) {
		t.Errorf("%v, then %d, %v", ids, uid, err)
	}
}
