package httpapi

import (
	"net/http"
	"slices"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
)

const (
	defaultPage = 50
	maxPage     = 200
)

// StartSession starts a sign-in.
func (a api) StartSession(w http.ResponseWriter, r *http.Request, params StartSessionParams) {
	var key string
	if params.IdempotencyKey != nil {
		if key = *params.IdempotencyKey; !validKey(key) {
			a.problem(w, r, ProblemCodeInvalidRequest, "Idempotency-Key must have 1 to 128 printable ASCII characters.")
			return
		}
	}
	var body StartSession
	if !a.decode(w, r, &body) {
		return
	}
	file := a.provider(body.Provider)
	if file == nil {
		a.fail(w, r, provider.ErrUnknown)
		return
	}
	s, repeated, err := a.cfg.UseCases.StartSession(r.Context(), who(r).user.ID, file.Name, key, view(body))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if !repeated {
		w.Header().Set("Location", "/api/v1/sessions/"+string(s.ID))
		a.json(w, r, http.StatusCreated, apiSession(s))
		return
	}
	a.json(w, r, http.StatusOK, apiSession(s))
}

// provider finds a provider by name or alias; nil if there is none.
func (s *Server) provider(name string) *provider.File {
	for _, f := range s.cfg.UseCases.Providers() {
		if f.Name == name || slices.Contains(f.Aliases, name) {
			return f
		}
	}
	return nil
}

// ListSessions answers one page of the user's sessions.
func (a api) ListSessions(w http.ResponseWriter, r *http.Request, params ListSessionsParams) {
	limit := defaultPage
	if params.Limit != nil {
		if limit = *params.Limit; limit < 1 || limit > maxPage {
			a.problem(w, r, ProblemCodeInvalidRequest, "limit must be from 1 to 200.")
			return
		}
	}
	var before session.ID
	if params.Before != nil && *params.Before != "" {
		if !validID(*params.Before) {
			a.problem(w, r, ProblemCodeInvalidRequest, "before must be the id of a session.")
			return
		}
		before = session.ID(*params.Before)
	}
	// One more than asked for says whether there is another page.
	list, err := a.cfg.UseCases.Sessions(r.Context(), who(r).user.ID, limit+1, before)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var next *string
	if len(list) > limit {
		list = list[:limit]
		next = optional(string(list[limit-1].ID))
	}
	a.json(w, r, http.StatusOK, SessionList{Sessions: convert(list, apiSession), Next: next})
}

// GetSession answers one session.
func (a api) GetSession(w http.ResponseWriter, r *http.Request, id ID) {
	if s, ok := a.session(w, r, id); ok {
		a.json(w, r, http.StatusOK, apiSession(s))
	}
}

// session finds the user's session, or answers that it does not exist.
func (a api) session(w http.ResponseWriter, r *http.Request, id ID) (session.Session, bool) {
	if !a.checkID(w, r, id) {
		return session.Session{}, false
	}
	s, err := a.cfg.UseCases.Session(r.Context(), who(r).user.ID, session.ID(id))
	if err != nil {
		a.fail(w, r, err)
		return session.Session{}, false
	}
	return s, true
}

// checkID answers 404 for what cannot be an id.
func (a api) checkID(w http.ResponseWriter, r *http.Request, id ID) bool {
	if validID(id) {
		return true
	}
	a.problem(w, r, ProblemCodeNotFound, "There is nothing here by that name, or it is not yours.")
	return false
}

// CancelSession ends a session before its time.
func (a api) CancelSession(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	s, err := a.cfg.UseCases.Cancel(r.Context(), who(r).user.ID, session.ID(id))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiSession(s))
}

// CreateViewerTicket makes a ticket for the session's viewer.
func (a api) CreateViewerTicket(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	secret, expires, err := a.cfg.UseCases.ViewerTicket(r.Context(), who(r).user.ID, session.ID(id))
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusCreated, Ticket{Ticket: secret, ExpiresAt: expires.UTC()})
}
