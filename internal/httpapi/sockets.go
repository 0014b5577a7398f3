package httpapi

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/stream"
)

const (
	defaultCols = 80
	defaultRows = 24
)

// OpenViewer is the WebSocket of a session's screen.
func (a api) OpenViewer(w http.ResponseWriter, r *http.Request, id ID) {
	s, ok := a.session(w, r, id)
	if !ok {
		return
	}
	user := who(r).user.ID
	exists := func(ctx context.Context) error {
		_, err := a.cfg.UseCases.Session(ctx, user, s.ID)
		return err
	}
	open := func(ctx context.Context, ticket string) (io.ReadWriteCloser, error) {
		rwc, err := a.cfg.UseCases.OpenViewer(ctx, user, s.ID, ticket)
		return rwc, ticketError(ctx, err, exists)
	}
	ended := func(ctx context.Context) bool {
		now, err := a.cfg.UseCases.Session(ctx, user, s.ID)
		return err == nil && now.State.Final()
	}
	a.socket(w, r, "vnc", func(ctx context.Context, ws *websocket.Conn) stream.Stats {
		return stream.ServeVNC(ctx, ws, open, stream.Options{Ended: ended})
	})
}

// OpenTerminal is the WebSocket of a terminal.
func (a api) OpenTerminal(w http.ResponseWriter, r *http.Request, id ID, params OpenTerminalParams) {
	if !a.checkID(w, r, id) {
		return
	}
	user := who(r).user.ID
	if _, err := a.cfg.UseCases.Machine(r.Context(), user, id); err != nil {
		a.fail(w, r, err)
		return
	}
	cols, okCols := size(params.Cols, defaultCols)
	rows, okRows := size(params.Rows, defaultRows)
	if !okCols || !okRows {
		a.problem(w, r, ProblemCodeInvalidRequest, "cols and rows must be from 1 to 1000.")
		return
	}
	exists := func(ctx context.Context) error {
		_, err := a.cfg.UseCases.Machine(ctx, user, id)
		return err
	}
	open := func(ctx context.Context, ticket string) (io.ReadWriteCloser, error) {
		rwc, err := a.cfg.UseCases.OpenTerminal(ctx, user, id, ticket, cols, rows)
		return rwc, ticketError(ctx, err, exists)
	}
	ended := func(ctx context.Context) bool {
		vm, err := a.cfg.UseCases.Machine(ctx, user, id)
		return errors.Is(err, store.ErrNotFound) || err == nil && vm.State != store.VMRunning
	}
	a.socket(w, r, "terminal", func(ctx context.Context, ws *websocket.Conn) stream.Stats {
		return stream.ServeTerminal(ctx, ws, open, stream.Options{Ended: ended})
	})
}

func size(v *int, def int) (int, bool) {
	if v == nil {
		return def, true
	}
	return *v, *v >= guestapi.MinTermSize && *v <= guestapi.MaxTermSize
}

// ticketError tells a ticket that is not good from a thing that has gone
// meanwhile: for both the use case says that something was not found.
func ticketError(ctx context.Context, err error, exists func(context.Context) error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := exists(ctx); err != nil {
		return err
	}
	return stream.ErrTicket
}

// socket upgrades and serves one WebSocket.
func (a api) socket(w http.ResponseWriter, r *http.Request, kind string, serve func(context.Context, *websocket.Conn) stream.Stats) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		a.problem(w, r, ProblemCodeWebsocketRequired, "Connect here with a WebSocket.")
		return
	}
	if !a.sameOrigin(r) {
		a.problem(w, r, ProblemCodeCrossOrigin, "Your browser says that this request comes from another site, so it was refused.")
		return
	}
	ctx, end, ok := a.beginStream(r.Context(), w, r)
	if !ok {
		return
	}
	defer end()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		OriginPatterns:  a.originPatterns(),
		CompressionMode: websocket.CompressionDisabled, // pictures are compressed already, and secrets are mixed with what others wrote
	})
	if err != nil { // Accept has answered
		a.log.DebugContext(ctx, "websocket refused", slog.Any("error", err))
		return
	}
	defer func() { _ = ws.CloseNow() }()
	defer a.metrics.stream(kind)()
	stats := serve(ctx, ws)
	a.metrics.bytes(kind, stats)
	level := slog.LevelDebug
	if stats.Err != nil {
		level = slog.LevelWarn
	}
	a.log.Log(ctx, level, "websocket ended", slog.String("kind", kind), slog.Int("code", int(stats.Code)),
		slog.Int64("to_viewer", stats.ToViewer), slog.Int64("from_viewer", stats.FromViewer), slog.Any("error", stats.Err))
}

// sameOrigin says whether a WebSocket was opened by our own page. A browser
// always says where from; what comes with a cookie and does not say is refused.
// An API token is sent by programs only.
func (s *Server) sameOrigin(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	if len(origins) == 0 {
		return who(r).token.Kind == store.TokenAPI
	}
	u, err := url.Parse(origins[0])
	if err != nil || len(origins) > 1 || u.Host == "" {
		return false
	}
	want := "http"
	if s.secure(r) {
		want = "https"
	}
	if u.Scheme == want && strings.EqualFold(u.Host, r.Host) {
		return true
	}
	// Behind a proxy that rewrites Host; the same hosts as for other writes.
	return u.Scheme == "https" && s.hosts[strings.ToLower(u.Host)]
}

// originPatterns repeats sameOrigin for the library, which looks as well.
func (s *Server) originPatterns() []string {
	var out []string
	for h := range s.hosts {
		out = append(out, "https://"+h)
	}
	return out
}
