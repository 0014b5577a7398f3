package harness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/client"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// User is one user of the server, with an API token. Its methods may be called
// concurrently.
type User struct {
	Name string

	rig    *Rig
	token  store.Secret
	client *client.Client
}

// Session is what tests look at of the API's answer.
type Session struct {
	ID           session.ID     `json:"id"`
	Provider     string         `json:"provider"`
	State        session.State  `json:"state"`
	Reason       session.Reason `json:"reason"`
	Message      string         `json:"message"`
	Detail       string         `json:"detail"`
	VMID         string         `json:"vm_id"`
	Attempt      int            `json:"attempt"`
	CredentialID string         `json:"credential_id"`
	ExitAddress  string         `json:"exit_address"`
	Position     int            `json:"queue_position"`
}

// Credential is what tests look at of the API's answer.
type Credential struct {
	ID          string     `json:"id"`
	Provider    string     `json:"provider"`
	Version     int        `json:"version"`
	Active      bool       `json:"active"`
	SessionID   session.ID `json:"session_id"`
	Account     string     `json:"account"`
	ExpiresAt   time.Time  `json:"expires_at"`
	DeliveredTo string     `json:"delivered_to"`
}

// Machine is what tests look at of the API's answer.
type Machine struct {
	ID        string     `json:"id"`
	Kind      string     `json:"kind"`
	State     string     `json:"state"`
	Restored  bool       `json:"restored"`
	SessionID session.ID `json:"session_id"`
}

// User makes a user with an API token, as an operator does: by anteroom user
// add and anteroom token create.
func (r *Rig) User(ctx context.Context, name string) (*User, error) {
	if _, err := r.Command(ctx, "user", "add", name, "--listen", r.address); err != nil {
		return nil, err
	}
	token, err := r.Command(ctx, "token", "create", "--user", name)
	if err != nil {
		return nil, err
	}
	c, err := client.New(r.URL(), store.Secret(token))
	if err != nil {
		return nil, err
	}
	u := &User{Name: name, rig: r, token: store.Secret(token), client: c}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users = append(r.users, u)
	return u, nil
}

// Link makes a new sign-in link: anteroom user link.
func (u *User) Link(ctx context.Context) (string, error) {
	return u.rig.Command(ctx, "user", "link", u.Name, "--listen", u.rig.address)
}

// Call makes one request to the API and reads the answer into out, unless that
// is nil. An answer that is no success is a *client.Problem.
func (u *User) Call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("harness: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.rig.URL()+"/api/v1"+path, body)
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token.Reveal())
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("harness: %s %s: %w", method, path, err)
	}
	defer func() { _ = res.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil {
		return fmt.Errorf("harness: %s %s: %w", method, path, err)
	}
	if res.StatusCode/100 != 2 {
		p := &client.Problem{}
		_ = json.Unmarshal(answer, p)
		p.Status = res.StatusCode
		return fmt.Errorf("harness: %s %s: %w", method, path, p)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("harness: %s %s: %w", method, path, err)
	}
	return nil
}

// StartSession asks for a session by the API.
func (u *User) StartSession(ctx context.Context, provider string) (Session, error) {
	var s Session
	return s, u.Call(ctx, http.MethodPost, "/sessions", map[string]string{"provider": provider}, &s)
}

// Session is one of the user's sessions.
func (u *User) Session(ctx context.Context, id string) (Session, error) {
	var s Session
	return s, u.Call(ctx, http.MethodGet, "/sessions/"+id, nil, &s)
}

// Sessions are the user's sessions, newest first.
func (u *User) Sessions(ctx context.Context) ([]Session, error) {
	var l struct{ Sessions []Session }
	return l.Sessions, u.Call(ctx, http.MethodGet, "/sessions?limit=100", nil, &l)
}

// Credentials are all versions that the API tells of.
func (u *User) Credentials(ctx context.Context) ([]Credential, error) {
	var l struct{ Credentials []Credential }
	return l.Credentials, u.Call(ctx, http.MethodGet, "/credentials", nil, &l)
}

// Machines are the user's machines.
func (u *User) Machines(ctx context.Context) ([]Machine, error) {
	var l struct{ Machines []Machine }
	return l.Machines, u.Call(ctx, http.MethodGet, "/machines", nil, &l)
}

// EnsureMachine returns the user's CLI machine, made and started if need be.
func (u *User) EnsureMachine(ctx context.Context) (Machine, error) {
	var m Machine
	return m, u.Call(ctx, http.MethodPost, "/machines", nil, &m)
}

// DestroyMachine destroys one of the user's machines.
func (u *User) DestroyMachine(ctx context.Context, id string) error {
	return u.Call(ctx, http.MethodDelete, "/machines/"+id, nil, nil)
}

// output finds what a command printed between Shell's marks.
var output = regexp.MustCompile(`(?s)<<begin>>\r?\n(.*)<<end (\d+)>>`)

// Shell runs a command in a new shell on the user's CLI machine, through the
// terminal's WebSocket, and returns what it printed, on both of its outputs,
// and its exit code. Its standard input is empty, its outputs are a pipe.
func (u *User) Shell(ctx context.Context, command string) (text string, code int, err error) {
	m, err := u.EnsureMachine(ctx)
	if err != nil {
		return "", 0, err
	}
	in, typed := io.Pipe()
	defer func() { _ = typed.Close() }()
	// The marks are broken in what is typed, since the terminal echoes it.
	line := `echo "<<""begin>>"; { ` + command + `; } </dev/null 2>&1 | cat; echo "<<""end ${PIPESTATUS[0]}>>"; exit` + "\n"
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sent := make(chan struct{})
	go func() { defer close(sent); _, _ = io.WriteString(typed, line) }()
	var out bytes.Buffer
	_, err = u.client.Terminal(ctx, m.ID, in, &out, client.Size{Cols: 1000, Rows: 50}, nil, func() { _ = in.Close() })
	<-sent
	if err != nil {
		return "", 0, fmt.Errorf("harness: terminal: %w; it showed %q", err, out.String())
	}
	found := output.FindStringSubmatch(out.String())
	if found == nil {
		return "", 0, fmt.Errorf("harness: the terminal did not show the command's output: %q", out.String())
	}
	code, err = strconv.Atoi(found[2])
	return strings.TrimSpace(strings.ReplaceAll(found[1], "\r\n", "\n")), code, err
}

// Retire cancels the user's open sessions and destroys their machine.
func (u *User) Retire(ctx context.Context) error {
	all, err := u.Sessions(ctx)
	if err != nil {
		return err
	}
	var conflict *client.Problem
	for _, s := range all {
		if s.State.Final() {
			continue
		}
		err := u.Call(ctx, http.MethodDelete, "/sessions/"+string(s.ID), nil, nil)
		if err != nil && (!errors.As(err, &conflict) || conflict.Code != "conflict") {
			return err
		}
	}
	machines, err := u.Machines(ctx)
	if err != nil {
		return err
	}
	for _, m := range machines {
		if m.Kind != "cli" || m.State != "running" {
			continue
		}
		if err := u.DestroyMachine(ctx, m.ID); err != nil {
			return err
		}
	}
	return nil
}
