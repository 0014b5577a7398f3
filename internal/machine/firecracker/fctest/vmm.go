//go:build linux

package fctest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

// VMM is a pretended Firecracker: it says what Firecracker says, opens the files
// that Firecracker opens, and has a pretended agent in place of a guest.
type VMM struct {
	id       string
	settings Settings

	state    string
	machine  *machineConfig
	boot     *bootSource
	drives   []drive
	vsock    *vsock
	listener net.Listener
	guest    *guest
}

type machineConfig struct {
	VCPUs  int   `json:"vcpu_count"`
	Memory int64 `json:"mem_size_mib"`
}

type bootSource struct {
	Kernel string `json:"kernel_image_path"`
	Initrd string `json:"initrd_path"`
	Args   string `json:"boot_args"`
}

type drive struct {
	ID       string `json:"drive_id"`
	Path     string `json:"path_on_host"`
	ReadOnly bool   `json:"is_read_only"`
}

type vsock struct {
	CID  uint32 `json:"guest_cid"`
	Path string `json:"uds_path"`
}

// saved is what a snapshot's state file holds.
type saved struct {
	Version string        `json:"version"`
	Machine machineConfig `json:"machine"`
	Drives  []drive       `json:"drives"`
	Vsock   vsock         `json:"vsock"`
	Port    uint32        `json:"port"`
}

// VMMMain is the pretended Firecracker program, in a jail.
func VMMMain(args []string) int {
	settings, dir, err := readSettings()
	if err != nil {
		return fail("Firecracker", err)
	}
	flags := flag.NewFlagSet("firecracker", flag.ContinueOnError)
	version := flags.Bool("version", false, "")
	id := flags.String("id", "anonymous-instance", "")
	socket := flags.String("api-sock", "/run/firecracker.socket", "")
	for _, ignored := range []string{"start-time-us", "start-time-cpu-us", "parent-cpu-time-us"} {
		flags.String(ignored, "", "")
	}
	if err := flags.Parse(args); err != nil {
		return fail("Firecracker", err)
	}
	if *version {
		fmt.Printf("Firecracker v%s\n\nSupported snapshot data format versions: 4.0.0\n", settings.Version)
		return 0
	}
	text, err := os.ReadFile(filepath.Join(dir, definitionFile))
	if err != nil {
		return fail("Firecracker", err)
	}
	definition, err := ParseDefinition(text, settings.Minor)
	if err != nil {
		return fail("Firecracker", err)
	}
	v := &VMM{id: *id, settings: settings, state: "Not started"}
	server := NewServer(definition, v.handle)
	for operation, fault := range settings.Faults {
		server.Inject(operation, fault)
	}
	if err := v.record(server, filepath.Join(dir, RequestsFile)); err != nil {
		return fail("Firecracker", err)
	}
	l, err := net.Listen("unix", *socket)
	if err != nil {
		return fail("Firecracker", err)
	}
	return fail("Firecracker", http.Serve(l, server)) //nolint:gosec // as slow as a test wants it
}

func (v *VMM) record(s *Server, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	s.noted = func(r Request) { _ = json.NewEncoder(f).Encode(r) }
	return nil
}

func (v *VMM) handle(operation string, body []byte) (any, error) {
	preBoot := v.state == "Not started"
	switch {
	case operation == "GET /":
		return map[string]string{"id": v.id, "state": v.state, "vmm_version": v.settings.Version, "app_name": "Firecracker"}, nil
	case operation == "PATCH /vm":
		return nil, v.setState(body)
	case operation == "PUT /actions" && strings.Contains(string(body), "SendCtrlAltDel"):
		return nil, v.halt()
	case operation == "PUT /snapshot/create":
		return nil, v.save(body)
	case !preBoot:
		return nil, errors.New("the microVM has been started")
	case operation == "PUT /machine-config":
		v.machine = &machineConfig{}
		return nil, json.Unmarshal(body, v.machine)
	case operation == "PUT /boot-source":
		v.boot = &bootSource{}
		return nil, errors.Join(json.Unmarshal(body, v.boot), v.checkBoot())
	case strings.HasPrefix(operation, "PUT /drives/"):
		var d drive
		if err := json.Unmarshal(body, &d); err != nil {
			return nil, err
		}
		v.drives = append(v.drives, d)
		return nil, openDrive(d)
	case operation == "PUT /vsock":
		v.vsock = &vsock{}
		return nil, errors.Join(json.Unmarshal(body, v.vsock), v.listen())
	case operation == "PUT /actions":
		return nil, v.start()
	case operation == "PUT /snapshot/load":
		if err := v.load(body); err != nil {
			// Firecracker answers, and then it ends.
			time.AfterFunc(50*time.Millisecond, func() { os.Exit(148) })
			return nil, fmt.Errorf("loading the snapshot: %w", err)
		}
		return nil, nil
	}
	return nil, fmt.Errorf("the pretended Firecracker does not do %s", operation)
}

