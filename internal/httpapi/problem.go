package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// statusClientGone is for the metrics only: nobody reads it.
const statusClientGone = 499

// problemKind is what is fixed for a code.
func problemKind(code ProblemCode) (status int, title string) {
	switch code {
	case ProblemCodeInvalidJSON:
		return http.StatusBadRequest, "The request's body is not what it should be"
	case ProblemCodeInvalidRequest:
		return http.StatusBadRequest, "The request is not valid"
	case ProblemCodeProviderUnknown:
		return http.StatusBadRequest, "Unknown provider"
	case ProblemCodeBodyTooLarge:
		return http.StatusRequestEntityTooLarge, "The request's body is too large"
	case ProblemCodeUnsupportedMediaType:
		return http.StatusUnsupportedMediaType, "Not the type of body that is needed"
	case ProblemCodeIdempotencyMismatch:
		return http.StatusUnprocessableEntity, "The Idempotency-Key was used for something else"
	case ProblemCodeUnauthenticated:
		return http.StatusUnauthorized, "Not signed in"
	case ProblemCodeLinkInvalid:
		return http.StatusUnauthorized, "The sign-in link is not good"
	case ProblemCodeHTTPSRequired:
		return http.StatusForbidden, "HTTPS is needed"
	case ProblemCodeCrossOrigin:
		return http.StatusForbidden, "The request came from another site"
	case ProblemCodeHostRefused:
		return http.StatusMisdirectedRequest, "Not under this name"
	case ProblemCodeNotFound:
		return http.StatusNotFound, "Not found"
	case ProblemCodeMethodNotAllowed:
		return http.StatusMethodNotAllowed, "Method not allowed"
	case ProblemCodeConflict:
		return http.StatusConflict, "Not in this state"
	case ProblemCodeMachineGone:
		return http.StatusConflict, "The machine is not running"
	case ProblemCodeWebsocketRequired:
		return http.StatusUpgradeRequired, "This is a WebSocket"
	case ProblemCodeOfferInvalid:
		return http.StatusBadRequest, "The offer cannot be taken"
	case ProblemCodeTicketInvalid:
		return http.StatusForbidden, "The ticket is not good"
	case ProblemCodeTooManyViewers:
		return http.StatusTooManyRequests, "Too many viewers"
	case ProblemCodeNoVideo:
		return http.StatusConflict, "The machine has no video"
	case ProblemCodeTooManyRequests:
		return http.StatusTooManyRequests, "Too many tries"
	case ProblemCodeTooManyStreams:
		return http.StatusTooManyRequests, "Too many open streams"
	case ProblemCodeTooManySessions:
		return http.StatusTooManyRequests, "Too many sign-ins under way"
	case ProblemCodeQueueFull:
		return http.StatusServiceUnavailable, "All places are taken"
	case ProblemCodeDiskFull:
		return http.StatusInsufficientStorage, "The server's disk is full"
	case ProblemCodeNoMemory:
		return http.StatusServiceUnavailable, "The server has not enough memory"
	case ProblemCodeNotReady:
		return http.StatusServiceUnavailable, "Not ready"
	case ProblemCodeUnavailable:
		return http.StatusServiceUnavailable, "Not available now"
	}
	return http.StatusInternalServerError, "Something went wrong"
}

const internalDetail = "Something went wrong on the server. Please try again; if it happens again, ask whoever runs this server to look at its log."

