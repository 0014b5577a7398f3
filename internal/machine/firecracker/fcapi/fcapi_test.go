//go:build linux

package fcapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine/firecracker/fcapi"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
)

// definition is Firecracker's, as its makers' Go client carries it.
var definition = sync.OnceValues(func() ([]byte, error) { return fctest.Fetch("../../../../tools/firecracker-api") })

// Releases whose API the tests speak: the oldest that can be used, and those
// around the one with the field that came later.
const (
	oldest       = 10
	beforeVsock  = 15
	sinceVsock   = 16
	laterRelease = 17
)

// serve starts a server as a release 1.minor has it, and a client of it.
func serve(t *testing.T, minor int, handle func(operation string, body []byte) (any, error)) (*fctest.Server, *fcapi.Client) {
	t.Helper()
	text, err := definition()
	if err != nil {
		t.Fatal(err)
	}
	d, err := fctest.ParseDefinition(text, minor)
	if err != nil {
		t.Fatal(err)
	}
	if handle == nil {
		handle = func(operation string, _ []byte) (any, error) {
			if operation == "GET /" {
				return map[string]string{"id": "abcdefgh", "state": "Running", "vmm_version": "1.10.1", "app_name": "Firecracker"}, nil
			}
			return nil, nil
		}
	}
	server := fctest.NewServer(d, handle)
	socket := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: server} //nolint:gosec // only this test connects to it
	served := make(chan struct{})
	go func() { defer close(served); _ = web.Serve(l) }()
	client := fcapi.New(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	})
	t.Cleanup(func() {
		client.Close()
		_ = web.Close()
		<-served
	})
	return server, client
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// call is one method of a client, and what it must send.
type call struct {
	name      string
	do        func(context.Context, *fcapi.Client) error
	operation string
	body      string
	since     int // the release, as 1.since
}

func calls() []call {
	return []call{
		{"instance", func(ctx context.Context, c *fcapi.Client) error { _, err := c.Instance(ctx); return err }, "GET /", "", oldest},
		{"machine", func(ctx context.Context, c *fcapi.Client) error {
			return c.SetMachine(ctx, fcapi.MachineConfig{VCPUs: 2, MemoryMiB: 1536})
		}, "PUT /machine-config", `{"vcpu_count":2,"mem_size_mib":1536}`, oldest},
		{"boot", func(ctx context.Context, c *fcapi.Client) error {
			return c.SetBoot(ctx, fcapi.BootSource{Kernel: "/vmlinux", Initrd: "/initrd", Args: "quiet"})
		}, "PUT /boot-source", `{"kernel_image_path":"/vmlinux","initrd_path":"/initrd","boot_args":"quiet"}`, oldest},
		{"drive", func(ctx context.Context, c *fcapi.Client) error {
			return c.AddDrive(ctx, fcapi.Drive{ID: "image", Path: "/image", ReadOnly: true})
		}, "PUT /drives/image", `{"drive_id":"image","path_on_host":"/image","is_root_device":false,"is_read_only":true}`, oldest},
		{"vsock", func(ctx context.Context, c *fcapi.Client) error {
			return c.SetVsock(ctx, fcapi.Vsock{GuestCID: 3, Path: "/run/line.sock"})
		}, "PUT /vsock", `{"guest_cid":3,"uds_path":"/run/line.sock"}`, oldest},
		{"start", func(ctx context.Context, c *fcapi.Client) error { return c.Start(ctx) }, "PUT /actions", `{"action_type":"InstanceStart"}`, oldest},
		{"keys", func(ctx context.Context, c *fcapi.Client) error { return c.CtrlAltDel(ctx) }, "PUT /actions", `{"action_type":"SendCtrlAltDel"}`, oldest},
		{"a disk that is written to", func(ctx context.Context, c *fcapi.Client) error {
			return c.AddDrive(ctx, fcapi.Drive{ID: "home", Path: "/home", Cache: fcapi.Writeback})
		}, "PUT /drives/home", `{"drive_id":"home","path_on_host":"/home","is_root_device":false,"is_read_only":false,"cache_type":"Writeback"}`, oldest},
		{"pause", func(ctx context.Context, c *fcapi.Client) error { return c.Pause(ctx) }, "PATCH /vm", `{"state":"Paused"}`, oldest},
		{"save", func(ctx context.Context, c *fcapi.Client) error { return c.SaveSnapshot(ctx, "/s/state", "/s/memory") },
			"PUT /snapshot/create", `{"snapshot_type":"Full","snapshot_path":"/s/state","mem_file_path":"/s/memory"}`, oldest},
		{"load", func(ctx context.Context, c *fcapi.Client) error {
			return c.LoadSnapshot(ctx, fcapi.SnapshotLoad{State: "/s/state", Memory: "/s/memory"})
		}, "PUT /snapshot/load", `{"snapshot_path":"/s/state","mem_backend":{"backend_type":"File","backend_path":"/s/memory"},"resume_vm":true}`, oldest},
		{"load with another socket", func(ctx context.Context, c *fcapi.Client) error {
			return c.LoadSnapshot(ctx, fcapi.SnapshotLoad{State: "/s/state", Memory: "/s/memory", Vsock: "/v"})
		}, "PUT /snapshot/load", `{"snapshot_path":"/s/state","mem_backend":{"backend_type":"File","backend_path":"/s/memory"},"resume_vm":true,"vsock_override":{"uds_path":"/v"}}`, sinceVsock},
	}
}

