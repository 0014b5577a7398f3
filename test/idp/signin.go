package idp

import (
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Provider is one of the three whose command-line tools are tested.
type Provider string

// The providers.
const (
	Claude Provider = "claude"
	Codex  Provider = "codex"
	Gemini Provider = "gemini"
)

// Providers returns all of them.
func Providers() []Provider { return []Provider{Claude, Codex, Gemini} }

// Band is the solid colour (red, green, blue) of the 80 pixels at the top of
// the provider's sign-in page, so that a test can see in a picture which page
// is shown. The page after a sign-in is plain without a band.
func (p Provider) Band() (r, g, b uint8) {
	switch p {
	case Claude:
		return 0xd9, 0x77, 0x57
	case Codex:
		return 0x10, 0xa3, 0x7f
	case Gemini:
		return 0x42, 0x85, 0xf4
	}
	return 0, 0, 0
}

//go:embed page.html
var pageFS embed.FS

// signIn is what a provider's sign-in page checks.
type signIn struct {
	provider Provider
	clientID string   // exactly, or a prefix if it ends in "-"
	callback string   // the path of the loopback redirect address
	manual   string   // the redirect address of the paste flow; empty: none
	scopes   []string // that must be asked for
	pkce     bool     // loopback sign-ins need a challenge
}

type pageData struct {
	Provider string
	Band     template.CSS
	Heading  string
	Error    string
	Code     string // of the paste flow, to copy by hand
	UserCode bool   // ask for the one-time code of a device flow
	SignIn   bool   // show the form
}

var errDenied = errors.New("the email address or the password is wrong")

// request checks the parameters of a sign-in page.
func (f signIn) request(q url.Values) (grant, error) {
	g := grant{
		provider: f.provider, clientID: q.Get("client_id"), redirect: q.Get("redirect_uri"),
		state: q.Get("state"), challenge: q.Get("code_challenge"), scope: q.Get("scope"),
	}
	for k, v := range q {
		if len(v) != 1 {
			return g, fmt.Errorf("parameter %q is there %d times", k, len(v))
		}
	}
	prefix, isPrefix := strings.CutSuffix(f.clientID, "-")
	switch {
	case isPrefix && !strings.HasPrefix(g.clientID, prefix+"-"), !isPrefix && g.clientID != f.clientID:
		return g, errors.New("client_id is not the tool's")
	case q.Get("response_type") != "code":
		return g, errors.New("response_type is not code")
	case len(g.state) < 8:
		return g, errors.New("state is missing or short")
	case g.redirect == f.manual && f.manual != "":
	default:
		if err := f.loopback(g.redirect); err != nil {
			return g, err
		}
	}
	for _, want := range f.scopes {
		if !slices.Contains(strings.Fields(g.scope), want) {
			return g, fmt.Errorf("scope %q is missing", want)
		}
	}
	// Whoever can read a redirect can steal a code that has no verifier; the
	// paste flow of every tool has one, gemini's loopback flow does not.
	needPKCE := f.pkce || g.redirect == f.manual
	method := q.Get("code_challenge_method")
	switch {
	case needPKCE && len(g.challenge) != 43:
		return g, errors.New("code_challenge is missing or malformed")
	case g.challenge != "" && method != "S256":
		return g, errors.New("code_challenge_method is not S256")
	}
	return g, nil
}

// loopback checks a redirect address: this computer only, plain http, with a
// port, the tool's own path and nothing else (RFC 8252).
func (f signIn) loopback(raw string) error {
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("redirect_uri does not parse")
	}
	host, port, err := net.SplitHostPort(u.Host)
	switch {
	case err != nil || port == "":
		return errors.New("redirect_uri has no port")
	case u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return errors.New("redirect_uri is not a plain http address")
	case host != "localhost" && host != "127.0.0.1" && host != "::1":
		return errors.New("redirect_uri does not lead to this computer")
	case u.Path != f.callback:
		return errors.New("redirect_uri has the wrong path")
	}
	return nil
}

