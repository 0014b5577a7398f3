package fake

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
)

// Script is what one machine does. Its zero value is a machine that starts, is
// configured, and whose tool hangs when it is asked to sign in. Functions may
// be called concurrently and from other goroutines than the test's; those with
// a context must return when it ends.
type Script struct {
	// Create runs while the machine is being created; its error is Create's.
	Create func(ctx context.Context) error
	// Ack changes the acknowledgement of a configuration.
	Ack func(*guestapi.Ack)
	// Login is the tool and the person. It runs once, when the sign-in is asked
	// for, until it returns or the machine ends.
	Login func(ctx context.Context, l *Login)
	// HTTP is put around the agent's API.
	HTTP func(agent http.Handler) http.Handler
	// Line has a connection of the line to itself: no agent is behind it. It
	// returns when the connection is closed at the latest; the machine calls
	// again then.
	Line func(ctx context.Context, conn net.Conn)
}

// Machine is one machine on a Host. Its methods may be called concurrently.
type Machine struct {
	build  string
	number int
	spec   machine.Spec
	script Script

	alive context.Context // of the machine: ends with it
	kill  context.CancelFunc
	work  sync.WaitGroup
	calls chan net.Conn // the agent's calls to its host

	mu         sync.Mutex // guards what follows
	conn       net.Conn   // the host's end of the line that is up
	configured *guestapi.Configure
	ack        guestapi.Ack
	login      *Login
	delivered  map[string]guestapi.Delivery // by provider; what lies in the machine's memory
	deliveries int
}

func newMachine(build string, number int, spec machine.Spec, script Script) *Machine {
	alive, kill := context.WithCancel(context.Background())
	return &Machine{
		build: build, number: number, spec: spec, script: script, alive: alive, kill: kill,
		calls: make(chan net.Conn), delivered: map[string]guestapi.Delivery{},
	}
}

// run starts the agent, which calls the host whenever its line is down.
func (m *Machine) run() {
	m.work.Go(func() {
		for m.alive.Err() == nil {
			host, agent := net.Pipe()
			select {
			case m.calls <- host:
				m.serve(agent)
			case <-m.alive.Done():
			}
			_ = agent.Close()
			_ = host.Close()
		}
	})
}

// serve serves one line until it ends.
func (m *Machine) serve(conn net.Conn) {
	stop := context.AfterFunc(m.alive, func() { _ = conn.Close() })
	defer stop()
	if m.script.Line != nil {
		m.script.Line(m.alive, conn)
		return
	}
	l, err := line.Guest(conn)
	if err != nil {
		return
	}
	handler := m.routes()
	if m.script.HTTP != nil {
		handler = m.script.HTTP(handler)
	}
	// Requests end with their line, also where a handler never reads.
	up, down := context.WithCancel(m.alive)
	defer down()
	server := &http.Server{Handler: handler, BaseContext: func(net.Listener) context.Context { return up }} //nolint:gosec // as slow as a test wants it
	_ = server.Serve(l)
	_ = l.Close()
	_ = server.Close()
}

// ID is the machine's id.
func (m *Machine) ID() string { return m.spec.ID }

// Spec is what the machine was made from.
func (m *Machine) Spec() machine.Spec { return m.spec }

// Kill ends the machine, as a crash would: its trace stays on the host.
func (m *Machine) Kill() { m.kill() }

// Dead is closed when the machine has ended.
func (m *Machine) Dead() <-chan struct{} { return m.alive.Done() }

// BreakLine breaks the line that is up, if there is one.
func (m *Machine) BreakLine() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn != nil {
		_ = m.conn.Close()
	}
}

// Configured is what the machine was configured with, or nil.
func (m *Machine) Configured() *guestapi.Configure {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.configured
}

// Delivered is the delivery of a provider's files that lies in the machine,
// and false if there are none.
func (m *Machine) Delivered(provider string) (guestapi.Delivery, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, ok := m.delivered[provider]
	return d, ok && len(d.Files) > 0
}

// Deliveries is how often something was delivered or taken away.
func (m *Machine) Deliveries() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.deliveries
}

// Refresh replaces a provider's files in the machine, as its tool does when it
// renews its tokens; with none they are gone.
func (m *Machine) Refresh(provider string, files []guestapi.File) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.delivered[provider]
	d.Files = files
	m.delivered[provider] = d
}