// checkBoot opens what is booted, as Firecracker does at once.
func (v *VMM) checkBoot() error {
	kernel, err := os.ReadFile(v.boot.Kernel)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(kernel), "\x7fELF") {
		return errors.New("the kernel is compressed")
	}
	f, err := os.Open(v.boot.Initrd)
	if err != nil {
		return err
	}
	return f.Close()
}

// openDrive opens a disk. One that is shared must not be writable at all, not
// even to a Firecracker that a guest has taken over.
func openDrive(d drive) error {
	f, err := os.Open(d.Path)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	w, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
	switch {
	case err == nil && d.ReadOnly:
		return errors.Join(fmt.Errorf("%s is read-only, and can be written", d.Path), w.Close())
	case err == nil:
		return w.Close()
	case d.ReadOnly:
		return nil
	}
	return err
}

func (v *VMM) listen() (err error) {
	v.listener, err = net.Listen("unix", v.vsock.Path)
	return err
}

func (v *VMM) start() error {
	if v.machine == nil || v.boot == nil || v.vsock == nil || len(v.drives) == 0 {
		return errors.New("something that the guest needs is missing")
	}
	g, err := newGuest(v.id, v.settings, v.boot.Args)
	if err != nil {
		return err
	}
	return v.run(g)
}

// run has a guest run: its agent answers at its port.
func (v *VMM) run(g *guest) error {
	v.guest, v.state = g, "Running"
	if n := v.settings.Flood; n > 0 {
		flood := strings.Repeat("the guest says something\n", n/25+1)
		_, _ = io.WriteString(os.Stdout, flood) // the console takes what it can
	}
	if err := g.begin(); err != nil {
		return err
	}
	go func() {
		for {
			conn, err := v.listener.Accept()
			if err != nil {
				return
			}
			go g.serve(conn)
		}
	}()
	return nil
}

