package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxResponseHeader is the longest head that a site may answer with.
const maxResponseHeader = 64 << 10

// plain answers an absolute-form request for plain http. Every request of a
// connection is checked and sent by itself; nothing is shared between them.
func (c *guestConn) plain(ctx context.Context, r *request, req *http.Request) (more bool, err error) {
	out, err := c.outgoing(r, req)
	if err != nil {
		c.refuse(codeOf(err, BadRequest))
		return false, err
	}
	if err := c.expect(req); err != nil {
		c.refuse(codeOf(err, BadRequest))
		return false, err
	}
	ctx, stop, err := c.leave(ctx, r)
	if err != nil {
		c.refuse(codeOf(err, NoUpstream))
		return false, err
	}
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dog := newWatchdog(c.proxy.cfg.IdleTimeout, func() {
		cancel(refusal(Timeout, "nothing moved for too long"))
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	})
	defer dog.stop()
	left := &allowance{end: func() { cancel(&Error{Code: TooMuch}) }}
	left.bytes.Store(c.proxy.cfg.MaxBytes)
	body := &guestBody{ReadCloser: out.Body, total: c.proxy.metrics.up, dog: dog, left: left}
	out.Body = body
	defer func() { r.sent = body.n.Load() }()
	if out.ContentLength == 0 {
		out.Body = nil
		body.ended.Store(true)
	}
	resp, err := c.roundTrip(ctx, r.up, out)
	if err != nil {
		c.refuse(codeOf(err, ConnectFailed))
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	// A connection is used again only if the body was read to its end: from
	// anywhere else, what follows would be taken for a request.
	more = body.ended.Load() && !req.Close
	more = c.respond(resp, r, dog, left, !more) && more
	return more, ended(ctx, nil)
}

// outgoing makes the request that leaves from the one that came.
func (c *guestConn) outgoing(r *request, req *http.Request) (*http.Request, error) {
	raw := req.RequestURI
	const scheme = "http://"
	if len(raw) < len(scheme) || !strings.EqualFold(raw[:len(scheme)], scheme) {
		return nil, refusal(BadRequest, "the target is not in absolute form, or not http")
	}
	if req.Method == http.MethodTrace {
		// Whoever answers would send the upstream's credentials back.
		return nil, refusal(BadRequest, "TRACE")
	}
	authority := raw[len(scheme):]
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority = authority[:i]
	}
	t, err := parseTarget(authority, 80)
	if err != nil {
		return nil, err
	}
	r.aim(t)
	host := t.hostport()
	if t.port == 80 {
		host = strings.TrimSuffix(host, ":80")
	}
	out := req.Clone(req.Context())
	out.RequestURI, out.Host, out.Close, out.Trailer, out.TransferEncoding = "", host, false, nil, nil
	out.URL = &url.URL{Scheme: "http", Host: host, Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery, ForceQuery: req.URL.ForceQuery}
	dropHopByHop(out.Header)
	out.Header.Del("Expect")
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil // else net/http would add its own
	}
	return out, nil
}

// expect answers "Expect: 100-continue" at once: the request has been accepted,
// and the site is asked without it.
func (c *guestConn) expect(req *http.Request) error {
	switch e := req.Header.Get("Expect"); {
	case e == "":
		return nil
	case !strings.EqualFold(e, "100-continue"):
		return refusal(BadRequest, "an expectation that is not known")
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerTimeout))
	_, _ = io.WriteString(c.conn, "HTTP/1.1 100 Continue\r\n\r\n")
	_ = c.conn.SetWriteDeadline(time.Time{})
	return nil
}

// roundTrip sends a request by a way out. Every error has a Code.
func (c *guestConn) roundTrip(ctx context.Context, up Upstream, out *http.Request) (*http.Response, error) {
	p := c.proxy
	tr := &http.Transport{
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxResponseHeader,
	}
	fallback := UpstreamUnreachable
	switch {
	case up.scheme == schemeHTTP || up.scheme == schemeHTTPS:
		// Such a proxy is asked for the request itself. The transport believes
		// it to be plain: whether there is TLS is dialUpstream's affair.
		tr.Proxy = http.ProxyURL(&url.URL{Scheme: schemeHTTP, Host: up.Addr()})
		if auth := up.authorization(); auth != "" {
			out.Header.Set("Proxy-Authorization", auth)
		}
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dialForPlain(ctx, up) }
	default:
		if up.direct {
			fallback = ConnectFailed
		}
		tr.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
			t, err := parseTarget(addr, 0)
			if err != nil {
				return nil, err
			}
			return p.reach(ctx, up, t)
		}
	}
	resp, err := tr.RoundTrip(out.WithContext(ctx))
	if err != nil {
		return nil, plainError(ctx, err, fallback)
	}
	if resp.StatusCode == http.StatusProxyAuthRequired {
		_ = resp.Body.Close()
		return nil, refusal(UpstreamAuth, "the upstream did not take the credentials")
	}
	return resp, nil
}

// dialForPlain connects to a proxy that will be asked for a request itself.
func (p *Proxy) dialForPlain(ctx context.Context, up Upstream) (net.Conn, error) {
	began := time.Now()
	done, err := p.askUpstream(up)
	if err != nil {
		return nil, err
	}
	conn, err := p.dialUpstream(ctx, up)
	done(began, err, err == nil)
	return conn, err
}

// plainError gives an error its code. Errors about what a site answered quote
// it, which does not belong in a log.
func plainError(ctx context.Context, err error, fallback Code) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	code := codeOf(err, fallback)
	var known *Error
	var op *net.OpError
	if !errors.As(err, &known) && !errors.As(err, &op) && ctx.Err() == nil {
		err = errors.New("the answer was not understood")
	}
	return &Error{Code: code, Err: err}
}

// respond writes an answer to the guest. It returns false if the connection
// cannot be used any more.
func (c *guestConn) respond(resp *http.Response, r *request, dog *watchdog, left *allowance, last bool) bool {
	dropHopByHop(resp.Header)
	resp.Proto, resp.ProtoMajor, resp.ProtoMinor = "HTTP/1.1", 1, 1
	resp.Close, resp.Trailer, resp.TransferEncoding = last, nil, nil
	if resp.ContentLength < 0 {
		resp.TransferEncoding = []string{"chunked"}
	}
	w := &countingWriter{w: c.conn, total: c.proxy.metrics.down, dog: dog, left: left}
	err := resp.Write(w)
	r.received = w.n
	return err == nil
}

// guestBody is a request's body. It may be read until after the answer.
type guestBody struct {
	io.ReadCloser
	total prometheus.Counter
	dog   *watchdog
	left  *allowance
	n     atomic.Int64
	ended atomic.Bool // read to its end
}

func (b *guestBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.dog.touch()
	if err := b.left.take(n); err != nil {
		return 0, err
	}
	b.n.Add(int64(n))
	b.total.Add(float64(n))
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
	}
	return n, err
}

type countingWriter struct {
	w     io.Writer
	total prometheus.Counter
	dog   *watchdog
	left  *allowance
	n     int64
}

func (w *countingWriter) Write(p []byte) (int, error) {
	if err := w.left.take(len(p)); err != nil {
		return 0, err
	}
	n, err := w.w.Write(p)
	w.dog.touch()
	w.n += int64(n)
	w.total.Add(float64(n))
	return n, err
}
