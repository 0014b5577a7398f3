package guestapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/anteroom/anteroom/internal/line"
)

// StatusError is a guest's refusal.
type StatusError struct {
	Code int
	Text string // the guest's words: for the log only
}

func (e *StatusError) Error() string { return fmt.Sprintf("guest answered %d: %q", e.Code, e.Text) }

// ErrResponse says that the guest's answer broke a limit or was not JSON of
// the expected shape.
var ErrResponse = errors.New("guestapi: the guest's answer is not acceptable")

// Client asks the agent at the other end of a line. Its methods may be called
// concurrently; each holds the guest to the limits of this package, and waits
// as long as its context allows.
type Client struct {
	line *line.Line
	http *http.Client
}

// NewClient returns a client for the host's end of a line.
func NewClient(l *line.Line) *Client {
	return &Client{line: l, http: l.Client(MaxHeaderBytes)}
}

// Configure sends the first request and returns the acknowledgement, unchecked.
func (c *Client) Configure(ctx context.Context, in Configure) (Ack, error) {
	return call[Ack](ctx, c, http.MethodPost, PathConfigure, in)
}

// Warm waits until display and browser are up; the machine must not have been
// configured for anybody.
func (c *Client) Warm(ctx context.Context, in Warm) error {
	_, err := call[struct{}](ctx, c, http.MethodPost, PathWarm, in)
	return err
}

// StartAuth starts the sign-in, or returns its status if it was started before.
func (c *Client) StartAuth(ctx context.Context, in AuthRequest) (AuthStatus, error) {
	return call[AuthStatus](ctx, c, http.MethodPost, PathAuth+url.PathEscape(in.Provider.Name), in)
}

// Status waits up to wait for a status whose Seq is above after.
func (c *Client) Status(ctx context.Context, after int64, wait time.Duration) (AuthStatus, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {wait.String()}}
	return call[AuthStatus](ctx, c, http.MethodGet, PathStatus+"?"+q.Encode(), nil)
}

// Credentials fetches the captured files; it may be repeated.
func (c *Client) Credentials(ctx context.Context) (Credentials, error) {
	out, err := call[Credentials](ctx, c, http.MethodGet, PathCredentials, nil)
	return limited(out, err)
}

// Collect fetches the files of a cli machine as they are now.
func (c *Client) Collect(ctx context.Context, in Collect) (Credentials, error) {
	out, err := call[Credentials](ctx, c, http.MethodPost, PathCollect, in)
	return limited(out, err)
}

func limited(out Credentials, err error) (Credentials, error) {
	if err != nil {
		return Credentials{}, err
	}
	if len(out.Files) == 0 || len(out.Files) > MaxFiles {
		return Credentials{}, fmt.Errorf("%w: %d files", ErrResponse, len(out.Files))
	}
	for _, f := range out.Files {
		if len(f.Content) > MaxFileBytes {
			return Credentials{}, fmt.Errorf("%w: a file of %d bytes", ErrResponse, len(f.Content))
		}
	}
	return out, nil
}

// Deliver hands files to a cli machine.
func (c *Client) Deliver(ctx context.Context, in Delivery) (DeliveryAck, error) {
	return call[DeliveryAck](ctx, c, http.MethodPost, PathDeliver, in)
}

// Run runs one command in a cli machine.
func (c *Client) Run(ctx context.Context, in RunRequest) (RunResult, error) {
	return call[RunResult](ctx, c, http.MethodPost, PathRun, in)
}

// VNC opens a byte stream to the machine's X server, speaking RFB.
func (c *Client) VNC(ctx context.Context) (io.ReadWriteCloser, error) {
	return c.upgrade(ctx, PathVNC)
}

// Screen opens the machine's screen as encoded video, with a way back for input:
// screen frames (WriteScreenFrame, ReadScreenFrame). codec is "vp8" or "h264";
// the machine refuses one that it has no encoder for.
func (c *Client) Screen(ctx context.Context, codec string) (io.ReadWriteCloser, error) {
	return c.upgrade(ctx, PathScreen+"?"+url.Values{"codec": {codec}}.Encode())
}

// Terminal opens a terminal in a cli machine; the stream carries terminal
// frames (WriteTermFrame, ReadTermFrame).
func (c *Client) Terminal(ctx context.Context, cols, rows int) (io.ReadWriteCloser, error) {
	q := url.Values{"cols": {strconv.Itoa(cols)}, "rows": {strconv.Itoa(rows)}}
	return c.upgrade(ctx, PathTerminal+"?"+q.Encode())
}

func (c *Client) upgrade(ctx context.Context, target string) (io.ReadWriteCloser, error) {
	// The stream outlives the request's context: the caller closes it.
	reqCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, cancel)
	req, err := http.NewRequestWithContext(reqCtx, http.MethodGet, "http://guest"+target, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", line.Upgrade)
	res, err := c.http.Do(req)
	if err != nil {
		stop()
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err() // not that of the context that stands in for it
		}
		return nil, err
	}
	stream, ok := res.Body.(io.ReadWriteCloser)
	if res.StatusCode != http.StatusSwitchingProtocols || !ok {
		defer cancel()
		defer stop()
		return nil, refusal(res)
	}
	if !stop() {
		_ = stream.Close()
		return nil, ctx.Err()
	}
	return upgraded{stream, cancel}, nil
}

type upgraded struct {
	io.ReadWriteCloser
	cancel context.CancelFunc
}

func (u upgraded) Close() error {
	defer u.cancel()
	return u.ReadWriteCloser.Close()
}

func refusal(res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	_ = res.Body.Close()
	return &StatusError{Code: res.StatusCode, Text: string(bytes.TrimSpace(text))}
}

func call[T any](ctx context.Context, c *Client, method, target string, in any) (T, error) {
	var out T
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("guestapi: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://guest"+target, body)
	if err != nil {
		return out, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return out, err
	}
	if res.StatusCode != http.StatusOK {
		return out, refusal(res)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, MaxBodyBytes+1))
	if err != nil {
		return out, err
	}
	if len(b) > MaxBodyBytes {
		return out, fmt.Errorf("%w: over %d bytes", ErrResponse, MaxBodyBytes)
	}
	if tooDeep(b) {
		return out, fmt.Errorf("%w: nested deeper than %d levels", ErrResponse, MaxJSONDepth)
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("%w: %w", ErrResponse, err)
	}
	return out, nil
}

// tooDeep says whether JSON is nested deeper than MaxJSONDepth, also in what is
// not decoded. Of what is no JSON it says nothing useful.
func tooDeep(text []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++ // what comes next ends nothing
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > MaxJSONDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