// Every request that the client can send is in the definition, of every release
// that it may be sent to, and of no other.
func TestRequests(t *testing.T) {
	for _, minor := range []int{oldest, beforeVsock, sinceVsock, laterRelease} {
		t.Run(fmt.Sprint("1.", minor), func(t *testing.T) {
			server, client := serve(t, minor, nil)
			for _, c := range calls() {
				err := c.do(limited(t), client)
				all := server.Requests()
				last := all[len(all)-1]
				if minor < c.since {
					var refused *fcapi.Error
					if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest || last.Refused == "" {
						t.Errorf("%s, which this release does not know: %v", c.name, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", c.name, err)
				}
				if last.Operation != c.operation || !sameJSON(last.Body, c.body) {
					t.Errorf("%s sends %s %s, want %s %s", c.name, last.Operation, last.Body, c.operation, c.body)
				}
			}
			if n := len(server.Requests()); n != len(calls()) {
				t.Errorf("%d requests for %d calls", n, len(calls()))
			}
		})
	}
}

// No method of the client is left out above.
func TestAllMethodsAreCalled(t *testing.T) {
	client := reflect.TypeFor[*fcapi.Client]()
	text, err := os.ReadFile("fcapi_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "func calls()")
	table, _, _ = strings.Cut(table, "\n}\n")
	for i := range client.NumMethod() {
		if name := client.Method(i).Name; name != "Close" && !strings.Contains(table, "c."+name+"(") {
			t.Errorf("%s is not tried", name)
		}
	}
}

func sameJSON(got json.RawMessage, want string) bool {
	if len(got) == 0 || want == "" {
		return len(got) == 0 && want == ""
	}
	var a, b any
	return json.Unmarshal(got, &a) == nil && json.Unmarshal([]byte(want), &b) == nil && reflect.DeepEqual(a, b)
}

func TestInstance(t *testing.T) {
	_, client := serve(t, oldest, nil)
	got, err := client.Instance(limited(t))
	if want := (fcapi.Instance{ID: "abcdefgh", State: fcapi.Running, Version: "1.10.1"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if !slices.Contains([]fcapi.State{fcapi.NotStarted, fcapi.Running, fcapi.Paused}, got.State) {
		t.Errorf("state %q", got.State)
	}
}

// The server that the requests are checked by does refuse what is not right.
func TestServerRefuses(t *testing.T) {
	text, err := definition()
	if err != nil {
		t.Fatal(err)
	}
	d, err := fctest.ParseDefinition(text, oldest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ what, method, path, kind, body string }{
		{"an unknown path", "PUT", "/nothing", "application/json", `{}`},
		{"an unknown method", "DELETE", "/vsock", "application/json", `{}`},
		{"an unknown field", "PUT", "/vsock", "application/json", `{"guest_cid":3,"uds_path":"/v","port":1}`},
		{"an unknown field inside", "PUT", "/snapshot/load", "application/json", `{"snapshot_path":"/s","mem_backend":{"backend_type":"File","backend_path":"/m","x":1}}`},
		{"a field that is missing", "PUT", "/vsock", "application/json", `{"guest_cid":3}`},
		{"a field of another type", "PUT", "/vsock", "application/json", `{"guest_cid":"3","uds_path":"/v"}`},
		{"a value below the least", "PUT", "/vsock", "application/json", `{"guest_cid":2,"uds_path":"/v"}`},
		{"a value that is none", "PUT", "/actions", "application/json", `{"action_type":"Explode"}`},
		{"no body", "PUT", "/vsock", "application/json", ""},
		{"half a body", "PUT", "/vsock", "application/json", `{"guest_cid":3`},
		{"another kind of body", "PUT", "/vsock", "text/plain", `{"guest_cid":3,"uds_path":"/v"}`},
		{"a field of a later release", "PUT", "/snapshot/load", "application/json", `{"snapshot_path":"/s","vsock_override":{"uds_path":"/v"}}`},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://localhost"+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", tt.kind)
		if d.Check(req) == nil {
			t.Errorf("%s is taken", tt.what)
		}
	}
	if n := len(d.Operations()); n < 20 {
		t.Errorf("the definition has %d operations", n)
	}
}

func TestRefusals(t *testing.T) {
	server, client := serve(t, oldest, nil)
	const operation = "PUT /actions"
	for _, tt := range []struct {
		what   string
		fault  fctest.Fault
		status int
		says   string
	}{
		{"a reason", fctest.Fault{Status: 400, Body: `{"fault_message":"The requested operation is not supported"}`}, 400, "The requested operation is not supported"},
		{"lines", fctest.Fault{Status: 400, Body: `{"fault_message":"a\n b\tc"}`}, 400, "a b c"},
		{"no JSON", fctest.Fault{Status: 500, Body: "it broke"}, 500, "it broke"},
		{"nothing", fctest.Fault{Status: 500}, 500, "without a reason"},
		{"very much", fctest.Fault{Status: 400, Body: strings.Repeat("é", 2000)}, 400, strings.Repeat("é", 256)},
		{"after a while", fctest.Fault{Status: 400, Body: "slow", Delay: 20 * time.Millisecond}, 400, "slow"},
	} {
		server.Inject(operation, tt.fault)
		var refused *fcapi.Error
		if err := client.Start(limited(t)); !errors.As(err, &refused) {
			t.Errorf("%s: %v", tt.what, err)
			continue
		}
		if want := (fcapi.Error{Method: "PUT", Path: "/actions", Status: tt.status, Fault: tt.says}); *refused != want {
			t.Errorf("%s: %+v, want %+v", tt.what, *refused, want)
		}
		if !strings.Contains(refused.Error(), tt.says) || !strings.Contains(refused.Error(), operation) {
			t.Errorf("%s: %v", tt.what, refused)
		}
	}
	// One refusal does not spoil the next request.
	server.Inject(operation, fctest.Fault{})
	if err := client.Start(limited(t)); err != nil {
		t.Errorf("after refusals: %v", err)
	}
}

func TestBrokenAnswers(t *testing.T) {
	server, client := serve(t, oldest, nil)
	for _, tt := range []struct {
		what  string
		fault fctest.Fault
		says  string
	}{
		{"the end of the connection", fctest.Fault{Cut: true}, "EOF"},
		{"no JSON", fctest.Fault{Status: 200, Body: "<html>"}, "not what was expected"},
		{"JSON of another form", fctest.Fault{Status: 200, Body: `{"id":7}`}, "not what was expected"},
		{"too much", fctest.Fault{Status: 200, Body: `{"id":"` + strings.Repeat("x", 100_000) + `"}`}, "larger than"},
	} {
		server.Inject("GET /", tt.fault)
		var refused *fcapi.Error
		if _, err := client.Instance(limited(t)); err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %q", tt.what, err, tt.says)
		}
	}
}

// A Firecracker that does not answer is not waited for longer than the context
// says.
func TestContexts(t *testing.T) {
	server, client := serve(t, oldest, nil)
	for operation, do := range map[string]func(context.Context) error{
		"PUT /actions": client.Start,
		"PUT /snapshot/load": func(ctx context.Context) error {
			return client.LoadSnapshot(ctx, fcapi.SnapshotLoad{State: "/s", Memory: "/m"})
		},
	} {
		server.Inject(operation, fctest.Fault{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := do(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", operation, err)
		}
		cancel()
		server.Inject(operation, fctest.Fault{Delay: 20 * time.Millisecond})
		if err := do(limited(t)); err != nil {
			t.Errorf("%s, late: %v", operation, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Pause(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("a context that has ended: %v", err)
	}
	failing := fcapi.New(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody listens") })
	if err := failing.Pause(limited(t)); err == nil || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("nobody listens: %v", err)
	}
}
