package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
)

// Greeting is what a fake machine's screen and terminal say first; they then
// repeat what they are told.
const Greeting = "RFB 003.008\n"

var (
	errKind  = errors.New("a machine of this kind does not do that")
	errOther = errors.New("it works for another machine or session")
	errNone  = errors.New("there is nothing of that")
	errOlder = errors.New("a later version was delivered already")
)

// routes are the agent's API, as the real agent serves it.
func (m *Machine) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+guestapi.PathConfigure, answer(m.configure))
	mux.HandleFunc("POST "+guestapi.PathAuth+"{provider}", answer(m.auth))
	mux.HandleFunc("GET "+guestapi.PathStatus, m.status)
	mux.HandleFunc("GET "+guestapi.PathCredentials, func(w http.ResponseWriter, _ *http.Request) {
		l := m.Login()
		if l == nil {
			reply(w, nil, errNone)
			return
		}
		out, ok := l.credentials()
		if !ok {
			reply(w, nil, errNone)
			return
		}
		reply(w, out, nil)
	})
	mux.HandleFunc("POST "+guestapi.PathDeliver, answer(m.deliver))
	mux.HandleFunc("POST "+guestapi.PathCollect, answer(m.collect))
	mux.HandleFunc("GET "+guestapi.PathVNC, m.stream(machine.Browser))
	mux.HandleFunc("GET "+guestapi.PathScreen, m.screen)
	mux.HandleFunc("GET "+guestapi.PathTerminal, m.stream(machine.CLI))
	return mux
}

func (m *Machine) configure(in guestapi.Configure) (guestapi.Ack, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.configured != nil && m.configured.MachineID != in.MachineID:
		return guestapi.Ack{}, errOther
	case m.configured != nil:
		m.ack.Again = true
	case in.Kind != string(m.spec.Kind):
		return guestapi.Ack{}, errKind
	default:
		sum := sha256.Sum256(in.Entropy)
		m.configured = &in
		m.ack = guestapi.Ack{
			MachineID: in.MachineID, Entropy: hex.EncodeToString(sum[:]), Build: m.build, Restored: !m.spec.Cold,
		}
	}
	ack := m.ack
	ack.Clock = time.Now()
	if m.script.Ack != nil {
		m.script.Ack(&ack)
	}
	return ack, nil
}

// Login is the sign-in that was asked for, or nil.
func (m *Machine) Login() *Login {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.login
}

func (m *Machine) auth(in guestapi.AuthRequest) (guestapi.AuthStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.configured == nil || m.spec.Kind != machine.Browser || in.Provider == nil {
		return guestapi.AuthStatus{}, errKind
	}
	if m.login != nil && m.login.request.SessionID != in.SessionID {
		return guestapi.AuthStatus{}, errOther
	}
	if m.login == nil {
		m.login = newLogin(in)
		if m.script.Login != nil {
			m.work.Go(func() { m.script.Login(m.alive, m.login) })
		}
	}
	return m.login.wait(context.Background(), 0, 0), nil
}

func (m *Machine) status(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.ParseInt(r.FormValue("after"), 10, 64)
	wait, _ := time.ParseDuration(r.FormValue("wait"))
	l := m.Login()
	if l == nil {
		reply(w, guestapi.AuthStatus{Phase: guestapi.PhaseIdle}, nil)
		return
	}
	reply(w, l.wait(r.Context(), after, wait), nil)
}

func (m *Machine) deliver(in guestapi.Delivery) (guestapi.DeliveryAck, error) {
	if m.spec.Kind != machine.CLI || in.Provider == nil {
		return guestapi.DeliveryAck{}, errKind
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ack := guestapi.DeliveryAck{CredentialID: in.CredentialID, Version: in.Version, SHA256: guestapi.DeliveryHash(in.Files)}
	if last, ok := m.delivered[in.Provider.Name]; ok && len(in.Files) > 0 {
		if in.Version < last.Version {
			return guestapi.DeliveryAck{}, errOlder
		}
		if last.SessionID == in.SessionID && provider.Fresher(in.Provider, contents(in.Files), contents(last.Files)) {
			ack.Kept = true
			return ack, nil
		}
	}
	m.delivered[in.Provider.Name] = in
	m.deliveries++
	return ack, nil
}

func contents(files []guestapi.File) provider.Content {
	out := provider.Content{}
	for _, f := range files {
		out[f.Name] = f.Content
	}
	return out
}

func (m *Machine) collect(in guestapi.Collect) (guestapi.Credentials, error) {
	if m.spec.Kind != machine.CLI || in.Provider == nil {
		return guestapi.Credentials{}, errKind
	}
	d, ok := m.Delivered(in.Provider.Name)
	if !ok {
		return guestapi.Credentials{}, errNone
	}
	return guestapi.Credentials{SessionID: d.SessionID, Provider: in.Provider.Name, Files: d.Files}, nil
}

// stream greets, then repeats what it reads, in machines of one kind.
func (m *Machine) stream(kind machine.Kind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if m.spec.Kind != kind || r.Header.Get("Upgrade") != line.Upgrade {
			reply(w, nil, errKind)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			reply(w, nil, err)
			return
		}
		echo(conn, buffered)
	}
}

// upgraded is the answer after which a stream is raw bytes.
const upgraded = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + line.Upgrade + "\r\n\r\n"

func echo(conn net.Conn, from io.Reader) {
	defer func() { _ = conn.Close() }()
	if _, err := io.WriteString(conn, upgraded+Greeting); err == nil {
		_, _ = io.Copy(conn, from)
	}
}

// answer decodes a JSON body, calls do, and writes what it returns.
func answer[In, Out any](do func(In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(in)
		reply(w, out, err)
	}
}

func reply(w http.ResponseWriter, out any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	_ = json.NewEncoder(w).Encode(out)
}
