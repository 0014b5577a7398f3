package idp

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

const (
	codexClient  = "app_EMoamEEZ73f0CkXaXp7hrann"
	codexAuthURL = "https://auth.openai.com"
	codexAccount = "12345678-9abc-4def-8123-456789abcdef"
	codexUser    = "user-anteroomtest"
)

func (s *Server) codexRoutes() {
	for _, h := range []string{"auth.openai.com", "chatgpt.com", "api.openai.com"} {
		s.hosts[h] = Codex
	}
	page := s.page(signIn{
		provider: Codex, clientID: codexClient, callback: "/auth/callback",
		scopes: []string{"openid", "offline_access"}, pkce: true,
	})
	s.mux.HandleFunc("GET auth.openai.com/oauth/authorize", page)
	s.mux.HandleFunc("POST auth.openai.com/oauth/authorize", page)
	d := dialect{provider: Codex, clientID: codexClient, rotate: true, issue: s.codexTokens, refuse: codexRefuseToken}
	s.mux.HandleFunc("POST auth.openai.com/oauth/token", s.token(d))
	s.mux.HandleFunc("POST auth.openai.com/oauth/revoke", s.revoke(Codex))
	s.deviceRoutes()

	// codex asks which workspaces there are before every prompt and does not
	// go on without the one that its id token names.
	s.mux.HandleFunc("GET chatgpt.com/backend-api/wham/accounts/check", s.api(Codex, codexRefusal,
		func(w http.ResponseWriter, _ *http.Request, _ *family) {
			writeJSON(w, http.StatusOK, map[string]any{
				"accounts": []any{map[string]any{
					"id": codexAccount, "account_user_id": codexUser + "__" + codexAccount, "structure": "personal",
					"plan_type": "plus", "name": nil, "profile_picture_url": nil,
					"workspace_backend_origin": "https://chatgpt.com", "account_routing_override": "NO_CONSTRAINT",
				}},
				"account_ordering": []string{codexAccount}, "default_account_id": codexAccount,
			})
		}))
	s.mux.HandleFunc("GET chatgpt.com/backend-api/codex/models", s.api(Codex, codexRefusal,
		func(w http.ResponseWriter, _ *http.Request, _ *family) {
			writeJSON(w, http.StatusOK, map[string]any{"models": []any{}})
		}))
	// codex tries a WebSocket first. With 426 it goes over to HTTP at once;
	// anything else makes it try again for ten seconds.
	s.mux.HandleFunc("GET chatgpt.com/backend-api/codex/responses", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no WebSocket here", http.StatusUpgradeRequired)
	})
	for _, pattern := range []string{"chatgpt.com/backend-api/codex/responses", "api.openai.com/v1/responses"} {
		s.mux.HandleFunc("POST "+pattern, s.api(Codex, codexRefusal, s.codexResponses))
	}
}

func codexRefuseToken(w http.ResponseWriter, err error, refreshing bool) {
	status, code := http.StatusBadRequest, "invalid_grant"
	if refreshing {
		status, code = http.StatusUnauthorized, "refresh_token_invalidated"
		if errors.Is(err, errReused) {
			code = "refresh_token_reused"
		}
	}
	writeJSON(w, status, map[string]any{"error": map[string]any{
		"message": err.Error(), "type": "invalid_request_error", "param": nil, "code": code,
	}})
}

func codexRefusal(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusUnauthorized, map[string]any{
		"error": map[string]any{"message": "The access token is not valid.", "type": "invalid_request_error", "code": "token_invalid"},
	})
}

// codexTokens answers the token endpoint: access and id token are JWTs.
func (s *Server) codexTokens(f *family, _ bool) (map[string]any, error) {
	expires := s.ledger.expiry()
	claims := func(aud any) map[string]any {
		return map[string]any{
			"iss": codexAuthURL, "aud": aud, "sub": "auth0|" + codexUser, "email": f.account, "email_verified": true,
			"iat": time.Now().Unix(), "exp": expires.Unix(),
			"https://api.openai.com/auth": map[string]any{
				"chatgpt_account_id": codexAccount, "chatgpt_plan_type": "plus", "chatgpt_user_id": codexUser,
				"user_id": codexUser, "organizations": []any{},
			},
			"https://api.openai.com/profile": map[string]any{"email": f.account, "email_verified": true},
		}
	}
	idToken, err := s.signer.sign(claims([]string{codexClient}))
	if err != nil {
		return nil, err
	}
	accessToken, err := s.signer.sign(claims([]string{"https://api.openai.com/v1"}))
	if err != nil {
		return nil, err
	}
	refreshToken := secret("test-codex-refresh-")
	s.ledger.note(idToken)
	s.ledger.issueAccess(f, accessToken, expires)
	s.ledger.issueRefresh(f, refreshToken)
	return map[string]any{
		"token_type": "Bearer", "access_token": accessToken, "id_token": idToken, "refresh_token": refreshToken,
		"expires_in": seconds(expires), "scope": f.scope,
	}, nil
}

// isPrompt says whether a body can be a prompt: JSON, or what codex sends by
// default, JSON compressed with zstd, of which only the magic number is looked
// at (RFC 8878).
func isPrompt(encoding string, body []byte) bool {
	switch encoding {
	case "", "identity":
		return json.Valid(body)
	case "zstd":
		return bytes.HasPrefix(body, []byte{0x28, 0xb5, 0x2f, 0xfd})
	}
	return false
}

func (s *Server) codexResponses(w http.ResponseWriter, r *http.Request, f *family) {
	body, err := io.ReadAll(r.Body)
	if err != nil || !isPrompt(r.Header.Get("Content-Encoding"), body) {
		writeJSON(w, http.StatusBadRequest, map[string]string{"detail": "the body is not a request"})
		return
	}
	message := map[string]any{
		"type": "message", "id": "msg_test", "role": "assistant", "status": "completed",
		"content": []any{map[string]any{"type": "output_text", "text": Codex.Answer(), "annotations": []any{}}},
	}
	response := map[string]any{"id": "resp_test", "object": "response", "model": "test", "status": "in_progress", "output": []any{}}
	out := newSSE(w)
	out.send("response.created", map[string]any{"type": "response.created", "response": response})
	out.send("response.output_item.added", map[string]any{
		"type": "response.output_item.added", "output_index": 0,
		"item": map[string]any{"type": "message", "id": "msg_test", "role": "assistant", "status": "in_progress", "content": []any{}},
	})
	out.send("response.output_text.delta", map[string]any{
		"type": "response.output_text.delta", "item_id": "msg_test", "output_index": 0, "content_index": 0, "delta": Codex.Answer(),
	})
	out.send("response.output_item.done", map[string]any{"type": "response.output_item.done", "output_index": 0, "item": message})
	response["status"], response["output"] = "completed", []any{message}
	response["usage"] = map[string]any{
		"input_tokens": 10, "input_tokens_details": map[string]int{"cached_tokens": 0},
		"output_tokens": 5, "output_tokens_details": map[string]int{"reasoning_tokens": 0}, "total_tokens": 15,
	}
	out.send("response.completed", map[string]any{"type": "response.completed", "response": response})
	s.rec.emit(Event{Kind: PromptAnswered, Provider: Codex, Account: f.account, From: hostOnly(r.RemoteAddr)})
}
