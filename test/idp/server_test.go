package idp_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/test/idp"
)

func TestFaults(t *testing.T) {
	each(t, func(t *testing.T, x *tool) {
		get := x.page + "?" + x.query.Encode()
		x.s.SetFault(x.p, idp.AtPage, idp.Fault{Refuse: true, Times: 1})
		if status, _, _ := x.send("GET", get, "", ""); status != http.StatusServiceUnavailable {
			t.Errorf("page: %d", status)
		}
		if status, _, _ := x.send("GET", get, "", ""); status != http.StatusOK {
			t.Errorf("page, after its fault: %d", status)
		}
		x.s.SetFault(x.p, idp.AtSignIn, idp.Fault{Refuse: true, Times: 1})
		if _, back := x.submit(testEmail, idp.DefaultPassword); back.Get("error") != "access_denied" || back.Get("state") == "" || back.Get("code") != "" {
			t.Errorf("sign-in: %v", back)
		}
		x.s.SetFault(x.p, idp.AtToken, idp.Fault{Refuse: true, Times: 1})
		code := x.code()
		if status, _ := x.redeem(code, nil); status != http.StatusBadRequest {
			t.Errorf("token: %d", status)
		}
		x.s.SetFault(x.p, idp.AtAPI, idp.Fault{Refuse: true})
		status, answer := x.redeem(code, nil)
		if status != http.StatusOK {
			t.Fatalf("%d", status)
		}
		access := answer["access_token"].(string)
		x.works(access, false)
		x.s.SetFault(x.p, idp.AtAPI, idp.Fault{Garbage: true})
		if status, text := x.prompt(access); status != http.StatusOK || json.Valid([]byte(text)) {
			t.Errorf("garbage: %d %q", status, text)
		}
		x.s.SetFault(x.p, idp.AtAPI, idp.Fault{Drop: true})
		x.fails("https://api.anthropic.com/api/oauth/profile", "https://chatgpt.com/backend-api/codex/models", "https://www.googleapis.com/oauth2/v2/userinfo")
		x.s.ClearFaults()
		x.works(access, true)
		x.s.SetFault(x.p, idp.AtRefresh, idp.Fault{Refuse: true})
		if status, _ := x.refresh(answer["refresh_token"].(string)); status == http.StatusOK {
			t.Error("refresh")
		}
		for _, f := range []idp.Fault{{Refuse: true}, {Drop: true}, {Garbage: true}} {
			x.c.CloseIdleConnections()
			x.s.SetFault(x.p, idp.AtConnect, f)
			x.fails(x.page, x.page, x.page)
		}
	})
}

// fails fails the test if a request to this provider's address gets a whole
// answer.
func (x *tool) fails(claude, codex, gemini string) {
	x.t.Helper()
	to := map[idp.Provider]string{idp.Claude: claude, idp.Codex: codex, idp.Gemini: gemini}[x.p]
	resp, err := x.c.Get(to)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	if _, err = io.ReadAll(resp.Body); err == nil {
		x.t.Errorf("%s: %s", to, resp.Status)
	}
}

func TestDelay(t *testing.T) {
	s, c := start(t, idp.Config{})
	x := newTool(t, s, c, idp.Claude)
	const delay = 50 * time.Millisecond
	s.SetFault(idp.Claude, idp.AtPage, idp.Fault{Delay: delay})
	begun := time.Now()
	if status, _, _ := x.send("GET", x.page+"?"+x.query.Encode(), "", ""); status != http.StatusOK || time.Since(begun) < delay {
		t.Errorf("%d after %v", status, time.Since(begun))
	}
	// Neither a client that goes nor Close waits for a long one.
	s.SetFault(idp.Claude, idp.AtPage, idp.Fault{Delay: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), delay)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", x.page+"?"+x.query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.Do(req); !errors.Is(err, context.DeadlineExceeded) {
		if err == nil {
			resp.Body.Close()
		}
		t.Errorf("it did not wait: %v", err)
	}
}

func TestProxy(t *testing.T) {
	site := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "site %s %v", r.URL.Path, r.TLS != nil) })
	s, c := start(t, idp.Config{ProxyUsers: map[string]string{"us er": "p@ss:/?%#"}, Sites: map[string]http.Handler{"site.example.com": site}})
	x := newTool(t, s, c, idp.Claude)
	x.works("nonsense", false) // reached, so the credentials were taken
	for _, to := range []string{"http://site.example.com/a", "https://site.example.com/a"} {
		if status, text, _ := x.send("GET", to, "", ""); status != 200 || !strings.HasPrefix(text, "site /a") {
			t.Errorf("%s: %d %s", to, status, text)
		}
	}
	x.send("GET", "http://claude.com/x", "", "") // is led to https
	if reqs := s.Requests(); !reqs[len(reqs)-1].TLS || reqs[len(reqs)-1].Path != "/x" {
		t.Errorf("plain http: %+v", reqs[len(reqs)-1])
	}
	for _, to := range []string{"https://evil.example/", "https://claude.com:444/"} {
		if resp, err := c.Get(to); err == nil {
			resp.Body.Close()
			t.Errorf("%s is served: %s", to, resp.Status)
		}
	}
	if status, _, _ := x.send("GET", "http://evil.example/", "", ""); status != http.StatusForbidden {
		t.Errorf("an unknown host by plain http: %d", status)
	}
	// Another host's name inside a tunnel.
	req, err := http.NewRequest("GET", "https://claude.com/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "api.anthropic.com"
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("%s", resp.Status)
	}
	// Without credentials.
	nobody, err := s.Client("")
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.CloseIdleConnections()
	if _, err := nobody.Get("https://claude.com/"); err == nil || !strings.Contains(err.Error(), "Proxy Authentication Required") {
		t.Errorf("without credentials: %v", err)
	}
	var refused, named int
	for _, q := range s.Requests() {
		if q.Refused {
			refused++
		}
		if q.ProxyUser == "us er" {
			named++
		}
		if q.ForwardedProxyHeader {
			t.Errorf("%+v", q)
		}
	}
	if refused != 4 || named < 8 {
		t.Errorf("%d refused, %d with a name", refused, named)
	}
}

func TestCAIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	var first []byte
	for i := range 2 {
		s, c := start(t, idp.Config{StateDir: dir})
		if i == 0 {
			first = s.CAPEM()
		} else if string(s.CAPEM()) != string(first) {
			t.Error("the CA changed")
		}
		newTool(t, s, c, idp.Claude).works("nonsense", false) // TLS works
	}
	if st, err := os.Stat(filepath.Join(dir, "ca-key.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := idp.Start(t.Context(), idp.Config{StateDir: dir}); err == nil {
		s.Close()
		t.Error("a broken CA is taken")
	}
}

func TestWaitForAndClose(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := idp.Start(ctx, idp.Config{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Client("")
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseIdleConnections()
	got := make(chan idp.Event, 1)
	go func() {
		e, err := s.WaitFor(t.Context(), 0, idp.Of(idp.Codex, idp.APIRefused))
		if err != nil {
			t.Error(err)
		}
		got <- e
	}()
	x := newTool(t, s, c, idp.Codex)
	x.works("nonsense", false)
	e := <-got
	if e.Seq != 1 || e.Provider != idp.Codex {
		t.Errorf("%+v", e)
	}
	short, stop := context.WithCancel(t.Context())
	stop()
	if _, err := s.WaitFor(short, e.Seq, idp.Of(idp.Codex, idp.APIRefused)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the only one: %v", err)
	}
	cancel()
	s.Close()
	s.Close()
	if _, err := c.Get("https://claude.com/"); err == nil {
		t.Error("it is served after Close")
	}
}

func TestTokensExpire(t *testing.T) {
	s, c := start(t, idp.Config{AccessTTL: time.Nanosecond})
	for _, p := range idp.Providers() {
		x := newTool(t, s, c, p)
		access, _ := x.signIn()
		x.works(access, false)
	}
	s.SetAccessTTL(time.Hour)
	x := newTool(t, s, c, idp.Claude)
	access, _ := x.signIn()
	x.works(access, true)
}

func FuzzSignInParameters(f *testing.F) {
	f.Add("client_id=x&redirect_uri=http://localhost:1/callback&state=12345678")
	f.Add("redirect_uri=http://localhost:1%00/callback")
	s, err := idp.Start(context.Background(), idp.Config{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	c, err := s.Client("")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, query string) {
		u := &url.URL{Scheme: "https", Host: "claude.com", Path: "/cai/oauth/authorize", RawQuery: query}
		req, err := http.NewRequest("GET", u.String(), nil)
		if err != nil {
			return
		}
		resp, err := c.Do(req)
		if err != nil {
			return
		}
		resp.Body.Close()
		if resp.StatusCode != 200 && resp.StatusCode != 400 {
			t.Fatalf("%q: %s", query, resp.Status)
		}
	})
}

// TestPlainTunnel checks what a client gets in a tunnel to port 80.
func TestPlainTunnel(t *testing.T) {
	site := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "site %s from %s, TLS %v", r.URL.Path, r.RemoteAddr, r.TLS != nil)
	})
	s, _ := start(t, idp.Config{Sites: map[string]http.Handler{"site.example.com": site}})
	ask := func(host string) (*http.Response, string, string) {
		t.Helper()
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "CONNECT %[1]s:80 HTTP/1.1\r\nHost: %[1]s:80\r\n\r\nGET /a HTTP/1.1\r\nHost: %[1]s\r\nConnection: close\r\n\r\n", host)
		br := bufio.NewReader(conn)
		if resp, err := http.ReadResponse(br, &http.Request{Method: "CONNECT"}); err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(body), conn.LocalAddr().String()
	}
	if _, body, from := ask("site.example.com"); body != "site /a from "+from+", TLS false" {
		t.Errorf("the site says %q", body)
	}
	if resp, _, _ := ask("claude.com"); resp.Header.Get("Location") != "https://claude.com/a" {
		t.Errorf("a provider's host sends to %q", resp.Header.Get("Location"))
	}
	last := s.Requests()[len(s.Requests())-1]
	if last.TLS || last.From != "127.0.0.1" {
		t.Errorf("recorded is %+v", last)
	}
}
