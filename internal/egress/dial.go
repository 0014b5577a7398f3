package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/proxy"
)

const (
	// maxAddresses is how many addresses of one name are looked at.
	maxAddresses = 32
	// maxInformational is how many 1xx answers an upstream may send first.
	maxInformational = 4
	// upstreamTime is how long it may take to reach an upstream itself.
	upstreamTime = 10 * time.Second
	// perAddress is how long one of several addresses is tried.
	perAddress = 5 * time.Second
)

// reach connects to a target by a way out, within ConnectTimeout. Every error
// has a Code.
func (p *Proxy) reach(ctx context.Context, up Upstream, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	switch {
	case up.direct:
		return p.dialDirect(ctx, t)
	case up.host == "":
		return nil, refusal(NoUpstream, "there is none")
	}
	return p.dialThrough(ctx, up, t)
}

// dialDirect resolves, judges every address, and dials exactly those that it
// judged: a name that resolves to anything refused is refused as a whole.
func (p *Proxy) dialDirect(ctx context.Context, t target) (net.Conn, error) {
	addrs := []netip.Addr{t.addr}
	if !t.addr.IsValid() {
		var err error
		// The dot keeps search domains out of it.
		if addrs, err = p.net.resolve(ctx, "ip", t.host+"."); err != nil {
			return nil, &Error{Code: codeOf(err, ResolveFailed), Err: err}
		}
	}
	if len(addrs) == 0 || len(addrs) > maxAddresses {
		return nil, refusal(ResolveFailed, "%d addresses", len(addrs))
	}
	own, err := p.net.own()
	if err != nil {
		return nil, &Error{Code: AddressRefused, Err: fmt.Errorf("this host's own addresses are not known: %w", err)}
	}
	for i, a := range addrs {
		a = a.Unmap()
		if !publicAddr(a) || slices.Contains(own, a) {
			return nil, refusal(AddressRefused, "the name leads to an address that is not public, or to this host")
		}
		addrs[i] = a
	}
	// IPv4 first: a host without IPv6 would lose time.
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	var last error
	for i, a := range addrs {
		conn, err := p.dialAddr(ctx, netip.AddrPortFrom(a, t.port), i == len(addrs)-1)
		if err == nil {
			return conn, nil
		}
		if last = err; ctx.Err() != nil {
			break
		}
	}
	return nil, &Error{Code: codeOf(last, ConnectFailed), Err: last}
}

// dialAddr dials one address that was judged, and checks that the connection
// leads there.
func (p *Proxy) dialAddr(ctx context.Context, to netip.AddrPort, isLast bool) (net.Conn, error) {
	if !isLast {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, perAddress)
		defer cancel()
	}
	conn, err := p.net.dial(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	got, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil || got.Addr().Unmap() != to.Addr() || got.Port() != to.Port() {
		_ = conn.Close()
		return nil, refusal(AddressRefused, "the connection leads elsewhere")
	}
	return conn, nil
}

// dialThrough asks a proxy for the target, whose name it resolves.
func (p *Proxy) dialThrough(ctx context.Context, up Upstream, t target) (net.Conn, error) {
	began := time.Now()
	done, err := p.askUpstream(up)
	if err != nil {
		return nil, err
	}
	conn, err := p.dialUpstream(ctx, up)
	if err != nil {
		done(began, err, false)
		return nil, err
	}
	stop := onEnd(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	out, err := inquire(ctx, conn, up, t)
	stop()
	if ctx.Err() != nil { // the deadline may be on the connection by now
		err = ctx.Err()
	}
	done(began, err, true)
	if err != nil {
		_ = conn.Close()
		return nil, &Error{Code: codeOf(err, UpstreamUnreachable), Err: err}
	}
	return out, nil
}

// inquire asks an upstream for one target in its protocol.
func inquire(ctx context.Context, conn net.Conn, up Upstream, t target) (net.Conn, error) {
	if up.scheme == schemeSOCKS {
		return conn, socks(ctx, conn, up, t)
	}
	br, err := connect(conn, up, t)
	if err != nil {
		return nil, err
	}
	if br.Buffered() == 0 {
		return conn, nil
	}
	return &aheadConn{Conn: conn, r: br}, nil
}

// askUpstream says whether an upstream may be tried now. The caller tells done
// when it began, how that ended, and whether the upstream itself was reached.
func (p *Proxy) askUpstream(up Upstream) (done func(began time.Time, err error, reached bool), err error) {
	h := p.healthOf(up)
	if err := h.ask(time.Now()); err != nil {
		p.metrics.upstream(up, UpstreamResting, 0)
		return nil, err
	}
	return func(began time.Time, err error, reached bool) {
		v, code := judge(err, reached), Allowed
		if err != nil {
			code = codeOf(err, UpstreamUnreachable)
		}
		p.metrics.upstream(up, code, time.Since(began))
		if h.tell(time.Now(), v) {
			p.healthChanged(up, v == works, code)
		}
	}, nil
}

func (p *Proxy) healthChanged(up Upstream, works bool, code Code) {
	if works {
		p.log.Info("upstream works again", "upstream", up.Addr())
	} else {
		p.log.Warn("upstream fails; it is tried again after waits that grow", "upstream", up.Addr(), "why", code)
	}
	if p.cfg.Health != nil {
		p.cfg.Health(up, works)
	}
}

// dialUpstream connects to the proxy itself, with TLS where it wants that.
func (p *Proxy) dialUpstream(ctx context.Context, up Upstream) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTime)
	defer cancel()
	conn, err := p.net.dial(ctx, "tcp", up.Addr())
	if err != nil {
		return nil, &Error{Code: codeOf(err, UpstreamUnreachable), Err: err}
	}
	if up.scheme != schemeHTTPS {
		return conn, nil
	}
	secure := tls.Client(conn, p.tlsConfig(up.host))
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, &Error{Code: codeOf(err, UpstreamUnreachable), Err: err}
	}
	return secure, nil
}

