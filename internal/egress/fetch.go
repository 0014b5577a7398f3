package egress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// maxFetch is how long a page may be that this host itself asks for.
const maxFetch = 64 << 10

// CheckURL returns ErrConfig unless Fetch can ask for an address.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return fmt.Errorf("%w: it must be an http or https address", ErrConfig)
	}
	if _, err := parseTarget(u.Host, portOf(u)); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

func portOf(u *url.URL) uint16 {
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// Fetch gets a page through an upstream, whatever ways are open: at most 64 KiB
// of an answer with status 200. Redirects are not followed. An *Error where the
// upstream is at fault. Nothing that the page says is in an error.
func (p *Proxy) Fetch(ctx context.Context, up Upstream, raw string) ([]byte, error) {
	if err := CheckURL(raw); err != nil {
		return nil, err
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxResponseHeader,
			TLSClientConfig:        p.tlsConfig(""),
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				t, err := parseTarget(addr, 0)
				if err != nil {
					return nil, err
				}
				return p.reach(ctx, up, t)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, raw, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, text/plain")
	resp, err := client.Do(req)
	if err != nil {
		var e *Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, &Error{Code: codeOf(err, ConnectFailed), Err: errors.Unwrap(err)}
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, refusal(ConnectFailed, "the page answered %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxFetch+1))
	switch {
	case err != nil:
		return nil, &Error{Code: codeOf(err, ConnectFailed), Err: err}
	case len(body) > maxFetch:
		return nil, refusal(ConnectFailed, "the page has more than %d bytes", maxFetch)
	}
	return body, nil
}

// Reaches returns nil if an upstream connects to port 443 of a name, and its
// *Error if not: UpstreamRefused where the upstream itself said no.
func (p *Proxy) Reaches(ctx context.Context, up Upstream, name string) error {
	t, err := parseTarget(name, 443)
	if err != nil {
		return err
	}
	conn, err := p.reach(ctx, up, t)
	if err != nil {
		return err
	}
	_ = conn.Close()
	return nil
}
