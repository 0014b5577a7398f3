package idp

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"time"
)

const deviceTTL = 15 * time.Minute

// device is one sign-in with a one-time code (codex's device flow).
type device struct {
	id, userCode string
	expires      time.Time
	code         string // set when the person has signed in
	verifier     string
	challenge    string
	taken        bool
}

type deviceFlow struct {
	mu     sync.Mutex
	byID   map[string]*device
	byUser map[string]*device
}

func (s *Server) deviceRoutes() {
	flow := &deviceFlow{byID: make(map[string]*device), byUser: make(map[string]*device)}
	s.mux.HandleFunc("POST auth.openai.com/api/accounts/deviceauth/usercode", func(w http.ResponseWriter, r *http.Request) {
		s.deviceStart(w, r, flow)
	})
	s.mux.HandleFunc("POST auth.openai.com/api/accounts/deviceauth/token", func(w http.ResponseWriter, r *http.Request) {
		s.devicePoll(w, r, flow)
	})
	s.mux.HandleFunc("GET auth.openai.com/codex/device", func(w http.ResponseWriter, r *http.Request) {
		s.showDevice(w, http.StatusOK, "")
		s.rec.emit(Event{Kind: PageServed, Provider: Codex, From: hostOnly(r.RemoteAddr)})
	})
	s.mux.HandleFunc("POST auth.openai.com/codex/device", func(w http.ResponseWriter, r *http.Request) {
		s.deviceSignIn(w, r, flow)
	})
}

func (s *Server) showDevice(w http.ResponseWriter, status int, problem string) {
	s.render(w, Codex, status, pageData{Heading: "Sign in to codex on another device", Error: problem, SignIn: true, UserCode: true})
}

// userCode makes a code of letters that are not mistaken for one another.
func userCode() string {
	const letters = "BCDFGHJKLMNPQRSTVWXZ"
	b := make([]byte, 8)
	rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:4]) + "-" + string(b[4:])
}

func (s *Server) deviceStart(w http.ResponseWriter, r *http.Request, flow *deviceFlow) {
	p, err := params(r)
	if err != nil || p["client_id"] != codexClient {
		oauthError(w, http.StatusBadRequest, "invalid_client", "client_id is not the tool's")
		return
	}
	d := &device{id: secret("device-"), userCode: userCode(), expires: time.Now().Add(deviceTTL), verifier: secret("")}
	sum := sha256.Sum256([]byte(d.verifier))
	d.challenge = base64.RawURLEncoding.EncodeToString(sum[:])
	flow.mu.Lock()
	flow.byID[d.id], flow.byUser[d.userCode] = d, d
	flow.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]string{
		"device_auth_id": d.id, "user_code": d.userCode, "interval": "1", "expires_at": d.expires.UTC().Format(time.RFC3339),
	})
}

func (s *Server) devicePoll(w http.ResponseWriter, r *http.Request, flow *deviceFlow) {
	p, err := params(r)
	if err != nil {
		oauthError(w, http.StatusBadRequest, "invalid_request", err.Error())
		return
	}
	flow.mu.Lock()
	d := flow.byID[p["device_auth_id"]]
	var answer map[string]string
	known := d != nil && !d.taken && p["user_code"] == d.userCode && time.Now().Before(d.expires)
	if known && d.code != "" {
		d.taken = true
		answer = map[string]string{"authorization_code": d.code, "code_verifier": d.verifier, "code_challenge": d.challenge}
	}
	flow.mu.Unlock()
	switch {
	case !known:
		oauthError(w, http.StatusNotFound, "expired_token", "the device code is unknown, used or too old")
	case answer == nil:
		oauthError(w, http.StatusForbidden, "authorization_pending", "nobody has signed in yet")
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

func (s *Server) deviceSignIn(w http.ResponseWriter, r *http.Request, flow *deviceFlow) {
	account, err := s.credentials(r)
	if err == nil {
		code := strings.ToUpper(strings.TrimSpace(r.PostForm.Get("user_code")))
		flow.mu.Lock()
		d := flow.byUser[code]
		if d == nil || d.code != "" || time.Now().After(d.expires) {
			err = errDenied
		} else {
			d.code = s.ledger.newCode(grant{
				provider: Codex, account: account, clientID: codexClient, challenge: d.challenge,
				redirect: codexAuthURL + "/deviceauth/callback", scope: "openid profile email offline_access",
			})
		}
		flow.mu.Unlock()
	}
	if err != nil {
		s.rec.emit(Event{Kind: SignInRefused, Provider: Codex, Detail: err.Error(), From: hostOnly(r.RemoteAddr)})
		s.showDevice(w, http.StatusUnauthorized, "the code, the email address or the password is wrong")
		return
	}
	s.rec.emit(Event{Kind: SignedIn, Provider: Codex, Account: account, From: hostOnly(r.RemoteAddr)})
	s.render(w, Codex, http.StatusOK, pageData{Heading: "You are signed in. You can close this page."})
}