// halt ends the guest, which writes to its home first, and Firecracker with it.
func (v *VMM) halt() error {
	for _, d := range v.drives {
		if d.ReadOnly {
			continue
		}
		f, err := os.OpenFile(d.Path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt([]byte(Halted), 0) // where ext4 has nothing
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	time.AfterFunc(50*time.Millisecond, func() { os.Exit(0) })
	return nil
}

// Halted is what a pretended guest writes at the beginning of the disk with its
// home when it ends by itself.
const Halted = "it has ended by itself"

func (v *VMM) setState(body []byte) error {
	var in struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	if v.state == "Not started" {
		return errors.New("the microVM has not been started")
	}
	if v.state = "Paused"; in.State == "Resumed" {
		v.state = "Running"
	}
	return nil
}

// save writes a snapshot: memory that is mostly zeros, as a guest's is.
func (v *VMM) save(body []byte) error {
	var in struct {
		State  string `json:"snapshot_path"`
		Memory string `json:"mem_file_path"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	if v.state != "Paused" {
		return errors.New("the microVM is not paused")
	}
	if !v.guest.alone() {
		return errors.New("the guest is connected to the host")
	}
	text, err := json.Marshal(saved{v.settings.Version, *v.machine, v.drives, *v.vsock, v.guest.port})
	if err != nil {
		return err
	}
	if err := os.WriteFile(in.State, text, 0o600); err != nil {
		return err
	}
	memory := make([]byte, memorySize)
	copy(memory[memorySize/2:], memoryText)
	return os.WriteFile(in.Memory, memory, 0o600)
}

// What is in a pretended guest's memory.
const (
	memorySize = 4 << 20
	memoryText = "a warm guest"
)

func (v *VMM) load(body []byte) error {
	var in struct {
		State  string `json:"snapshot_path"`
		Memory struct {
			Path string `json:"backend_path"`
		} `json:"mem_backend"`
		Resume bool   `json:"resume_vm"`
		Vsock  *vsock `json:"vsock_override"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	if v.machine != nil || v.boot != nil || v.vsock != nil || len(v.drives) > 0 {
		return errors.New("the microVM has been described already")
	}
	text, err := os.ReadFile(in.State)
	if err != nil {
		return err
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("the state: %w", err)
	}
	if s.Version != v.settings.Version {
		return fmt.Errorf("the state is of version %q", s.Version)
	}
	memory, err := os.ReadFile(in.Memory.Path)
	if err != nil {
		return err
	}
	if len(memory) != memorySize || !strings.HasPrefix(string(memory[memorySize/2:]), memoryText) {
		return errors.New("the memory is not the guest's")
	}
	for _, d := range s.Drives {
		if err := openDrive(d); err != nil {
			return err
		}
	}
	if v.vsock = &s.Vsock; in.Vsock != nil {
		v.vsock.Path = in.Vsock.Path
	}
	if err := v.listen(); err != nil {
		return err
	}
	v.machine, v.drives = &s.Machine, s.Drives
	if !in.Resume {
		return errors.New("the driver resumes at once")
	}
	return v.run(&guest{id: v.id, settings: v.settings, kind: machine.Browser, port: s.Port, restored: true})
}

// guest is a pretended agent at a vsock port.
type guest struct {
	id       string
	settings Settings
	kind     machine.Kind
	port     uint32
	restored bool

	driver *fake.Driver
	ref    json.RawMessage
	conns  chan struct{} // holds one for each connection
}

// newGuest reads the boot arguments as the guest's first process does.
func newGuest(id string, settings Settings, args string) (*guest, error) {
	g := &guest{id: id, settings: settings}
	for word := range strings.FieldsSeq(args) {
		switch name, value, _ := strings.Cut(word, "="); name {
		case "anteroom.kind":
			g.kind = machine.Kind(value)
		case "anteroom.line":
			text, _ := strings.CutPrefix(value, "vsock-listen:")
			port, err := strconv.ParseUint(text, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("anteroom.line=%s: %w", value, err)
			}
			g.port = uint32(port)
		}
	}
	if g.kind != machine.Browser && g.kind != machine.CLI || g.port == 0 {
		return nil, fmt.Errorf("the boot arguments lack something: %q", args)
	}
	return g, nil
}

func (g *guest) begin() error {
	host := fake.NewHost(g.settings.Build)
	g.driver, g.conns = fake.NewDriver(host), make(chan struct{}, 16)
	created, err := g.driver.Create(context.Background(), machine.Spec{ID: g.id, Kind: g.kind, Cold: !g.restored})
	g.ref = created.Ref
	return err
}

// alone waits until no connection is left: one that the host has closed ends in
// its own time.
func (g *guest) alone() bool {
	for until := time.Now().Add(2 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		if len(g.conns) == 0 {
			return true
		}
	}
	return false
}

// serve takes a connection to Firecracker's socket, as Firecracker does.
func (g *guest) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil || line != fmt.Sprintf("CONNECT %d\n", g.port) {
		return // nobody listens there
	}
	if g.restored && g.settings.Deaf {
		_, _ = io.Copy(io.Discard, in)
		return
	}
	agent, err := g.driver.Open(context.Background(), g.id, g.ref)
	if err != nil {
		return
	}
	defer func() { _ = agent.Close() }()
	g.conns <- struct{}{}
	defer func() { <-g.conns }()
	if _, err := io.WriteString(conn, "OK 1073741824\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(agent, in)
		_ = agent.Close()
	}()
	_, _ = io.Copy(conn, agent)
}
