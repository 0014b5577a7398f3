// Package fcapi is a client of the part of Firecracker's API that a driver of
// machines needs: HTTP with JSON over a unix socket, as Firecracker's published
// definition (src/firecracker/swagger/firecracker.yaml in its repository) has it.
// Every request that it can send is valid in Firecracker 1.10; the one field
// that came later says so.
package fcapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

const (
	// maxAnswer is more than an answer to any request here takes.
	maxAnswer = 64 << 10
	// maxFault is how much of Firecracker's words an error repeats.
	maxFault = 512
)

// Error is a request that Firecracker refused.
type Error struct {
	Method, Path string
	Status       int
	Fault        string // what Firecracker says of it; at most 512 bytes
}

func (e *Error) Error() string {
	return fmt.Sprintf("firecracker refuses %s %s (%d): %s", e.Method, e.Path, e.Status, e.Fault)
}

// Client speaks to one Firecracker process. Its methods may be called
// concurrently; they return when Firecracker has answered, or with ctx's error.
type Client struct {
	transport *http.Transport
}

// New returns a client whose connections come from dial.
func New(dial func(context.Context) (net.Conn, error)) *Client {
	return &Client{transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		// Firecracker's server knows no compressed bodies, and takes ten
		// connections at most.
		DisableCompression: true,
		MaxConnsPerHost:    2,
	}}
}

// Close closes the connections that no request uses.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// State is what a microVM is doing.
type State string

// The states of a microVM.
const (
	NotStarted State = "Not started"
	Running    State = "Running"
	Paused     State = "Paused"
)

// Instance is what Firecracker says of itself.
type Instance struct {
	ID      string `json:"id"`
	State   State  `json:"state"`
	Version string `json:"vmm_version"`
}

// Instance asks which microVM this is and what it is doing.
func (c *Client) Instance(ctx context.Context) (Instance, error) {
	var out Instance
	return out, c.call(ctx, http.MethodGet, "/", nil, &out)
}

// MachineConfig is the size of a microVM.
type MachineConfig struct {
	VCPUs     int   `json:"vcpu_count"`   // 1 to 32
	MemoryMiB int64 `json:"mem_size_mib"` // all of the guest's memory
}

// SetMachine sets the size; before the start.
func (c *Client) SetMachine(ctx context.Context, m MachineConfig) error {
	return c.call(ctx, http.MethodPut, "/machine-config", m, nil)
}

// BootSource is what a microVM boots. Paths are those that Firecracker sees.
type BootSource struct {
	Kernel string `json:"kernel_image_path"` // uncompressed (vmlinux)
	Initrd string `json:"initrd_path,omitempty"`
	Args   string `json:"boot_args,omitempty"` // Firecracker adds what tells of its devices
}

// SetBoot sets what is booted; before the start.
func (c *Client) SetBoot(ctx context.Context, b BootSource) error {
	return c.call(ctx, http.MethodPut, "/boot-source", b, nil)
}

// Drive is a disk. Guests see them in the order in which they were added.
type Drive struct {
	ID       string `json:"drive_id"` // letters, digits and _
	Path     string `json:"path_on_host"`
	Root     bool   `json:"is_root_device"` // Firecracker adds root= to the boot arguments
	ReadOnly bool   `json:"is_read_only"`
	// Cache is what a guest's wish that data be on the disk comes to.
	Cache Cache `json:"cache_type,omitempty"`
}

// Cache is how a disk is cached on the host.
type Cache string

// The ways of caching: Unsafe, the default, ignores what the guest wishes.
const (
	Unsafe    Cache = "Unsafe"
	Writeback Cache = "Writeback"
)

// AddDrive adds a disk; before the start.
func (c *Client) AddDrive(ctx context.Context, d Drive) error {
	return c.call(ctx, http.MethodPut, "/drives/"+d.ID, d, nil)
}

