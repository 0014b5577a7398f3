package egress

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// httpSite serves one request per connection with handler.
func httpSite(t testing.TB, handler func(*http.Request) string) func(net.Conn) {
	return func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return // a connection that was opened for nothing
		}
		if _, err := io.WriteString(c, handler(req)); err != nil {
			t.Log(err)
		}
	}
}

func reply(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestPlainIsCleaned(t *testing.T) {
	s := newSites(t)
	got := make(chan *http.Request, 1)
	s.at("example.com", "93.184.216.34", 80, httpSite(t, func(r *http.Request) string {
		got <- r
		return "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nProxy-Authenticate: Basic\r\n" + Header + ": allowed\r\nX-Site: 1\r\nContent-Length: 2\r\n\r\nok"
	}))
	r := newDirect(t, s, Config{})
	c := r.open()
	c.send("GET http://EXAMPLE.com/a%2Fb?q=%20 HTTP/1.1\r\nHost: evil.example\r\nProxy-Authorization: Basic aGk6aHVzaA==\r\n" +
		"Proxy-Connection: keep-alive\r\nConnection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nUpgrade: h2c\r\nX-Kept: 1\r\n\r\n")
	resp, body := c.answer("GET")
	if resp.StatusCode != 200 || body != "ok" || resp.Header.Get("X-Site") != "1" {
		t.Errorf("%s %q %v", resp.Status, body, resp.Header)
	}
	for _, h := range []string{"X-Hop", "Proxy-Authenticate", Header} {
		if resp.Header.Get(h) != "" {
			t.Errorf("the guest got %s", h)
		}
	}
	req := <-got
	if req.RequestURI != "/a%2Fb?q=%20" || req.Host != "example.com" || req.Header.Get("X-Kept") != "1" {
		t.Errorf("the site got %s of %s, %v", req.RequestURI, req.Host, req.Header)
	}
	for h := range req.Header {
		if strings.HasPrefix(h, "Proxy-") || h == "X-Mine" || h == "Te" || h == "Upgrade" || h == "User-Agent" || h == "Accept-Encoding" {
			t.Errorf("the site got %s: %v", h, req.Header[h])
		}
	}
}

func TestPlainChecksEveryRequest(t *testing.T) {
	s := newSites(t)
	s.at("a.example.com", "93.184.216.34", 80, httpSite(t, func(*http.Request) string { return reply("a") }))
	s.at("b.example.com", "93.184.216.35", 80, httpSite(t, func(*http.Request) string { return reply("b") }))
	r := newDirect(t, s, Config{})
	c := r.open()
	for _, name := range []string{"a", "b", "a"} {
		c.send("GET http://" + name + ".example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp, body := c.answer("GET"); body != name || resp.Close {
			t.Fatalf("%s: %q, close %v", name, body, resp.Close)
		}
	}
	c.send("GET http://127.0.0.1/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n")
	if resp, _ := c.answer("GET"); resp.StatusCode != 403 || resp.Header.Get(Header) != string(AddressRefused) {
		t.Errorf("%s", resp.Status)
	}
	c.atEnd()
	if n := len(s.dials); n != 3 {
		t.Errorf("%d connections for 3 requests", n)
	}
}

func TestPlainBodies(t *testing.T) {
	s := newSites(t)
	s.at("example.com", "93.184.216.34", 80, httpSite(t, func(r *http.Request) string {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		return reply(fmt.Sprintf("%s %d %v", body, r.ContentLength, r.TransferEncoding))
	}))
	s.at("stream.example.com", "93.184.216.36", 80, httpSite(t, func(*http.Request) string {
		return "HTTP/1.0 200 OK\r\n\r\nuntil the end"
	}))
	s.at("early.example.com", "93.184.216.37", 80, httpSite(t, func(*http.Request) string {
		return "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	}))
	r := newDirect(t, s, Config{})
	c := r.open()
	post := func(extra, body, want string) {
		t.Helper()
		c.send("POST http://example.com/ HTTP/1.1\r\nHost: x\r\n" + extra + "\r\n" + body)
		if _, got := c.answer("POST"); got != want {
			t.Errorf("%q: %q, want %q", extra, got, want)
		}
	}
	post("Content-Length: 3\r\n", "abc", "abc 3 []")
	post("Transfer-Encoding: chunked\r\nTrailer: X\r\n", "3\r\nabc\r\n0\r\nX: y\r\n\r\n", "abc -1 [chunked]")
	post("Content-Length: 0\r\n", "", " 0 []")
	post("", "", " 0 []")

	c.send("POST http://example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != http.StatusContinue {
		t.Errorf("%s", resp.Status)
	}
	c.send("abc")
	if _, got := c.answer("POST"); got != "abc 3 []" {
		t.Errorf("%q", got)
	}

	c.send("GET http://stream.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, got := c.answer("GET"); got != "until the end" || resp.Close {
		t.Errorf("%q, close %v", got, resp.Close)
	}
	c.send("HEAD http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, got := c.answer("HEAD"); got != "" || resp.StatusCode != 200 {
		t.Errorf("%q", got)
	}

	// An answer before the body has ended ends the connection: the rest of
	// the body must not be read as a request.
	c.send("POST http://early.example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nGET http://example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, _ := c.answer("POST"); resp.StatusCode != 413 || !resp.Close {
		t.Errorf("%s, close %v", resp.Status, resp.Close)
	}
	c.atEnd()
}

func TestPlainSiteMisbehaves(t *testing.T) {
	s := newSites(t)
	s.at("garbage.example.com", "93.184.216.34", 80, httpSite(t, func(*http.Request) string { return "secret garbage\r\n\r\n" }))
	s.at("closed.example.com", "93.184.216.35", 80, httpSite(t, func(*http.Request) string { return "" }))
	s.at("header.example.com", "93.184.216.36", 80, httpSite(t, func(*http.Request) string {
		return "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", maxResponseHeader) + "\r\n\r\n"
	}))
	s.at("short.example.com", "93.184.216.37", 80, httpSite(t, func(*http.Request) string {
		return "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
	}))
	r := newDirect(t, s, Config{})
	for _, name := range []string{"garbage", "closed", "header"} {
		r.refused("GET http://"+name+".example.com/ HTTP/1.1\r\nHost: x\r\n\r\n", 502, ConnectFailed)
	}
	c := r.open()
	c.send("GET http://short.example.com/ HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a short body looks whole")
	}
	r.Proxy.Close()
	if strings.Contains(r.logs.String(), "garbage\r") || strings.Contains(r.logs.String(), "secret") {
		t.Errorf("what the site sent is in the log:\n%s", r.logs)
	}
}
