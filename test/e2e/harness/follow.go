package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/session"
)

// Event is one event of a session, as the API tells it.
type Event struct {
	Seq     int64             `json:"seq"`
	Kind    session.EventKind `json:"kind"`
	State   session.State     `json:"state"`
	Reason  session.Reason    `json:"reason"`
	Message string            `json:"message"`
	At      time.Time         `json:"at"`
}

// Follow reads a session's events from the first one on, as they happen, until
// done says true of one. It ends with ctx's error, or when the stream breaks.
func (u *User) Follow(ctx context.Context, id string, done func(Event) bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.rig.URL()+"/api/v1/sessions/"+id+"/events", nil)
	if err != nil {
		return fmt.Errorf("harness: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token.Reveal())
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("harness: events: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("harness: events: %s", res.Status)
	}
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var e Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("harness: events: %w", err)
		}
		if done(e) {
			return nil
		}
	}
	return fmt.Errorf("harness: events: %w", errors.Join(ctx.Err(), lines.Err(), io.ErrUnexpectedEOF))
}

// Viewer connects to a session's screen as the page does: with a ticket, over
// a WebSocket. The connection carries RFB and lives until it is closed or ctx
// ends.
func (u *User) Viewer(ctx context.Context, id string) (net.Conn, error) {
	var t struct{ Ticket string }
	if err := u.Call(ctx, http.MethodPost, "/sessions/"+id+"/tickets", nil, &t); err != nil {
		return nil, err
	}
	hello, err := json.Marshal(map[string]string{"ticket": t.Ticket})
	if err != nil {
		return nil, fmt.Errorf("harness: %w", err)
	}
	ws, _, err := websocket.Dial(ctx, u.rig.URL()+"/api/v1/sessions/"+id+"/vnc", &websocket.DialOptions{
		HTTPHeader: http.Header{"Authorization": {"Bearer " + u.token.Reveal()}},
	})
	if err != nil {
		return nil, fmt.Errorf("harness: viewer: %w", err)
	}
	ws.SetReadLimit(8 << 20)
	if err := ws.Write(ctx, websocket.MessageText, hello); err != nil {
		_ = ws.CloseNow()
		return nil, fmt.Errorf("harness: viewer: %w", err)
	}
	return websocket.NetConn(ctx, ws, websocket.MessageBinary), nil
}

// Watch hands the server the offer of a peer connection for a session's screen,
// as the page does, and returns the answer.
func (u *User) Watch(ctx context.Context, id, offer string) (answer string, err error) {
	var t struct{ Ticket string }
	if err := u.Call(ctx, http.MethodPost, "/sessions/"+id+"/tickets", nil, &t); err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.rig.URL()+"/api/v1/sessions/"+id+"/webrtc", strings.NewReader(offer))
	if err != nil {
		return "", fmt.Errorf("harness: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+u.token.Reveal())
	req.Header.Set("Content-Type", "application/sdp")
	req.Header.Set("Anteroom-Ticket", t.Ticket)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("harness: watch: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("harness: watch: %w", err)
	}
	if res.StatusCode != http.StatusCreated {
		return "", fmt.Errorf("harness: watch: %s: %s", res.Status, body)
	}
	return string(body), nil
}
