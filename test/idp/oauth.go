package idp

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
)

const maxFormBytes = 64 << 10

// params reads the body of a token request: a form, or one flat JSON object.
func params(r *http.Request) (map[string]string, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return nil, errors.New("the content type does not parse")
	}
	r.Body = http.MaxBytesReader(nil, r.Body, maxFormBytes)
	out := make(map[string]string)
	switch kind {
	case "application/x-www-form-urlencoded":
		if err := r.ParseForm(); err != nil {
			return nil, errors.New("the form does not parse")
		}
		for k, v := range r.PostForm {
			if len(v) != 1 {
				return nil, errors.New("a form field is there more than once")
			}
			out[k] = v[0]
		}
	case "application/json":
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, errors.New("the body is too long")
		}
		var m map[string]any
		if err := json.Unmarshal(raw, &m); err != nil {
			return nil, errors.New("the body is not a JSON object")
		}
		for k, v := range m {
			if text, ok := v.(string); ok {
				out[k] = text
			}
		}
	default:
		return nil, errors.New("the content type is neither a form nor JSON")
	}
	return out, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that is gone is its own affair
}

// oauthError is the answer of RFC 6749, 5.2.
func oauthError(w http.ResponseWriter, status int, code, text string) {
	writeJSON(w, status, map[string]string{"error": code, "error_description": text})
}

// dialect is how a provider's token endpoint differs from the others'.
type dialect struct {
	provider     Provider
	clientID     string // exactly, or a prefix if it ends in "-"
	requireState bool   // the code's state is repeated
	needSecret   bool   // client_secret must be there
	rotate       bool   // a refresh replaces the refresh token
	// issue makes the answer; first is false at a refresh.
	issue func(f *family, first bool) (map[string]any, error)
	// refuse answers a token or refresh request that is turned down.
	refuse func(w http.ResponseWriter, err error, refreshing bool)
}

func (d dialect) client(id string) bool {
	if prefix, ok := strings.CutSuffix(d.clientID, "-"); ok {
		return strings.HasPrefix(id, prefix+"-")
	}
	return id == d.clientID
}

// token is a token endpoint.
func (s *Server) token(d dialect) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p, err := params(r)
		if err != nil {
			oauthError(w, http.StatusBadRequest, "invalid_request", err.Error())
			return
		}
		switch p["grant_type"] {
		case "authorization_code":
			s.redeem(w, r, d, p)
		case "refresh_token":
			s.refresh(w, r, d, p)
		default:
			oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "this grant type is not served here")
		}
	}
}

func (s *Server) redeem(w http.ResponseWriter, r *http.Request, d dialect, p map[string]string) {
	no := func(err error) {
		s.rec.emit(Event{Kind: TokensRefused, Provider: d.provider, Detail: err.Error(), From: hostOnly(r.RemoteAddr)})
		d.refuse(w, err, false)
	}
	if s.strike(w, r, d.provider, AtToken, func(http.ResponseWriter, *http.Request) { no(errUnknown) }) {
		return
	}
	if d.needSecret && p["client_secret"] == "" {
		no(errMatch)
		return
	}
	f, err := s.ledger.redeem(redemption{
		provider: d.provider, code: p["code"], clientID: p["client_id"], redirect: p["redirect_uri"],
		verifier: p["code_verifier"], state: p["state"], requireState: d.requireState,
	})
	if err != nil {
		no(err)
		return
	}
	s.answer(w, d, f, true)
	s.rec.emit(Event{Kind: TokensIssued, Provider: d.provider, Account: f.account, From: hostOnly(r.RemoteAddr)})
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request, d dialect, p map[string]string) {
	no := func(err error) {
		kind := TokensRefused
		if errors.Is(err, errReused) {
			kind = RefreshReused
		}
		s.rec.emit(Event{Kind: kind, Provider: d.provider, Detail: err.Error(), From: hostOnly(r.RemoteAddr)})
		d.refuse(w, err, true)
	}
	if s.strike(w, r, d.provider, AtRefresh, func(http.ResponseWriter, *http.Request) { no(errUnknown) }) {
		return
	}
	if !d.client(p["client_id"]) {
		no(errMatch)
		return
	}
	f, err := s.ledger.useRefresh(d.provider, p["refresh_token"], d.rotate)
	if err != nil {
		no(err)
		return
	}
	s.answer(w, d, f, false)
	s.rec.emit(Event{Kind: Refreshed, Provider: d.provider, Account: f.account, From: hostOnly(r.RemoteAddr)})
}

func (s *Server) answer(w http.ResponseWriter, d dialect, f *family, first bool) {
	body, err := d.issue(f, first)
	if err != nil {
		s.log.Error("no tokens could be made", "error", err)
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	writeJSON(w, http.StatusOK, body)
}

// revoke is a revocation endpoint (RFC 7009): the answer is 200 in any case.
func (s *Server) revoke(provider Provider) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		tok := r.URL.Query().Get("token")
		if tok == "" {
			p, err := params(r)
			if err != nil {
				oauthError(w, http.StatusBadRequest, "invalid_request", err.Error())
				return
			}
			tok = p["token"]
		}
		if account, ok := s.ledger.revoke(provider, tok); ok {
			s.rec.emit(Event{Kind: Revoked, Provider: provider, Account: account, From: hostOnly(r.RemoteAddr)})
		}
		writeJSON(w, http.StatusOK, struct{}{})
	}
}

// api guards an endpoint: faults first, then a live access token of the
// provider, else refuse is the answer.
func (s *Server) api(p Provider, refuse http.HandlerFunc, h func(http.ResponseWriter, *http.Request, *family)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		no := func(w http.ResponseWriter, r *http.Request) {
			s.rec.emit(Event{Kind: APIRefused, Provider: p, Detail: r.URL.Path, From: hostOnly(r.RemoteAddr)})
			refuse(w, r)
		}
		if s.strike(w, r, p, AtAPI, no) {
			return
		}
		tok, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok {
			no(w, r)
			return
		}
		f, err := s.ledger.check(p, tok)
		if err != nil {
			no(w, r)
			return
		}
		h(w, r, f)
	}
}

// Answer is the text with which the provider's API answers every prompt.
func (p Provider) Answer() string { return "ANTEROOM-TEST-OK " + string(p) }
