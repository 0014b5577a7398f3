package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/store"
)

// The page's cookie. Over HTTPS its prefix makes the browser hold it to this
// host, to HTTPS and to the whole of the path.
const (
	cookieSecure = "__Host-anteroom"
	cookiePlain  = "anteroom"
)

// maxSecret is how long a token or code may be; longer ones are not looked at.
const maxSecret = 128

// identity is who asks.
type identity struct {
	user  store.User
	token store.Token
	hash  [32]byte
}

type contextKey int

const (
	identityKey contextKey = iota
	routeKey
)

// who returns the identity of a request that authenticate let through.
func who(r *http.Request) identity {
	id, ok := r.Context().Value(identityKey).(identity)
	if !ok { // a route without a user asks for one: a bug, and nobody's data may leave
		panic("httpapi: no identity")
	}
	return id
}

func withRoute(r *http.Request, pattern string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), routeKey, pattern))
}

// route is the pattern of the route that a request is for: safe in a log and a
// metric, unlike its path.
func route(r *http.Request) string {
	p, _ := r.Context().Value(routeKey).(string)
	return p
}

// public says whether a route needs no user. Whatever is not listed here does.
func (s *Server) public(pattern string) bool {
	switch pattern {
	case "GET /healthz", "GET /readyz", "POST /api/v1/login", "/":
		return true
	case "GET /metrics":
		return s.cfg.MetricsPublic
	}
	return false
}

// authenticate lets through who is signed in, and everybody to what is public.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.public(route(r)) {
			next.ServeHTTP(w, r)
			return
		}
		id, err := s.identify(r)
		if errors.Is(err, store.ErrNotFound) {
			s.problem(w, r, ProblemCodeUnauthenticated, "You are not signed in, or not any more. Open a sign-in link, or send an API token.")
			return
		}
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey, id)))
	})
}

// identify finds the user of a request; store.ErrNotFound if there is none.
func (s *Server) identify(r *http.Request) (identity, error) {
	if values := r.Header.Values("Authorization"); len(values) > 0 {
		scheme, secret, _ := strings.Cut(values[0], " ")
		if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
			return identity{}, store.ErrNotFound
		}
		return s.lookUp(r.Context(), secret, store.TokenAPI)
	}
	name := cookiePlain
	if s.secure(r) {
		name = cookieSecure
	} else if !s.local(r) {
		return identity{}, store.ErrNotFound
	}
	cookies := r.CookiesNamed(name)
	if len(cookies) != 1 { // two of the name: somebody else set one
		return identity{}, store.ErrNotFound
	}
	return s.lookUp(r.Context(), cookies[0].Value, store.TokenCookie)
}

func (s *Server) lookUp(ctx context.Context, secret string, kind store.TokenKind) (identity, error) {
	if secret == "" || len(secret) > maxSecret {
		return identity{}, store.ErrNotFound
	}
	hash := store.HashSecret(store.Secret(secret))
	user, token, err := s.cfg.Auth.UserByToken(ctx, hash, kind)
	if err != nil {
		return identity{}, err
	}
	return identity{user: user, token: token, hash: hash}, nil
}

// stillSignedIn asks again for the identity of a long stream.
func (s *Server) stillSignedIn(ctx context.Context, id identity) bool {
	_, _, err := s.cfg.Auth.UserByToken(ctx, id.hash, id.token.Kind)
	return !errors.Is(err, store.ErrNotFound)
}

// Login trades the code of a sign-in link for the page's cookie.
func (a api) Login(w http.ResponseWriter, r *http.Request) {
	from := a.client(r)
	if !a.logins.allowed(from) {
		w.Header().Set("Retry-After", "60")
		a.problem(w, r, ProblemCodeTooManyRequests, "There were too many wrong tries from your address. Please wait a minute.")
		return
	}
	if !a.secure(r) && !a.local(r) {
		a.problem(w, r, ProblemCodeHTTPSRequired, "Signing in needs HTTPS: over plain http, others on the way could take the sign-in.")
		return
	}
	var body Login
	if !a.decode(w, r, &body) {
		return
	}
	if body.Code == "" || len(body.Code) > maxSecret {
		a.logins.failed(from)
		a.problem(w, r, ProblemCodeInvalidRequest, "code must have 1 to 128 characters.")
		return
	}
	user, err := a.cfg.Auth.ConsumeLink(r.Context(), store.HashSecret(store.Secret(body.Code)))
	if errors.Is(err, store.ErrNotFound) {
		a.logins.failed(from)
		a.problem(w, r, ProblemCodeLinkInvalid, "This sign-in link was used before, or is too old. Ask whoever runs this server for a new one.")
		return
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	if err := a.giveCookie(w, r, user); err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, a.me(user))
}

func (a api) giveCookie(w http.ResponseWriter, r *http.Request, user store.User) error {
	secret, hash := store.NewSecret("")
	now := a.cfg.Clock()
	_, err := a.cfg.Auth.CreateToken(r.Context(), store.Token{
		UserID:    user.ID,
		Kind:      store.TokenCookie,
		Label:     "page",
		CreatedAt: now,
		ExpiresAt: now.Add(a.cfg.CookieTTL),
	}, hash)
	if err != nil {
		return err
	}
	http.SetCookie(w, a.cookie(r, secret.Reveal(), int(a.cfg.CookieTTL/time.Second)))
	return nil
}

// cookie is the page's cookie for this request's scheme; maxAge -1 deletes it.
func (a api) cookie(r *http.Request, value string, maxAge int) *http.Cookie {
	c := &http.Cookie{
		Name:     cookiePlain,
		Value:    value,
		Path:     "/",
		MaxAge:   maxAge,
		HttpOnly: true,
		SameSite: http.SameSiteStrictMode,
	}
	if a.secure(r) {
		c.Name, c.Secure = cookieSecure, true
	}
	return c
}

// Logout deletes the page's cookie and ends what was opened with it.
func (a api) Logout(w http.ResponseWriter, r *http.Request) {
	id := who(r)
	if id.token.Kind == store.TokenCookie {
		err := a.cfg.Auth.DeleteToken(r.Context(), id.user.ID, id.token.ID)
		if err != nil && !errors.Is(err, store.ErrNotFound) { // another tab may have been first
			a.fail(w, r, err)
			return
		}
		a.live.signOut(id.token.ID)
		http.SetCookie(w, a.cookie(r, "", -1))
	}
	w.WriteHeader(http.StatusNoContent)
}

// GetMe says who is signed in.
func (a api) GetMe(w http.ResponseWriter, r *http.Request) {
	a.json(w, r, http.StatusOK, a.me(who(r).user))
}

func (a api) me(u store.User) Me {
	return Me{ID: u.ID, Name: u.Name, Admin: u.Admin, Connect: a.cfg.Connect, Version: a.cfg.Version}
}
