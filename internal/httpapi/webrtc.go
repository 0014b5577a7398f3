package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/stream"
	"github.com/anteroom/anteroom/internal/stream/rtc"
)

// openScreenTime is how long a machine may take to open its screen.
const openScreenTime = 20 * time.Second

// maxWindow is the most bytes of a window's name.
const maxWindow = 64

const (
	typeSDP      = "application/sdp"
	typeFragment = "application/trickle-ice-sdpfrag"
)

const noWebRTC = "This server shows screens by noVNC only."

// WebrtcInfo says whether and how a session's screen can be had by WebRTC.
func (a api) WebrtcInfo(w http.ResponseWriter, r *http.Request, id ID) {
	if _, ok := a.session(w, r, id); !ok {
		return
	}
	out := WebRTC{Enabled: a.cfg.WebRTC != nil, IceServers: []IceServer{}}
	if out.Enabled && a.cfg.IceServers != nil {
		for _, s := range a.cfg.IceServers() {
			out.IceServers = append(out.IceServers, IceServer{Urls: s.URLs, Username: optional(s.Username), Credential: optional(s.Credential)})
		}
	}
	a.json(w, r, http.StatusOK, out)
}

// ConnectWebrtc answers a viewer's offer.
func (a api) ConnectWebrtc(w http.ResponseWriter, r *http.Request, id ID, params ConnectWebrtcParams) {
	s, ok := a.session(w, r, id)
	if !ok {
		return
	}
	offer, ok := a.text(w, r, typeSDP, rtc.MaxOffer)
	if !ok {
		return
	}
	if a.cfg.WebRTC == nil {
		a.problem(w, r, ProblemCodeUnavailable, noWebRTC)
		return
	}
	ticket, window := value(params.AnteroomTicket), value(params.AnteroomWindow)
	if len(window) > maxWindow {
		a.problem(w, r, ProblemCodeInvalidRequest, fmt.Sprintf("Anteroom-Window is longer than %d bytes.", maxWindow))
		return
	}
	if _, err := stream.HashTicket(ticket); err != nil {
		a.badTicket(w, r)
		return
	}
	life, end, ok := a.beginStream(context.WithoutCancel(r.Context()), w, r) // it outlives the request
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), openScreenTime)
	defer cancel()
	conn, answer, err := a.cfg.WebRTC.Connect(ctx, life, a.screenRequest(who(r).user.ID, s.ID, ticket, window, offer))
	if err != nil {
		end()
		a.failWebRTC(w, r, err)
		return
	}
	left := a.metrics.stream("webrtc")
	go func() {
		<-conn.Done()
		left()
		end()
	}()
	w.Header().Set("Location", "/api/v1/sessions/"+string(s.ID)+"/webrtc/"+conn.ID())
	a.write(w, r, http.StatusCreated, typeSDP, raw(answer))
}

// screenRequest is a viewer's, for the gateway.
func (a api) screenRequest(user string, id session.ID, ticket, window string, offer []byte) rtc.Request {
	exists := func(ctx context.Context) error {
		_, err := a.cfg.UseCases.Session(ctx, user, id)
		return err
	}
	return rtc.Request{
		Session: string(id), User: user, Window: window, Offer: offer,
		Open: func(ctx context.Context, codec string) (io.ReadWriteCloser, error) {
			rwc, err := a.cfg.UseCases.OpenScreen(ctx, user, id, ticket, codec)
			return rwc, ticketError(ctx, err, exists)
		},
		Ended: func(ctx context.Context) bool {
			now, err := a.cfg.UseCases.Session(ctx, user, id)
			return err == nil && now.State.Final()
		},
	}
}

// PatchWebrtc takes candidates, or restarts ICE.
func (a api) PatchWebrtc(w http.ResponseWriter, r *http.Request, id ID, connection Connection) {
	conn, ok := a.connection(w, r, id, connection)
	if !ok {
		return
	}
	text, ok := a.text(w, r, typeFragment, rtc.MaxFragment)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), openScreenTime)
	defer cancel()
	answer, err := conn.Patch(ctx, text)
	switch {
	case err != nil:
		a.failWebRTC(w, r, err)
	case answer == nil:
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(http.StatusNoContent)
	default:
		a.write(w, r, http.StatusOK, typeFragment, raw(answer))
	}
}

// CloseWebrtc ends a connection, and says how far what was done on it has come.
func (a api) CloseWebrtc(w http.ResponseWriter, r *http.Request, id ID, connection Connection) {
	s, ok := a.session(w, r, id)
	if !ok {
		return
	}
	if a.cfg.WebRTC == nil || !validID(connection) {
		a.noConnection(w, r)
		return
	}
	input, ok, err := a.cfg.WebRTC.Leave(r.Context(), who(r).user.ID, string(s.ID), connection)
	switch {
	case !ok:
		a.noConnection(w, r)
	case err != nil:
		a.failWebRTC(w, r, err)
	default:
		a.json(w, r, http.StatusOK, WebRTCParting{Input: int64(input)})
	}
}

// connection finds the user's own connection to their own session.
func (a api) connection(w http.ResponseWriter, r *http.Request, id ID, connection string) (*rtc.Conn, bool) {
	s, ok := a.session(w, r, id)
	if !ok {
		return nil, false
	}
	if a.cfg.WebRTC != nil && validID(connection) {
		if c := a.cfg.WebRTC.Find(who(r).user.ID, string(s.ID), connection); c != nil {
			return c, true
		}
	}
	a.noConnection(w, r)
	return nil, false
}

func (a api) noConnection(w http.ResponseWriter, r *http.Request) {
	a.problem(w, r, ProblemCodeNotFound, "There is nothing here by that name, or it is not yours.")
}

// text reads a body of a media type; if it is not one, text answers and returns
// false.
func (a api) text(w http.ResponseWriter, r *http.Request, mediaType string, limit int64) ([]byte, bool) {
	if mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mt != mediaType {
		a.problem(w, r, ProblemCodeUnsupportedMediaType, "Send the body as "+mediaType+".")
		return nil, false
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		a.problem(w, r, ProblemCodeBodyTooLarge, "The body is longer than it may be here.")
		return nil, false
	case err != nil:
		a.problem(w, r, ProblemCodeInvalidRequest, "The body did not arrive as a whole.")
		return nil, false
	}
	return body, true
}

func (a api) badTicket(w http.ResponseWriter, r *http.Request) {
	a.problem(w, r, ProblemCodeTicketInvalid, "The ticket is not good: it is missing, wrong, was used before, or is too old.")
}

func (a api) failWebRTC(w http.ResponseWriter, r *http.Request, err error) {
	var status *guestapi.StatusError
	switch {
	case errors.Is(err, rtc.ErrOffer):
		a.problem(w, r, ProblemCodeOfferInvalid, err.Error())
	case errors.Is(err, rtc.ErrTooManyViewers):
		a.problem(w, r, ProblemCodeTooManyViewers, "As many viewers are connected as may be. Close some of the pages.")
	case errors.Is(err, rtc.ErrClosed):
		a.problem(w, r, ProblemCodeUnavailable, "The server is stopping. Please try again in a moment.")
	case errors.Is(err, stream.ErrTicket):
		a.badTicket(w, r)
	case errors.As(err, &status):
		a.log.WarnContext(r.Context(), "no video", slog.Any("error", err))
		a.problem(w, r, ProblemCodeNoVideo, "The machine cannot show its screen in this way; noVNC can.")
	default:
		a.fail(w, r, err)
	}
}