// page serves the sign-in page: GET shows it, POST is the form.
func (s *Server) page(f signIn) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		g, err := f.request(r.URL.Query())
		if err != nil {
			s.rec.emit(Event{Kind: PageInvalid, Provider: f.provider, Detail: err.Error(), From: hostOnly(r.RemoteAddr)})
			http.Error(w, "This sign-in request is not valid: "+err.Error()+".", http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodGet {
			if s.strike(w, r, f.provider, AtPage, unavailable) {
				return
			}
			s.show(w, f.provider, http.StatusOK, "")
			s.rec.emit(Event{Kind: PageServed, Provider: f.provider, From: hostOnly(r.RemoteAddr)})
			return
		}
		denied := func(w http.ResponseWriter, r *http.Request) {
			s.rec.emit(Event{Kind: SignInRefused, Provider: f.provider, Detail: "told to refuse", From: hostOnly(r.RemoteAddr)})
			redirect(w, r, g.redirect, url.Values{"error": {"access_denied"}, "error_description": {"The sign-in was denied."}, "state": {g.state}})
		}
		if s.strike(w, r, f.provider, AtSignIn, denied) {
			return
		}
		if g.account, err = s.credentials(r); err != nil {
			s.rec.emit(Event{Kind: SignInRefused, Provider: f.provider, Detail: err.Error(), From: hostOnly(r.RemoteAddr)})
			s.show(w, f.provider, http.StatusUnauthorized, err.Error())
			return
		}
		code := s.ledger.newCode(g)
		s.log.Info("signed in", "provider", f.provider)
		redirect(w, r, g.redirect, url.Values{"code": {code}, "state": {g.state}})
		s.rec.emit(Event{Kind: SignedIn, Provider: f.provider, Account: g.account, From: hostOnly(r.RemoteAddr)})
	}
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "The sign-in page is not available.", http.StatusServiceUnavailable)
}

// credentials reads the form and returns whose it is.
func (s *Server) credentials(r *http.Request) (account string, err error) {
	if err := r.ParseForm(); err != nil {
		return "", errDenied
	}
	account = strings.TrimSpace(r.PostForm.Get("email"))
	name, domain, _ := strings.Cut(account, "@")
	if name == "" || domain == "" || len(account) > 254 || r.PostForm.Get("password") != s.cfg.Password {
		return "", errDenied
	}
	return account, nil
}

func redirect(w http.ResponseWriter, r *http.Request, to string, q url.Values) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to+"?"+q.Encode(), http.StatusFound)
}

// show writes the sign-in page.
func (s *Server) show(w http.ResponseWriter, p Provider, status int, problem string) {
	s.render(w, p, status, pageData{Heading: "Sign in to " + string(p), Error: problem, SignIn: true})
}

func (s *Server) render(w http.ResponseWriter, p Provider, status int, d pageData) {
	r, g, b := p.Band()
	d.Provider = string(p)
	d.Band = template.CSS(fmt.Sprintf("#%02x%02x%02x", r, g, b))
	if !d.SignIn {
		d.Band = "transparent"
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Frame-Options", "DENY")
	w.WriteHeader(status)
	t := template.Must(template.ParseFS(pageFS, "page.html")) // embedded: it parses
	if err := t.Execute(w, d); err != nil {
		s.log.Debug("the page was not written", "error", err)
	}
}

// manualPage shows the code of a paste flow. With withState it is followed by
// "#" and the state, as claude wants it.
func (s *Server) manualPage(p Provider, withState bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		code := r.URL.Query().Get("code")
		if withState {
			code += "#" + r.URL.Query().Get("state")
		}
		s.render(w, p, http.StatusOK, pageData{Heading: "Paste this code into the tool", Code: code})
	}
}

// donePage is where a tool sends the browser after a sign-in.
func (s *Server) donePage(p Provider, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		s.render(w, p, http.StatusOK, pageData{Heading: text})
	}
}
