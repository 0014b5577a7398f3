package httpapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/stream"
)

// The real service is one as well.
var _ UseCases = (*control.Service)(nil)

// fake is the service behind the API, in memory: sessions, events and tickets
// of several users, machines that are pipes.
type fake struct {
	mu          sync.Mutex
	sessions    map[session.ID]session.Session
	keys        map[string]session.ID // by user and idempotency key
	events      []session.Event
	changed     chan struct{}
	credentials map[string]store.Credential
	machines    map[string]store.VM
	tickets     map[[32]byte]store.Ticket
	view        guestapi.View // of the last StartSession
	fail        error         // what every method answers, if set
	opened      chan net.Conn // the machine's ends of what was opened
	size        [2]int        // of the last terminal
	codec       string        // the machines' only one; empty: any
}

func newFake() *fake {
	return &fake{
		sessions:    make(map[session.ID]session.Session),
		keys:        make(map[string]session.ID),
		changed:     make(chan struct{}),
		credentials: make(map[string]store.Credential),
		machines:    make(map[string]store.VM),
		tickets:     make(map[[32]byte]store.Ticket),
		opened:      make(chan net.Conn, 8),
	}
}

func (f *fake) Providers() []*provider.File {
	return []*provider.File{
		{Name: "claude", Aliases: []string{"claude_code"}, Title: "Claude Code", Login: provider.Login{Flow: "loopback", Timeout: "15m"}},
		{Name: "codex", Title: "Codex", Hosts: []string{"refused.example"}, Login: provider.Login{Flow: "loopback", Timeout: "15m"}},
	}
}

func (f *fake) StartSession(_ context.Context, userID, providerName, key string, view guestapi.View) (session.Session, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return session.Session{}, false, f.fail
	}
	if id, ok := f.keys[userID+" "+key]; ok && key != "" {
		if f.sessions[id].Provider != providerName {
			return session.Session{}, false, store.ErrExists
		}
		return f.sessions[id], true, nil
	}
	now := time.Now()
	s := session.Session{ID: session.NewID(), UserID: userID, Provider: providerName, State: session.Requested, CreatedAt: now, UpdatedAt: now, Deadline: now.Add(time.Minute)}
	s.ViewerURL = "/sessions/" + string(s.ID)
	f.sessions[s.ID] = s
	f.view = view
	if key != "" {
		f.keys[userID+" "+key] = s.ID
	}
	return s, false, nil
}

func (f *fake) Session(_ context.Context, userID string, id session.ID) (session.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return own(f.fail, f.sessions[id], userID, f.sessions[id].UserID)
}

// own returns v if it is the user's.
func own[T any](fail error, v T, userID, owner string) (T, error) {
	var zero T
	if fail != nil {
		return zero, fail
	}
	if owner == "" || owner != userID {
		return zero, store.ErrNotFound
	}
	return v, nil
}

func (f *fake) Sessions(_ context.Context, userID string, limit int, before session.ID) ([]session.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []session.Session
	for _, s := range f.sessions {
		if s.UserID == userID && (before == "" || s.CreatedAt.Before(f.sessions[before].CreatedAt)) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b session.Session) int { return b.CreatedAt.Compare(a.CreatedAt) })
	return out[:min(limit, len(out))], f.fail
}

func (f *fake) Cancel(_ context.Context, userID string, id session.ID) (session.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, err := own(f.fail, f.sessions[id], userID, f.sessions[id].UserID)
	if err != nil {
		return s, err
	}
	if s.State.Final() {
		return session.Session{}, &session.ConflictError{ID: id, From: s.State, To: session.Cancelled, Actual: s.State}
	}
	s.State, s.Reason = session.Cancelled, session.ReasonCancelled
	f.sessions[id] = s
	return s, nil
}

func (f *fake) LatestSeq(_ context.Context, userID string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var last int64
	for _, e := range f.events {
		if e.UserID == userID {
			last = e.Seq
		}
	}
	return last, f.fail
}

func (f *fake) EventsAfter(_ context.Context, userID string, id session.ID, after int64, limit int) ([]session.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []session.Event
	for _, e := range f.events {
		if e.Seq > after && e.UserID == userID && (id == "" || e.SessionID == id) && len(out) < limit {
			out = append(out, e)
		}
	}
	return out, f.fail
}

// add records an event and tells the readers.
func (f *fake) add(userID string, id session.ID, message string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	seq := int64(len(f.events) + 1)
	f.events = append(f.events, session.Event{Seq: seq, UserID: userID, SessionID: id, Kind: session.EventProgress, Message: message, At: time.Now()})
	close(f.changed)
	f.changed = make(chan struct{})
	return seq
}