// problem answers with a problem document.
func (s *Server) problem(w http.ResponseWriter, r *http.Request, code ProblemCode, detail string) {
	status, title := problemKind(code)
	h := w.Header()
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer realm="anteroom"`)
	case http.StatusUpgradeRequired:
		h.Set("Upgrade", "websocket")
		h.Set("Connection", "Upgrade")
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "10")
	}
	s.write(w, r, status, "application/problem+json", Problem{
		Type:   "urn:anteroom:problem:" + string(code),
		Title:  title,
		Status: status,
		Detail: detail,
		Code:   code,
	})
}

// fail answers with the problem that an error of the use cases is. What is not
// one that a person can do something about is logged and answered as internal.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case errors.Is(err, store.ErrNotFound):
		s.problem(w, r, ProblemCodeNotFound, "There is nothing here by that name, or it is not yours.")
	case errors.Is(err, provider.ErrUnknown):
		s.problem(w, r, ProblemCodeProviderUnknown, "This server does not know that provider. It knows: "+s.providerNames()+".")
	case errors.Is(err, store.ErrExists):
		s.problem(w, r, ProblemCodeIdempotencyMismatch, "This Idempotency-Key was used for another provider. Take a new one for a new sign-in.")
	case errors.Is(err, store.ErrTooMany):
		s.problem(w, r, ProblemCodeTooManySessions, "You have as many sign-ins under way as this server allows. Finish or cancel one, and try again.")
	case errors.Is(err, store.ErrQueueFull):
		s.problem(w, r, ProblemCodeQueueFull, "All places are taken, and as many people wait for one as this server allows. Please try again in a few minutes.")
	case errors.Is(err, session.ErrNotReady):
		s.problem(w, r, ProblemCodeNotReady, "The server is just starting or stopping. Please try again in a moment.")
	case errors.Is(err, store.ErrReplaced):
		s.problem(w, r, ProblemCodeConflict, "A newer version has taken the place of this one. Deliver the newest.")
	case errors.Is(err, session.ErrConflict):
		s.problem(w, r, ProblemCodeConflict, "That cannot be done in its present state: it has ended, or has not come that far.")
	case errors.Is(err, machine.ErrGone):
		s.problem(w, r, ProblemCodeMachineGone, "The machine is not running. Start it, or start a new sign-in, and try again.")
	case errors.Is(err, machine.ErrNoMemory):
		s.problem(w, r, ProblemCodeNoMemory, session.ReasonNoMemory.Sentence())
	case errors.Is(err, store.ErrDiskFull), errors.Is(err, machine.ErrDiskFull):
		s.problem(w, r, ProblemCodeDiskFull, session.ReasonDiskFull.Sentence())
	case r.Context().Err() != nil:
		w.WriteHeader(statusClientGone)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		s.problem(w, r, ProblemCodeUnavailable, "It took too long, or the server is stopping. Please try again in a moment.")
	default:
		s.log.ErrorContext(r.Context(), "request failed", slog.String("route", route(r)), slog.Any("error", err))
		s.problem(w, r, ProblemCodeInternal, internalDetail)
	}
}

// badParameter answers for the generated code, which could not read a
// parameter. Its error repeats the value, so only the name is taken over.
func (s *Server) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	name := "A parameter"
	var format *InvalidParamFormatError
	var many *TooManyValuesForParamError
	switch {
	case errors.As(err, &format):
		name = format.ParamName
	case errors.As(err, &many):
		name = many.ParamName
	}
	s.problem(w, r, ProblemCodeInvalidRequest, name+" is not valid.")
}

func (s *Server) providerNames() string {
	var names []string
	for _, p := range s.cfg.UseCases.Providers() {
		names = append(names, p.Name)
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// json answers with v.
func (s *Server) json(w http.ResponseWriter, r *http.Request, status int, v any) {
	s.write(w, r, status, "application/json", v)
}

// raw is a body that is no JSON.
type raw []byte

func (s *Server) write(w http.ResponseWriter, r *http.Request, status int, contentType string, v any) {
	b, ready := v.(raw)
	if !ready {
		text, err := json.Marshal(v)
		if err != nil { // only a bug can do it: the bodies are plain structs
			panic(err)
		}
		b = append(text, '\n')
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	// A handler may take long; a reader of a few bytes may not.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := w.Write(b); err != nil { //nolint:gosec // JSON or SDP by its Content-Type, with nosniff
		s.log.DebugContext(r.Context(), "answer not delivered", slog.Any("error", err))
	}
}

// printable shortens a string of the client's for a sentence.
func printable(v string) string {
	if len(v) > 20 {
		v = v[:20]
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, v)
}
