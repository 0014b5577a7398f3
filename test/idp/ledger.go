package idp

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"slices"
	"sync"
	"time"
)

const codeTTL = 10 * time.Minute

// Why the ledger says no.
var (
	errUnknown = errors.New("idp: the code or token is not known, or was revoked")
	errReused  = errors.New("idp: the code or token has been used before")
	errExpired = errors.New("idp: the code or token has expired")
	errMatch   = errors.New("idp: client, redirect address or state is not the one of the sign-in")
	errPKCE    = errors.New("idp: the code verifier does not match the challenge")
)

// grant is a sign-in for which a code was issued.
type grant struct {
	provider  Provider
	account   string
	clientID  string
	redirect  string
	state     string
	challenge string // S256; empty: the sign-in had none
	scope     string

	expires time.Time
	used    bool
	family  *family // what the code was turned into
}

// redemption is what a client shows to turn a code into tokens.
type redemption struct {
	provider           Provider
	code, clientID     string
	redirect, verifier string
	state              string
	requireState       bool // the client must repeat the state
}

// family is all tokens that descend from one sign-in.
type family struct {
	provider Provider
	account  string
	scope    string
	dead     bool
	current  string // the refresh token that is good
}

type access struct {
	family  *family
	expires time.Time
}

// ledger knows every code and token. Safe for concurrent use.
type ledger struct {
	mu      sync.Mutex
	ttl     time.Duration
	codes   map[string]*grant
	refresh map[string]*family // also those that were used
	access  map[string]*access
	issued  []string
}

func newLedger(ttl time.Duration) *ledger {
	return &ledger{
		ttl:     ttl,
		codes:   make(map[string]*grant),
		refresh: make(map[string]*family),
		access:  make(map[string]*access),
	}
}

// secret makes a token that is easy to find in a scan and impossible to guess.
func secret(prefix string) string {
	b := make([]byte, 32)
	rand.Read(b) // never fails
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// newCode issues the code of a sign-in.
func (l *ledger) newCode(g grant) string {
	code := secret("code-")
	if g.provider == Gemini {
		code = secret("4/")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g.expires = time.Now().Add(codeTTL)
	l.codes[code] = &g
	l.issued = append(l.issued, code)
	return code
}

// redeem turns a code into a family, once. A second use kills the family.
func (l *ledger) redeem(r redemption) (*family, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.codes[r.code]
	if !ok || g.provider != r.provider {
		return nil, errUnknown
	}
	if g.used {
		if g.family != nil {
			g.family.dead = true
		}
		return nil, errReused
	}
	g.used = true // also by a wrong try: a code is never good twice
	switch {
	case time.Now().After(g.expires):
		return nil, errExpired
	case g.clientID != r.clientID || g.redirect != r.redirect || (r.requireState && g.state != r.state):
		return nil, errMatch
	case g.challenge != "" && !verifies(g.challenge, r.verifier):
		return nil, errPKCE
	case g.challenge == "" && r.verifier != "":
		return nil, errPKCE
	}
	g.family = &family{provider: g.provider, account: g.account, scope: g.scope}
	return g.family, nil
}

// verifies checks PKCE's S256 (RFC 7636).
func verifies(challenge, verifier string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(challenge), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) == 1
}

// issueRefresh makes tok the family's good refresh token.
func (l *ledger) issueRefresh(f *family, tok string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refresh[tok] = f
	f.current = tok
	l.issued = append(l.issued, tok)
}

// issueAccess makes tok a live access token and returns when it ends.
func (l *ledger) issueAccess(f *family, tok string, expires time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.access[tok] = &access{family: f, expires: expires}
	l.issued = append(l.issued, tok)
}

// note remembers a token that opens nothing (an id token) for the scan.
func (l *ledger) note(tok string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.issued = append(l.issued, tok)
}

// useRefresh checks a refresh token. With rotate it is used up by that, and a
// used one that comes back kills the whole family.
func (l *ledger) useRefresh(p Provider, tok string, rotate bool) (*family, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.refresh[tok]
	switch {
	case !ok || f.provider != p:
		return nil, errUnknown
	case f.current != tok:
		f.dead = true
		return f, errReused
	case f.dead:
		return f, errUnknown
	}
	if rotate {
		f.current = ""
	}
	return f, nil
}

// check returns the family of a live access token.
func (l *ledger) check(p Provider, tok string) (*family, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, ok := l.access[tok]
	switch {
	case !ok || a.family.provider != p || a.family.dead:
		return nil, errUnknown
	case !time.Now().Before(a.expires):
		return nil, errExpired
	}
	return a.family, nil
}

// revoke ends the family of a token of either sort; false if there is none.
func (l *ledger) revoke(p Provider, tok string) (account string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.refresh[tok]
	if a := l.access[tok]; f == nil && a != nil {
		f = a.family
	}
	if f == nil || f.provider != p {
		return "", false
	}
	f.dead = true
	return f.account, true
}

func (l *ledger) expiry() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Now().Add(l.ttl)
}

func (l *ledger) setTTL(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ttl = d
}

func (l *ledger) expireAccess(p Provider) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, a := range l.access {
		if a.family.provider == p {
			a.expires = now
		}
	}
}

func (l *ledger) everything() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.issued)
}
