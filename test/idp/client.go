package idp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client returns an HTTP client that behaves as a browser does behind the
// proxy: it trusts the test CA, sends everything but loopback through the
// proxy as the named proxy user, and follows redirects. The caller closes its
// idle connections when done.
func (s *Server) Client(proxyUser string) (*http.Client, error) {
	proxy, err := url.Parse(s.ProxyURL(proxyUser))
	if err != nil {
		return nil, fmt.Errorf("idp: proxy URL: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(s.ca.cert)
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			Proxy: func(r *http.Request) (*url.URL, error) {
				if h := r.URL.Hostname(); h == "localhost" || h == "127.0.0.1" || h == "::1" {
					return nil, nil
				}
				return proxy, nil
			},
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		},
	}, nil
}

// ErrSignIn says that the page did not take the sign-in.
var ErrSignIn = errors.New("idp: the sign-in page said no")

// SignIn does what a person does on the sign-in page at pageURL: opens it,
// sends its form, and follows where it leads, which is the tool's own loopback
// address. It returns the address of the last page. The error is ErrSignIn if
// the page refused.
func SignIn(ctx context.Context, c *http.Client, pageURL, email, password string) (last string, err error) {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, pageURL, nil)
	if err != nil {
		return "", fmt.Errorf("idp: sign in: %w", err)
	}
	body, _, err := fetch(c, get)
	if err != nil {
		return "", err
	}
	if !strings.Contains(body, `name="password"`) {
		return "", fmt.Errorf("%w: it shows no form", ErrSignIn)
	}
	form := url.Values{"email": {email}, "password": {password}}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, pageURL, strings.NewReader(form.Encode()))
	if err != nil {
		return "", fmt.Errorf("idp: sign in: %w", err)
	}
	post.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	_, last, err = fetch(c, post)
	return last, err
}

func fetch(c *http.Client, req *http.Request) (body, last string, err error) {
	resp, err := c.Do(req)
	if err != nil {
		return "", "", fmt.Errorf("idp: sign in: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", "", fmt.Errorf("idp: sign in: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return "", "", fmt.Errorf("%w: %s", ErrSignIn, resp.Status)
	}
	return string(raw), resp.Request.URL.Redacted(), nil
}
