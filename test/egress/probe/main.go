// Command probe runs inside a machine, for tests: it tries, all at once, every
// way out that it is told of, and says what came of each.
//
//	probe < cases.json > results.json
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"
)

// try is one way out.
type try struct {
	Name string
	// Do says what is tried; see tries.
	Do string
	// To is an address or URL, and Say what is sent there, or looked up.
	To, Say string
}

// result is what came of it: Got is what arrived, Err what went wrong.
type result struct{ Name, Got, Err string }

const (
	proxyAddress = "127.0.0.1:3128"
	// tryTime limits each.
	tryTime = 5 * time.Second
	// maxGot is how much of an answer is told.
	maxGot = 2 << 10
)

// tries are what can be tried.
var tries = map[string]func(ctx context.Context, t try) (string, error){
	"proxy":  throughProxy,
	"inside": insideTunnel,
	"get":    func(ctx context.Context, t try) (string, error) { return get(ctx, t, http.ProxyFromEnvironment) },
	"direct": func(ctx context.Context, t try) (string, error) { return get(ctx, t, nil) },
	"tcp":    func(ctx context.Context, t try) (string, error) { return exchange(ctx, "tcp", t) },
	"udp":    func(ctx context.Context, t try) (string, error) { return exchange(ctx, "udp", t) },
	"dns":    lookUp,
	"socket": rawSocket,
	"hold":   hold,
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var all []try
	if err := json.NewDecoder(in).Decode(&all); err != nil {
		return err
	}
	results := make([]result, len(all))
	var work sync.WaitGroup
	for i, t := range all {
		work.Go(func() { results[i] = attempt(t) })
	}
	work.Wait()
	return json.NewEncoder(out).Encode(results)
}

func attempt(t try) result {
	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	r := result{Name: t.Name}
	do, ok := tries[t.Do]
	if !ok {
		r.Err = "there is no " + t.Do
		return r
	}
	got, err := do(ctx, t)
	r.Got = got
	if err != nil {
		r.Err = err.Error()
	}
	return r
}

// dial connects, with the try's time as the connection's.
func dial(ctx context.Context, network, to string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	end, _ := ctx.Deadline()
	return c, c.SetDeadline(end)
}

func readAll(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxGot))
	return string(b), err
}

// throughProxy sends Say to the proxy, as it is, and ends its direction.
func throughProxy(ctx context.Context, t try) (string, error) {
	t.To = proxyAddress
	return exchange(ctx, "tcp", t)
}

// exchange sends Say, over TCP ends its direction, and reads.
func exchange(ctx context.Context, network string, t try) (string, error) {
	c, err := dial(ctx, network, t.To)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, t.Say); err != nil {
		return "", err
	}
	if h, ok := c.(*net.TCPConn); ok {
		if err := h.CloseWrite(); err != nil {
			return "", err
		}
		return readAll(c)
	}
	b := make([]byte, maxGot)
	n, err := c.Read(b)
	return string(b[:n]), err
}

// insideTunnel sends a CONNECT to the proxy, with the header lines Say, and gets
// /json of To, a name, by TLS inside.
func insideTunnel(ctx context.Context, t try) (string, error) {
	c, err := dial(ctx, "tcp", proxyAddress)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n%s\r\n", t.To, t.To, t.Say); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Status, nil
	}
	s := tls.Client(c, &tls.Config{ServerName: t.To, MinVersion: tls.VersionTLS12})
	if _, err := fmt.Fprintf(s, "GET /json HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n%s\r\n", t.To, t.Say); err != nil {
		return "", err
	}
	return readAll(s)
}

// get gets To, with the header lines Say.
func get(ctx context.Context, t try, proxy func(*http.Request) (*url.URL, error)) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.To, nil)
	if err != nil {
		return "", err
	}
	for line := range strings.SplitSeq(t.Say, "\r\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			req.Header.Set(name, value)
		}
	}
	client := &http.Client{Transport: &http.Transport{Proxy: proxy, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := readAll(resp.Body)
	return resp.Status + "\n" + body, err
}

// lookUp asks the resolver To, as "udp 8.8.8.8:53", or the machine's own if that
// is empty, for the addresses of Say.
func lookUp(ctx context.Context, t try) (string, error) {
	r := &net.Resolver{PreferGo: true}
	if network, server, ok := strings.Cut(t.To, " "); ok {
		r.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, network, server) }
	}
	all, err := r.LookupHost(ctx, t.Say)
	return strings.Join(all, " "), err
}

// hold opens a tunnel to To and stays in it until somebody else ends it, for
// longer than a try may take.
func hold(ctx context.Context, t try) (string, error) {
	c, err := dial(ctx, "tcp", proxyAddress)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", t.To, t.To); err != nil {
		return "", err
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return "", err
	}
	return readAll(c)
}