// Vsock is the guest's socket device. On the host it is one unix socket, on
// which Firecracker listens; see the driver for what is said there.
type Vsock struct {
	GuestCID uint32 `json:"guest_cid"` // 3 or more; only the guest sees it
	Path     string `json:"uds_path"`
}

// SetVsock gives the microVM its socket device; before the start.
func (c *Client) SetVsock(ctx context.Context, v Vsock) error {
	return c.call(ctx, http.MethodPut, "/vsock", v, nil)
}

// Start boots the microVM.
func (c *Client) Start(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, "/actions", map[string]string{"action_type": "InstanceStart"}, nil)
}

// CtrlAltDel presses these keys: the guest ends, if it wants to. Firecracker ends
// when it does.
func (c *Client) CtrlAltDel(ctx context.Context) error {
	return c.call(ctx, http.MethodPut, "/actions", map[string]string{"action_type": "SendCtrlAltDel"}, nil)
}

// Pause stops the microVM's processors; it need not run.
func (c *Client) Pause(ctx context.Context) error {
	return c.call(ctx, http.MethodPatch, "/vm", map[string]string{"state": "Paused"}, nil)
}

// SaveSnapshot writes the state and the whole memory of a paused microVM to
// files, which are made or overwritten.
func (c *Client) SaveSnapshot(ctx context.Context, state, memory string) error {
	return c.call(ctx, http.MethodPut, "/snapshot/create", struct {
		Type   string `json:"snapshot_type"`
		State  string `json:"snapshot_path"`
		Memory string `json:"mem_file_path"`
	}{"Full", state, memory}, nil)
}

// SnapshotLoad says what a microVM is restored from.
type SnapshotLoad struct {
	State string
	// Memory is mapped, not read: microVMs restored from the same file share
	// its pages until they write to them. It must not change while they live.
	Memory string
	// Vsock is the path of the unix socket in place of the one in the snapshot;
	// empty: the same. Firecracker has this since 1.16.0 and refuses the whole
	// request before.
	Vsock string
}

// LoadSnapshot restores a microVM into a Firecracker that has been told nothing
// yet, and has it run. A Firecracker that fails in this ends.
func (c *Client) LoadSnapshot(ctx context.Context, s SnapshotLoad) error {
	type backend struct {
		Type string `json:"backend_type"`
		Path string `json:"backend_path"`
	}
	type override struct {
		Path string `json:"uds_path"`
	}
	body := struct {
		State  string    `json:"snapshot_path"`
		Memory backend   `json:"mem_backend"`
		Resume bool      `json:"resume_vm"`
		Vsock  *override `json:"vsock_override,omitempty"`
	}{State: s.State, Memory: backend{"File", s.Memory}, Resume: true}
	if s.Vsock != "" {
		body.Vsock = &override{s.Vsock}
	}
	return c.call(ctx, http.MethodPut, "/snapshot/load", body, nil)
}

// call sends one request; in and out may be nil.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("firecracker: %s %s: %w", method, path, err)
		}
		// Not streamed: Firecracker wants to know the length first.
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost"+path, body)
	if err != nil {
		return fmt.Errorf("firecracker: %s %s: %w", method, path, err)
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("firecracker: %s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("firecracker: %s %s: %w", method, path, err)
	}
	if len(text) > maxAnswer {
		return fmt.Errorf("firecracker: %s %s: the answer is larger than %d bytes", method, path, maxAnswer)
	}
	if resp.StatusCode/100 != 2 {
		return &Error{Method: method, Path: path, Status: resp.StatusCode, Fault: fault(text)}
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("firecracker: %s %s: the answer is not what was expected: %w", method, path, err)
	}
	return nil
}

// fault is what a refusal says, in one line.
func fault(body []byte) string {
	var refusal struct {
		Fault string `json:"fault_message"`
	}
	text := string(body)
	if json.Unmarshal(body, &refusal) == nil && refusal.Fault != "" {
		text = refusal.Fault
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxFault {
		text = strings.ToValidUTF8(text[:maxFault], "")
	}
	if text == "" {
		return "without a reason"
	}
	return text
}
