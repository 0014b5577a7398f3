package idp

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

const (
	geminiClient  = "681255809395-" // a prefix: the rest is of no concern
	geminiManual  = "https://codeassist.google.com/authcode"
	geminiProject = "anteroom-test-project"
	geminiAPI     = "cloudcode-pa.googleapis.com"
)

func (s *Server) geminiRoutes() {
	for _, h := range []string{"accounts.google.com", "oauth2.googleapis.com", "www.googleapis.com", geminiAPI, "developers.google.com", "codeassist.google.com"} {
		s.hosts[h] = Gemini
	}
	page := s.page(signIn{
		provider: Gemini, clientID: geminiClient, callback: "/oauth2callback", manual: geminiManual,
		scopes: []string{"https://www.googleapis.com/auth/cloud-platform"},
	})
	s.mux.HandleFunc("GET accounts.google.com/o/oauth2/v2/auth", page)
	s.mux.HandleFunc("POST accounts.google.com/o/oauth2/v2/auth", page)
	d := dialect{
		provider: Gemini, clientID: geminiClient, needSecret: true,
		issue: s.geminiTokens,
		refuse: func(w http.ResponseWriter, err error, _ bool) {
			oauthError(w, http.StatusBadRequest, "invalid_grant", err.Error())
		},
	}
	s.mux.HandleFunc("POST oauth2.googleapis.com/token", s.token(d))
	s.mux.HandleFunc("POST oauth2.googleapis.com/revoke", s.revoke(Gemini))
	s.mux.HandleFunc("POST oauth2.googleapis.com/tokeninfo", s.geminiTokenInfo)
	s.mux.HandleFunc("GET oauth2.googleapis.com/tokeninfo", s.geminiTokenInfo)
	s.mux.HandleFunc("GET codeassist.google.com/authcode", s.manualPage(Gemini, false))
	s.mux.HandleFunc("GET developers.google.com/gemini-code-assist/auth_success_gemini",
		s.donePage(Gemini, "You are signed in. You can close this page."))
	s.mux.HandleFunc("GET developers.google.com/gemini-code-assist/auth_failure_gemini",
		s.donePage(Gemini, "The sign-in did not work. You can close this page."))
	s.mux.HandleFunc("GET www.googleapis.com/oauth2/v2/userinfo", s.api(Gemini, geminiRefusal,
		func(w http.ResponseWriter, _ *http.Request, f *family) {
			writeJSON(w, http.StatusOK, map[string]any{"id": "100000000000000000001", "email": f.account, "verified_email": true})
		}))
	s.mux.HandleFunc("POST "+geminiAPI+"/{call}", s.api(Gemini, geminiRefusal, s.geminiCall))
}

// geminiTokens answers the token endpoint; a refresh gives neither a refresh
// token nor a new id token.
func (s *Server) geminiTokens(f *family, first bool) (map[string]any, error) {
	accessToken := secret("test-gemini-access-")
	expires := s.ledger.expiry()
	body := map[string]any{
		"token_type": "Bearer", "access_token": accessToken, "expires_in": seconds(expires), "scope": f.scope,
	}
	if first {
		idToken, err := s.signer.sign(map[string]any{
			"iss": "https://accounts.google.com", "sub": "100000000000000000001", "email": f.account, "email_verified": true,
			"iat": time.Now().Unix(), "exp": expires.Unix(),
		})
		if err != nil {
			return nil, err
		}
		refreshToken := secret("1//test-gemini-refresh-")
		s.ledger.note(idToken)
		s.ledger.issueRefresh(f, refreshToken)
		body["id_token"], body["refresh_token"] = idToken, refreshToken
	}
	s.ledger.issueAccess(f, accessToken, expires)
	return body, nil
}

func geminiRefusal(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusUnauthorized, map[string]any{
		"error": map[string]any{"code": 401, "message": "Request had invalid authentication credentials.", "status": "UNAUTHENTICATED"},
	})
}

