package idp

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	claudeClient = "9d1c250a-e61b-44d9-88ed-5944d1962f5e"
	claudeManual = "https://platform.claude.com/oauth/code/callback"
	claudeUUID   = "11111111-2222-4333-8444-555555555555"
	claudeOrg    = "66666666-7777-4888-8999-aaaaaaaaaaaa"
)

func (s *Server) claudeRoutes() {
	for _, h := range []string{"claude.com", "claude.ai", "platform.claude.com", "console.anthropic.com", "api.anthropic.com"} {
		s.hosts[h] = Claude
	}
	page := s.page(signIn{
		provider: Claude, clientID: claudeClient, callback: "/callback", manual: claudeManual,
		scopes: []string{"user:inference"}, pkce: true,
	})
	for _, pattern := range []string{"claude.com/cai/oauth/authorize", "claude.ai/oauth/authorize", "platform.claude.com/oauth/authorize"} {
		s.mux.HandleFunc("GET "+pattern, page)
		s.mux.HandleFunc("POST "+pattern, page)
	}
	d := dialect{
		provider: Claude, clientID: claudeClient, requireState: true, rotate: true,
		issue: s.claudeTokens,
		refuse: func(w http.ResponseWriter, err error, _ bool) {
			oauthError(w, http.StatusBadRequest, "invalid_grant", err.Error())
		},
	}
	s.mux.HandleFunc("POST platform.claude.com/v1/oauth/token", s.token(d))
	s.mux.HandleFunc("POST platform.claude.com/v1/oauth/token/revoke", s.revoke(Claude))
	s.mux.HandleFunc("GET platform.claude.com/oauth/code/callback", s.manualPage(Claude, true))
	s.mux.HandleFunc("GET platform.claude.com/oauth/code/success", s.donePage(Claude, "You are signed in. You can close this page."))

	api := "api.anthropic.com"
	s.mux.HandleFunc("GET "+api+"/api/hello", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"message": "hello"})
	})
	s.mux.HandleFunc("GET "+api+"/api/oauth/profile", s.api(Claude, claudeRefusal, claudeProfile))
	s.mux.HandleFunc("GET "+api+"/api/oauth/claude_cli/roles", s.api(Claude, claudeRefusal, claudeRoles))
	s.mux.HandleFunc("POST "+api+"/v1/messages", s.api(Claude, claudeRefusal, s.claudeMessages))
	s.mux.HandleFunc("POST "+api+"/v1/messages/count_tokens", s.api(Claude, claudeRefusal,
		func(w http.ResponseWriter, _ *http.Request, _ *family) {
			writeJSON(w, http.StatusOK, map[string]int{"input_tokens": 10})
		}))
}

// claudeTokens answers the token endpoint. The prefixes are not the real
// ones, so that no secret scanner takes a test's output for a leak.
func (s *Server) claudeTokens(f *family, _ bool) (map[string]any, error) {
	accessToken, refreshToken := secret("test-claude-access-"), secret("test-claude-refresh-")
	expires := s.ledger.expiry()
	s.ledger.issueAccess(f, accessToken, expires)
	s.ledger.issueRefresh(f, refreshToken)
	return map[string]any{
		"token_type": "Bearer", "access_token": accessToken, "refresh_token": refreshToken,
		"expires_in": seconds(expires), "scope": f.scope,
		"account":      map[string]string{"uuid": claudeUUID, "email_address": f.account},
		"organization": map[string]string{"uuid": claudeOrg, "name": "Anteroom tests"},
	}, nil
}

// seconds is the whole seconds until t, at least 1.
func seconds(t time.Time) int {
	return max(1, int(time.Until(t).Round(time.Second)/time.Second))
}

func claudeRefusal(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusUnauthorized, map[string]any{
		"type":  "error",
		"error": map[string]string{"type": "authentication_error", "message": "Invalid bearer token"},
	})
}

func claudeProfile(w http.ResponseWriter, _ *http.Request, f *family) {
	writeJSON(w, http.StatusOK, map[string]any{
		"account": map[string]any{
			"uuid": claudeUUID, "email": f.account, "full_name": "Test Person", "display_name": "Test",
			"has_claude_max": false, "has_claude_pro": true, "created_at": "2025-01-01T00:00:00Z",
		},
		"organization": map[string]any{
			"uuid": claudeOrg, "name": "Anteroom tests", "organization_type": "claude_pro",
			"rate_limit_tier": "default_claude_ai", "billing_type": "stripe_subscription",
			"has_extra_usage_enabled": false,
		},
	})
}

func claudeRoles(w http.ResponseWriter, _ *http.Request, _ *family) {
	writeJSON(w, http.StatusOK, map[string]any{
		"organization_role": "admin", "workspace_role": nil, "organization_name": "Anteroom tests",
	})
}

func (s *Server) claudeMessages(w http.ResponseWriter, r *http.Request, f *family) {
	var q struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Model == "" {
		writeJSON(w, http.StatusBadRequest, map[string]any{
			"type": "error", "error": map[string]string{"type": "invalid_request_error", "message": "the body is not a request"},
		})
		return
	}
	usage := map[string]int{"input_tokens": 10, "output_tokens": 5}
	text := map[string]any{"type": "text", "text": Claude.Answer()}
	message := map[string]any{
		"id": "msg_test", "type": "message", "role": "assistant", "model": q.Model,
		"content": []any{text}, "stop_reason": "end_turn", "stop_sequence": nil, "usage": usage,
	}
	defer s.rec.emit(Event{Kind: PromptAnswered, Provider: Claude, Account: f.account, From: hostOnly(r.RemoteAddr)})
	if !q.Stream {
		writeJSON(w, http.StatusOK, message)
		return
	}
	message["content"], message["stop_reason"] = []any{}, nil
	out := newSSE(w)
	out.send("message_start", map[string]any{"type": "message_start", "message": message})
	out.send("content_block_start", map[string]any{
		"type": "content_block_start", "index": 0, "content_block": map[string]string{"type": "text", "text": ""},
	})
	out.send("content_block_delta", map[string]any{
		"type": "content_block_delta", "index": 0, "delta": map[string]string{"type": "text_delta", "text": Claude.Answer()},
	})
	out.send("content_block_stop", map[string]any{"type": "content_block_stop", "index": 0})
	out.send("message_delta", map[string]any{
		"type": "message_delta", "delta": map[string]any{"stop_reason": "end_turn", "stop_sequence": nil}, "usage": usage,
	})
	out.send("message_stop", map[string]any{"type": "message_stop"})
}

// sse writes a stream of server-sent events.
type sse struct {
	w http.ResponseWriter
}

func newSSE(w http.ResponseWriter) sse {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	return sse{w}
}

// send writes one event; an empty name is left out. A client that is gone ends
// the handler by itself.
func (s sse) send(name string, data any) {
	body, err := json.Marshal(data)
	if err != nil {
		panic(err) // only the literals above are ever sent
	}
	if name != "" {
		fmt.Fprintf(s.w, "event: %s\n", name)
	}
	fmt.Fprintf(s.w, "data: %s\n\n", body)
	_ = http.NewResponseController(s.w).Flush()
}
