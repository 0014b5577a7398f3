package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/stream"
)

// ticket asks the API for one, as the page does.
func (r *rig) ticket(path, token string) string {
	r.Helper()
	a := r.do("POST", path+"/tickets", "", bearer(token))
	var tk Ticket
	if err := json.Unmarshal([]byte(a.body), &tk); err != nil || a.status != http.StatusCreated || tk.Ticket == "" || time.Until(tk.ExpiresAt) > time.Minute {
		r.Fatalf("%d %s", a.status, a.body)
	}
	return tk.Ticket
}

func (r *rig) viewer(p person) string   { return "/api/v1/sessions/" + string(p.session) }
func (r *rig) terminal(p person) string { return "/api/v1/machines/" + p.machine }

// connect opens a WebSocket and sends a first message.
func (r *rig) connect(path, first string, h http.Header) *websocket.Conn {
	r.Helper()
	ctx := testContext(r.T)
	ws, res, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(r.http.URL, "http")+path, &websocket.DialOptions{HTTPHeader: h})
	if err != nil {
		r.Fatalf("%v %v", err, res)
	}
	r.Cleanup(func() { _ = ws.CloseNow() })
	if err := ws.Write(ctx, websocket.MessageText, []byte(first)); err != nil {
		r.Fatal(err)
	}
	return ws
}

func asBearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

func message1(ticket string) string { return fmt.Sprintf(`{"ticket":%q}`, ticket) }

// guestEnd waits for the machine's end of what was opened.
func (r *rig) guestEnd() net.Conn {
	r.Helper()
	select {
	case c := <-r.uc.opened:
		r.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(limit))
		return c
	case <-testContext(r.T).Done():
		r.Fatal("nothing was opened")
		return nil
	}
}

func (r *rig) closedWith(ws *websocket.Conn, want websocket.StatusCode) {
	r.Helper()
	for {
		_, _, err := ws.Read(testContext(r.T))
		if err == nil {
			continue
		}
		var ce websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != want || ce.Reason == "" {
			r.Fatalf("closed with %v, want %d and a reason", err, want)
		}
		return
	}
}

func TestViewer(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MetricsPublic = true })
	tk := r.ticket(r.viewer(r.alice), r.alice.token)
	ws := r.connect(r.viewer(r.alice)+"/vnc", message1(tk), asBearer(r.alice.token))
	guest := r.guestEnd()
	if _, err := guest.Write([]byte("RFB 003.008\n")); err != nil {
		t.Fatal(err)
	}
	if typ, b, err := ws.Read(testContext(t)); err != nil || typ != websocket.MessageBinary || !bytes.Equal(b, []byte("RFB 003.008\n")) {
		t.Fatalf("%v %q %v", typ, b, err)
	}
	if err := ws.Write(testContext(t), websocket.MessageBinary, []byte("abc")); err != nil {
		t.Fatal(err)
	}
	in := make([]byte, 3)
	if _, err := io.ReadFull(guest, in); err != nil || string(in) != "abc" {
		t.Fatalf("%q %v", in, err)
	}
	// A ticket is good once.
	again := r.connect(r.viewer(r.alice)+"/vnc", message1(tk), asBearer(r.alice.token))
	r.closedWith(again, stream.CodeBadTicket)
	if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if err := r.server.Shutdown(testContext(t)); err != nil { // counted by now
		t.Fatal(err)
	}
	if m := r.do("GET", "/metrics", "").body; !strings.Contains(m, `anteroom_http_stream_bytes_total{direction="to_viewer",kind="vnc"} 12`) ||
		!strings.Contains(m, `anteroom_http_streams{kind="vnc"} 0`) {
		t.Errorf("the metrics are\n%s", m)
	}
	if strings.Contains(r.log.String(), tk) {
		t.Error("a ticket is in the log")
	}
}

func TestTicketsAreBound(t *testing.T) {
	r := newRig(t, nil)
	other, _, err := r.uc.StartSession(t.Context(), r.alice.user.ID, "codex", "", guestapi.View{})
	if err != nil {
		t.Fatal(err)
	}
	alices := func() string { return r.ticket(r.viewer(r.alice), r.alice.token) }
	made, _ := stream.NewTicket()
	for _, tt := range []struct {
		name, path, token, ticket string
	}{
		{"made up", r.viewer(r.alice) + "/vnc", r.alice.token, made},
		{"for another session", "/api/v1/sessions/" + string(other.ID) + "/vnc", r.alice.token, alices()},
		{"of another user", r.viewer(r.bob) + "/vnc", r.bob.token, alices()},
		{"for a terminal", r.terminal(r.alice) + "/terminal", r.alice.token, alices()},
		{"for a viewer", r.viewer(r.alice) + "/vnc", r.alice.token, r.ticket(r.terminal(r.alice), r.alice.token)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rr := *r
			rr.T = t
			rr.closedWith(rr.connect(tt.path, message1(tt.ticket), asBearer(tt.token)), stream.CodeBadTicket)
		})
	}
	if len(r.uc.opened) != 0 {
		t.Error("something was opened")
	}
}

