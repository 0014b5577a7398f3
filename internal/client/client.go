// Package client asks a running server over its HTTP API, as the command line
// does.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

// maxAnswer limits what is read of an answer.
const maxAnswer = 1 << 20

// ErrAddress says that an address cannot be a server's.
var ErrAddress = errors.New("client: not a server's address")

// Problem is a server's refusal.
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"` // a plain sentence
}

func (p *Problem) Error() string {
	if p.Detail == "" {
		return fmt.Sprintf("the server answered %d", p.Status)
	}
	return p.Detail
}

// Client asks one server as the owner of one API token. Its methods may be
// called concurrently.
type Client struct {
	base  *url.URL
	token store.Secret
	http  *http.Client
}

// New returns a client for the server at base, such as http://127.0.0.1:8080.
// The token is not sent over plain http except to this computer itself.
func New(base string, token store.Secret) (*Client, error) {
	u, err := url.Parse(strings.TrimSuffix(base, "/"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: %q must be like http://127.0.0.1:8080 or https://name", ErrAddress, base)
	}
	if u.Scheme == "http" && !loopback(u.Hostname()) {
		return nil, fmt.Errorf("%w: %q: over plain http others on the way could read the token; give an https:// address", ErrAddress, base)
	}
	return &Client{base: u, token: token, http: &http.Client{
		Timeout: 2 * time.Minute, // a machine's first start is the slowest
		// A token goes to the server that was named, and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// CancelSession ends a session of the token's owner.
func (c *Client) CancelSession(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/api/v1/sessions/"+url.PathEscape(id), nil)
}

// EnsureMachine returns the id of the owner's CLI machine, which is made and
// started if need be.
func (c *Client) EnsureMachine(ctx context.Context) (string, error) {
	var m struct {
		ID string `json:"id"`
	}
	err := c.call(ctx, http.MethodPost, "/api/v1/machines", &m)
	if err == nil && m.ID == "" {
		err = errors.New("the server's answer names no machine")
	}
	return m.ID, err
}

// PortReport is what a look at an upstream port has shown.
type PortReport struct {
	ExitAddress string `json:"exit_address"`
	Problem     string `json:"problem"` // a stable code; empty if there is none
	Refuses     []struct {
		Provider string `json:"provider"`
		Name     string `json:"name"`
	} `json:"refuses"`
}

// CheckPort looks at an upstream port (host:port); for administrators.
func (c *Client) CheckPort(ctx context.Context, port string) (PortReport, error) {
	var r PortReport
	err := c.call(ctx, http.MethodPost, "/api/v1/egress/ports/"+url.PathEscape(port)+"/check", &r)
	return r, err
}

func (c *Client) terminalTicket(ctx context.Context, machineID string) (string, error) {
	var t struct {
		Ticket string `json:"ticket"`
	}
	err := c.call(ctx, http.MethodPost, "/api/v1/machines/"+url.PathEscape(machineID)+"/tickets", &t)
	return t.Ticket, err
}

// call makes one request without a body and reads the answer into out, unless
// that is nil.
func (c *Client) call(ctx context.Context, method, path string, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return c.unreachable(err)
	}
	if res.StatusCode/100 != 2 {
		p := &Problem{}
		_ = json.Unmarshal(body, p) // what is not a problem document says nothing
		p.Status = res.StatusCode
		return p
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s does not answer like an Anteroom server: %w", c.base, err)
	}
	return nil
}

func (c *Client) unreachable(err error) error {
	return fmt.Errorf("%s cannot be asked: is the server running there? %w", c.base, err)
}