func (f *fake) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

func (f *fake) Credentials(_ context.Context, userID string) ([]store.Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Collect(maps.Values(f.credentials))
	return slices.DeleteFunc(all, func(c store.Credential) bool { return c.UserID != userID }), f.fail
}

func (f *fake) Credential(_ context.Context, userID, id string) (store.Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return own(f.fail, f.credentials[id], userID, f.credentials[id].UserID)
}

func (f *fake) DeleteCredential(ctx context.Context, userID, id string) error {
	if _, err := f.Credential(ctx, userID, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.credentials, id)
	return nil
}

func (f *fake) Deliver(ctx context.Context, userID, id string) (store.Credential, error) {
	c, err := f.Credential(ctx, userID, id)
	if err == nil {
		c.DeliveredAt, c.DeliveredTo = time.Now(), "somewhere"
	}
	return c, err
}

func (f *fake) Machines(_ context.Context, userID string) ([]store.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := slices.Collect(maps.Values(f.machines))
	return slices.DeleteFunc(all, func(vm store.VM) bool { return vm.UserID != userID }), f.fail
}

func (f *fake) Machine(_ context.Context, userID, id string) (store.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return own(f.fail, f.machines[id], userID, f.machines[id].UserID)
}

func (f *fake) EnsureMachine(_ context.Context, userID string) (store.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, vm := range f.machines {
		if vm.UserID == userID {
			return vm, f.fail
		}
	}
	vm := store.VM{ID: string(session.NewID()), UserID: userID, Kind: "cli", Driver: "fake", State: store.VMRunning, CreatedAt: time.Now()}
	f.machines[vm.ID] = vm
	return vm, f.fail
}

func (f *fake) DestroyMachine(ctx context.Context, userID, id string) error {
	if _, err := f.Machine(ctx, userID, id); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.machines, id)
	return nil
}

func (f *fake) ViewerTicket(ctx context.Context, userID string, id session.ID) (string, time.Time, error) {
	if _, err := f.Session(ctx, userID, id); err != nil {
		return "", time.Time{}, err
	}
	return f.ticket(userID, string(id))
}

func (f *fake) TerminalTicket(ctx context.Context, userID, id string) (string, time.Time, error) {
	if _, err := f.Machine(ctx, userID, id); err != nil {
		return "", time.Time{}, err
	}
	return f.ticket(userID, id)
}

func (f *fake) ticket(userID, subject string) (string, time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	secret, hash := stream.NewTicket()
	expires := time.Now().Add(30 * time.Second)
	f.tickets[hash] = store.Ticket{Hash: hash, UserID: userID, SubjectID: subject, ExpiresAt: expires}
	return secret, expires, nil
}

func (f *fake) OpenViewer(_ context.Context, userID string, id session.ID, ticket string) (io.ReadWriteCloser, error) {
	return f.open(userID, string(id), ticket)
}

func (f *fake) OpenScreen(_ context.Context, userID string, id session.ID, ticket, codec string) (io.ReadWriteCloser, error) {
	f.mu.Lock()
	refuse := f.codec != "" && f.codec != codec
	f.mu.Unlock()
	host, err := f.open(userID, string(id), ticket)
	if err == nil && refuse {
		return nil, errors.Join(host.Close(), &guestapi.StatusError{Code: 404, Text: "no such codec"})
	}
	return host, err
}

func (f *fake) OpenTerminal(_ context.Context, userID, id, ticket string, cols, rows int) (io.ReadWriteCloser, error) {
	f.mu.Lock()
	f.size = [2]int{cols, rows}
	f.mu.Unlock()
	return f.open(userID, id, ticket)
}

func (f *fake) open(userID, subject, ticket string) (io.ReadWriteCloser, error) {
	hash, err := stream.HashTicket(ticket)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	t, ok := f.tickets[hash]
	if !ok || t.UserID != userID || t.SubjectID != subject {
		return nil, store.ErrNotFound
	}
	delete(f.tickets, hash)
	if s, ok := f.sessions[session.ID(subject)]; ok && s.State.Final() {
		return nil, session.ErrConflict
	}
	host, guest := net.Pipe()
	f.opened <- guest
	return host, nil
}

// set changes a session behind the API's back.
func (f *fake) set(id session.ID, change func(*session.Session)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sessions[id]
	change(&s)
	f.sessions[id] = s
}

func (f *fake) failWith(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// has says whether a thing is there, a session if it has not ended.
func (f *fake) has(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, c := f.credentials[id]
	_, m := f.machines[id]
	s, ok := f.sessions[session.ID(id)]
	return c || m || ok && !s.State.Final()
}
