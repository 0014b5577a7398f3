package egress_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/test/idp"
)

// TestThroughTheTestProvider takes the whole way: a program in a guest, a line,
// the proxy, an upstream that wants credentials, TLS with a site behind it.
func TestThroughTheTestProvider(t *testing.T) {
	up, err := idp.Start(t.Context(), idp.Config{ProxyUsers: map[string]string{"us@er": "p@ss:/?%#"}})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	way, err := egress.ParseUpstream(egress.UpstreamURL(up.ProxyURL("us@er")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := egress.New(egress.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Open("u", way[0])
	a, b := net.Pipe()
	host, err := line.Host(a)
	if err != nil {
		t.Fatal(err)
	}
	guest, err := line.Guest(b)
	if err != nil {
		t.Fatal(err)
	}
	defer guest.Close()
	served := make(chan error, 1)
	go func() {
		served <- p.Serve(t.Context(), egress.Identity{UserID: "u", MachineID: "m"}, host)
	}()

	conn, err := guest.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The guest's own credentials are not what the upstream gets.
	if _, err := io.WriteString(conn, "CONNECT claude.com:443 HTTP/1.1\r\nHost: claude.com:443\r\nProxy-Authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(up.CAPEM())
	site := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "claude.com", MinVersion: tls.VersionTLS12})
	if _, err := io.WriteString(site, "GET /nothing HTTP/1.1\r\nHost: claude.com\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(site)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404") {
		t.Errorf("%q, %v", answer, err)
	}
	if !slices.ContainsFunc(up.Requests(), func(q idp.Request) bool { return q.TLS && q.Path == "/nothing" && q.ProxyUser == "us@er" }) {
		t.Errorf("the upstream saw %+v", up.Requests())
	}
	p.Close()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
