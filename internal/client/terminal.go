package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Size is a terminal's, in characters.
type Size struct{ Cols, Rows int }

// ErrTerminal says that a terminal ended before its shell did.
var ErrTerminal = errors.New("the terminal was cut off")

const (
	// maxMessage is more than a server sends in one message.
	maxMessage = 2 << 20
	// pingEvery keeps what is on the way from taking the connection for dead.
	pingEvery = 20 * time.Second
)

// Terminal runs a shell on the machine until it ends, and returns its exit
// code. in is read until it ends, which the shell sees as Ctrl-D; the caller
// makes a Read that is under way return once Terminal's context has ended,
// which done tells (Terminal waits for it). Each Size that comes changes the
// terminal's.
func (c *Client) Terminal(ctx context.Context, machineID string, in io.Reader, out io.Writer, first Size, sizes <-chan Size, done func()) (int, error) {
	ws, err := c.dialTerminal(ctx, machineID, first)
	if err != nil {
		done()
		return 0, err
	}
	defer func() { _ = ws.CloseNow() }()
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { copyIn(ctx, ws, in) })
	work.Go(func() { sendSizes(ctx, ws, sizes) })
	work.Go(func() { ping(ctx, ws) })
	code, err := readOut(ctx, ws, out)
	cancel()
	done()
	work.Wait()
	return code, err
}

func (c *Client) dialTerminal(ctx context.Context, machineID string, size Size) (*websocket.Conn, error) {
	ticket, err := c.terminalTicket(ctx, machineID)
	if err != nil {
		return nil, err
	}
	q := url.Values{"cols": {strconv.Itoa(size.Cols)}, "rows": {strconv.Itoa(size.Rows)}}
	address := c.base.String() + "/api/v1/machines/" + url.PathEscape(machineID) + "/terminal?" + q.Encode()
	// The client's own time limit would be the connection's.
	plain := &http.Client{Transport: c.http.Transport, CheckRedirect: c.http.CheckRedirect}
	ws, _, err := websocket.Dial(ctx, address, &websocket.DialOptions{ //nolint:bodyclose // the connection owns it
		HTTPClient: plain,
		HTTPHeader: http.Header{"Authorization": {"Bearer " + c.token.Reveal()}},
	})
	if err != nil {
		return nil, c.unreachable(err)
	}
	ws.SetReadLimit(maxMessage)
	hello, err := json.Marshal(map[string]string{"ticket": ticket})
	if err == nil {
		err = ws.Write(ctx, websocket.MessageText, hello)
	}
	if err != nil {
		_ = ws.CloseNow()
		return nil, c.unreachable(err)
	}
	return ws, nil
}

// readOut writes what the terminal shows until its shell has ended.
func readOut(ctx context.Context, ws *websocket.Conn, out io.Writer) (int, error) {
	for {
		kind, msg, err := ws.Read(ctx)
		var closed websocket.CloseError
		switch {
		case errors.As(err, &closed):
			return 0, fmt.Errorf("%w: %q", ErrTerminal, closed.Reason)
		case err != nil:
			return 0, fmt.Errorf("%w: %w", ErrTerminal, err)
		case kind == websocket.MessageBinary:
			if _, err := out.Write(msg); err != nil {
				return 0, err
			}
			continue
		}
		var m struct {
			Exit *struct {
				Code int `json:"code"`
			} `json:"exit"`
		}
		if json.Unmarshal(msg, &m) == nil && m.Exit != nil {
			return m.Exit.Code, nil
		}
	}
}

// copyIn hands on what is typed. Its errors show in what is read.
func copyIn(ctx context.Context, ws *websocket.Conn, in io.Reader) {
	buf := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := in.Read(buf)
		if n > 0 && ws.Write(ctx, websocket.MessageBinary, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = ws.Write(ctx, websocket.MessageBinary, []byte{4}) // Ctrl-D
			return
		}
	}
}

func sendSizes(ctx context.Context, ws *websocket.Conn, sizes <-chan Size) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-sizes:
			msg := fmt.Sprintf(`{"resize":{"cols":%d,"rows":%d}}`, s.Cols, s.Rows)
			if ws.Write(ctx, websocket.MessageText, []byte(msg)) != nil {
				return
			}
		}
	}
}

func ping(ctx context.Context, ws *websocket.Conn) {
	ticker := time.NewTicker(pingEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if ws.Ping(ctx) != nil {
				return
			}
		}
	}
}