func TestTerminalSocket(t *testing.T) {
	r := newRig(t, nil)
	ws := r.connect(r.terminal(r.alice)+"/terminal?cols=120&rows=40", message1(r.ticket(r.terminal(r.alice), r.alice.token)), asBearer(r.alice.token))
	guest := r.guestEnd()
	if err := ws.Write(testContext(t), websocket.MessageBinary, []byte("ls\r")); err != nil {
		t.Fatal(err)
	}
	if typ, p, err := guestapi.ReadTermFrame(guest, nil); err != nil || typ != guestapi.TermData || string(p) != "ls\r" {
		t.Fatalf("%d %q %v", typ, p, err)
	}
	if r.uc.size != [2]int{120, 40} {
		t.Errorf("the size is %v", r.uc.size)
	}
	if err := guestapi.WriteTermFrame(guest, guestapi.TermExit, guestapi.EncodeTermExit(0)); err != nil {
		t.Fatal(err)
	}
	r.closedWith(ws, websocket.StatusNormalClosure)
}

func TestViewerOfEndedSession(t *testing.T) {
	r := newRig(t, nil)
	tk := r.ticket(r.viewer(r.alice), r.alice.token)
	open := r.connect(r.viewer(r.alice)+"/vnc", message1(r.ticket(r.viewer(r.alice), r.alice.token)), asBearer(r.alice.token))
	guest := r.guestEnd()
	r.uc.set(r.alice.session, func(s *session.Session) { s.State = session.Completed })
	_ = guest.Close() // as when the machine is destroyed
	r.closedWith(open, stream.CodeEnded)
	late := r.connect(r.viewer(r.alice)+"/vnc", message1(tk), asBearer(r.alice.token))
	r.closedWith(late, stream.CodeEnded)
}

func TestSocketsEndWithTheSignIn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = time.Hour }) // at once, not at the next look
	c := r.browser(r.alice)
	cookie := c.Jar.Cookies(mustURL(t, r.http.URL))[0]
	ws := r.connect(r.viewer(r.alice)+"/vnc", message1(r.ticket(r.viewer(r.alice), r.alice.token)),
		http.Header{"Cookie": {cookie.Name + "=" + cookie.Value}, "Origin": {r.http.URL}})
	guest := r.guestEnd()
	if a := r.send(c, "POST", "/api/v1/logout", ""); a.status != http.StatusNoContent {
		t.Fatal(a.status)
	}
	r.closedWith(ws, stream.CodeBadTicket)
	if _, err := guest.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the machine's end read %v", err)
	}
}

func TestSocketsEndWithTheServer(t *testing.T) {
	r := newRig(t, nil)
	ws := r.connect(r.viewer(r.alice)+"/vnc", message1(r.ticket(r.viewer(r.alice), r.alice.token)), asBearer(r.alice.token))
	r.guestEnd()
	stopped := make(chan error, 1)
	go func() { stopped <- r.server.Shutdown(testContext(t)) }()
	r.closedWith(ws, websocket.StatusGoingAway)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// Only our own page may open a WebSocket with the cookie.
func TestWebSocketOrigin(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Hosts = []string{"anteroom.example"} })
	cookie := cookiePlain + "=" + r.secret(r.alice.user, store.TokenCookie, time.Hour)
	port := mustURL(t, r.http.URL).Port()
	upgrade := []edit{
		header("Upgrade", "websocket"), header("Connection", "Upgrade"),
		header("Sec-WebSocket-Version", "13"), header("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
	}
	for _, path := range []string{r.viewer(r.alice) + "/vnc", r.terminal(r.alice) + "/terminal"} {
		for name, origin := range map[string][]string{
			"none":             nil,
			"evil":             {"https://evil.example"},
			"null":             {"null"},
			"another port":     {"http://127.0.0.1:1"},
			"another name":     {"http://localhost:" + port},
			"another scheme":   {"https://127.0.0.1:" + port},
			"two":              {r.http.URL, "https://evil.example"},
			"empty":            {""},
			"looks like it":    {r.http.URL + ".evil.example"},
			"hosts, http":      {"http://anteroom.example"},
			"hosts, other one": {"https://x.anteroom.example"},
		} {
			t.Run(path[8:12]+" "+name, func(t *testing.T) {
				rr := *r
				rr.T = t
				edits := append([]edit{header("Cookie", cookie), func(q *http.Request) {
					if origin != nil {
						q.Header["Origin"] = origin
					}
				}}, upgrade...)
				rr.problem(rr.do("GET", path, "", edits...), ProblemCodeCrossOrigin)
			})
		}
		for _, origin := range []string{r.http.URL, "https://anteroom.example"} {
			ws := r.connect(path, `{}`, http.Header{"Cookie": {cookie}, "Origin": {origin}})
			r.closedWith(ws, stream.CodeBadMessage) // so far it came
		}
	}
	// A program with an API token has no origin, but a browser's is believed.
	bad := append([]edit{bearer(r.alice.token), header("Origin", "https://evil.example")}, upgrade...)
	r.problem(r.do("GET", r.viewer(r.alice)+"/vnc", "", bad...), ProblemCodeCrossOrigin)
}

func TestNotAWebSocket(t *testing.T) {
	r := newRig(t, nil)
	a := r.do("GET", r.viewer(r.alice)+"/vnc", "", bearer(r.alice.token))
	r.problem(a, ProblemCodeWebsocketRequired)
	if a.header.Get("Upgrade") != "websocket" {
		t.Error("no Upgrade header")
	}
	// Half a handshake is refused by the library, whatever it lacks.
	if a := r.do("GET", r.viewer(r.alice)+"/vnc", "", bearer(r.alice.token), header("Upgrade", "websocket")); a.status < 400 || a.status >= 500 {
		t.Errorf("%d", a.status)
	}
}