// tlsConfig is for what this host itself speaks TLS with.
func (p *Proxy) tlsConfig(name string) *tls.Config {
	return &tls.Config{ServerName: name, RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12}
}

// socks asks a SOCKS5 proxy (RFC 1928, RFC 1929), which resolves the name.
func socks(ctx context.Context, conn net.Conn, up Upstream, t target) error {
	var auth *proxy.Auth
	if up.auth {
		auth = &proxy.Auth{User: up.user, Password: up.pass}
	}
	d, err := proxy.SOCKS5("tcp", up.Addr(), auth, here{conn})
	if err != nil {
		return err
	}
	_, err = d.(proxy.ContextDialer).DialContext(ctx, "tcp", t.hostport()) //nolint:errcheck // it is one
	return socksError(err)
}

// here is a dialer whose one connection is there already.
type here struct{ net.Conn }

func (h here) Dial(string, string) (net.Conn, error) { return h.Conn, nil }
func (h here) DialContext(context.Context, string, string) (net.Conn, error) {
	return h.Conn, nil
}

// socksError gives what the library says in words its code.
func socksError(err error) error {
	var ne net.Error
	var op *net.OpError
	switch {
	case err == nil, errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.Canceled):
		return err
	case !errors.As(err, &op), op.Err == nil:
		return &Error{Code: UpstreamProtocol, Err: err}
	}
	words := op.Err.Error()
	switch {
	case strings.Contains(words, "username/password"), strings.Contains(words, "authentication"):
		return refusal(UpstreamAuth, "the upstream did not take the credentials")
	case strings.HasPrefix(words, "unknown error "):
		return refusal(UpstreamRefused, "the upstream answered %s", strings.TrimPrefix(words, "unknown error "))
	case errors.Is(op.Err, io.EOF), errors.Is(op.Err, io.ErrUnexpectedEOF):
		return refusal(UpstreamProtocol, "the upstream ended the connection instead of answering")
	}
	return &Error{Code: UpstreamProtocol, Err: op.Err}
}

// connect speaks the CONNECT exchange. The reader holds what the destination
// sent right behind the answer.
func connect(conn net.Conn, up Upstream, t target) (*bufio.Reader, error) {
	head := "CONNECT " + t.hostport() + " HTTP/1.1\r\nHost: " + t.hostport() + "\r\n"
	if auth := up.authorization(); auth != "" {
		head += "Proxy-Authorization: " + auth + "\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		return nil, err
	}
	br := bufio.NewReaderSize(conn, MaxHeaderBytes)
	for range maxInformational + 1 {
		if _, err := waitHead(br, UpstreamProtocol); err != nil {
			if errors.Is(err, io.EOF) {
				err = refusal(UpstreamProtocol, "the upstream ended the connection instead of answering")
			}
			return nil, err
		}
		// The answer has no body, whatever its headers say (RFC 9110, 9.3.6).
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // there is none
		if err != nil {
			return nil, &Error{Code: UpstreamProtocol, Err: errors.New("the upstream's answer does not parse")}
		}
		switch s := resp.StatusCode; {
		case s >= 100 && s < 200 && s != http.StatusSwitchingProtocols:
			continue
		case s >= 200 && s < 300:
			return br, nil
		case s == http.StatusProxyAuthRequired:
			return nil, refusal(UpstreamAuth, "the upstream did not take the credentials")
		default:
			return nil, refusal(UpstreamRefused, "the upstream answered %s", strconv.Itoa(s))
		}
	}
	return nil, refusal(UpstreamProtocol, "too many informational answers")
}

// aheadConn is a connection of which something has been read ahead.
type aheadConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *aheadConn) Read(b []byte) (int, error) { return c.r.Read(b) }

// CloseWrite ends the sending direction.
func (c *aheadConn) CloseWrite() error {
	closeWrite(c.Conn)
	return nil
}
