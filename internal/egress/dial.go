package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

const (
	// maxAddresses is how many addresses of one name are looked at.
	maxAddresses = 32
	// maxInformational is how many 1xx answers an upstream may send first.
	maxInformational = 4
	// perAddress is how long one of several addresses is tried.
	perAddress = 5 * time.Second
)

// reach connects to a target in the way that is chosen for id, within
// ConnectTimeout. Every error has a Code.
func (p *Proxy) reach(ctx context.Context, id Identity, t target) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ConnectTimeout)
	defer cancel()
	up, err := p.choose(ctx, id)
	if err != nil {
		return nil, err
	}
	if up.direct {
		return p.dialDirect(ctx, t)
	}
	return p.dialThrough(ctx, up, t)
}

// choose asks for the way out. There is no other if it fails.
func (p *Proxy) choose(ctx context.Context, id Identity) (Upstream, error) {
	up, err := p.upstream.UpstreamFor(ctx, id)
	if err != nil {
		return Upstream{}, &Error{Code: NoUpstream, Err: err}
	}
	if !up.direct && up.addr == "" {
		return Upstream{}, refusal(NoUpstream, "the selector gave none")
	}
	return up, nil
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

// dialThrough asks a forward proxy for the target, whose name it resolves.
func (p *Proxy) dialThrough(ctx context.Context, up Upstream, t target) (net.Conn, error) {
	conn, err := p.dialUpstream(ctx, up)
	if err != nil {
		return nil, err
	}
	stop := onEnd(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	br, err := connect(conn, up, t)
	stop()
	if ctx.Err() != nil { // the deadline may be on the connection by now
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, &Error{Code: codeOf(err, UpstreamUnreachable), Err: err}
	}
	if br.Buffered() == 0 {
		return conn, nil
	}
	return &aheadConn{Conn: conn, r: br}, nil
}

func (p *Proxy) dialUpstream(ctx context.Context, up Upstream) (net.Conn, error) {
	conn, err := p.net.dial(ctx, "tcp", up.addr)
	if err != nil {
		return nil, &Error{Code: codeOf(err, UpstreamUnreachable), Err: err}
	}
	return conn, nil
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