// geminiTokenInfo takes the token from the query, the body or the header.
func (s *Server) geminiTokenInfo(w http.ResponseWriter, r *http.Request) {
	if s.strike(w, r, Gemini, AtAPI, geminiRefusal) {
		return
	}
	tok := r.URL.Query().Get("access_token")
	if tok == "" {
		tok = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	}
	if tok == "" {
		if p, err := params(r); err == nil {
			tok = p["access_token"]
		}
	}
	f, err := s.ledger.check(Gemini, tok)
	if err != nil {
		s.rec.emit(Event{Kind: APIRefused, Provider: Gemini, Detail: r.URL.Path, From: hostOnly(r.RemoteAddr)})
		oauthError(w, http.StatusBadRequest, "invalid_token", "Invalid Value")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"aud": geminiClient, "scope": f.scope, "email": f.account, "email_verified": "true",
		"expires_in": int(time.Hour / time.Second), "access_type": "offline",
	})
}

// geminiCall answers the methods of the Code Assist API, which are the last
// part of the path: /v1internal:method.
func (s *Server) geminiCall(w http.ResponseWriter, r *http.Request, f *family) {
	_, method, _ := strings.Cut(r.PathValue("call"), ":")
	tier := map[string]any{
		"id": "standard-tier", "name": "Gemini Code Assist", "description": "A test tier",
		"isDefault": true, "userDefinedCloudaicompanionProject": false,
	}
	switch method {
	case "loadCodeAssist":
		writeJSON(w, http.StatusOK, map[string]any{
			"currentTier": tier, "allowedTiers": []any{tier}, "cloudaicompanionProject": geminiProject, "gcpManaged": false,
		})
	case "onboardUser":
		writeJSON(w, http.StatusOK, map[string]any{
			"name": "operations/test", "done": true,
			"response": map[string]any{"cloudaicompanionProject": map[string]string{"id": geminiProject, "name": geminiProject}},
		})
	case "retrieveUserQuota":
		writeJSON(w, http.StatusOK, map[string]any{"buckets": []any{}})
	case "listExperiments":
		writeJSON(w, http.StatusOK, map[string]any{"experimentIds": []any{}, "flags": []any{}})
	case "countTokens":
		writeJSON(w, http.StatusOK, map[string]int{"totalTokens": 10})
	case "generateContent":
		s.geminiGenerate(w, r, f)
	case "streamGenerateContent":
		newSSE(w).send("", geminiAnswer(Gemini.Answer()))
		s.rec.emit(Event{Kind: PromptAnswered, Provider: Gemini, Account: f.account, From: hostOnly(r.RemoteAddr)})
	default:
		writeJSON(w, http.StatusNotFound, map[string]any{
			"error": map[string]any{"code": 404, "message": "Method not found.", "status": "NOT_FOUND"},
		})
	}
}

// geminiGenerate answers a prompt that is not streamed. Before the person's
// own prompt the tool sends some that ask for JSON by a schema, which choose
// the model; anything else than that JSON is asked for again for two minutes.
func (s *Server) geminiGenerate(w http.ResponseWriter, r *http.Request, f *family) {
	var q struct {
		Request struct {
			GenerationConfig struct {
				MIME string `json:"responseMimeType"`
			} `json:"generationConfig"`
		} `json:"request"`
	}
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		writeJSON(w, http.StatusBadRequest, map[string]any{
			"error": map[string]any{"code": 400, "message": "The body is not a request.", "status": "INVALID_ARGUMENT"},
		})
		return
	}
	if q.Request.GenerationConfig.MIME == "application/json" {
		writeJSON(w, http.StatusOK, geminiAnswer(
			`{"reasoning":"test","model_choice":"flash","complexity_reasoning":"test","complexity_score":1}`))
		return
	}
	writeJSON(w, http.StatusOK, geminiAnswer(Gemini.Answer()))
	s.rec.emit(Event{Kind: PromptAnswered, Provider: Gemini, Account: f.account, From: hostOnly(r.RemoteAddr)})
}

func geminiAnswer(text string) map[string]any {
	return map[string]any{
		"traceId": "test",
		"response": map[string]any{
			"candidates": []any{map[string]any{
				"index": 0, "finishReason": "STOP",
				"content": map[string]any{"role": "model", "parts": []any{map[string]string{"text": text}}},
			}},
			"usageMetadata": map[string]int{"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
			"modelVersion":  "test",
		},
	}
}
