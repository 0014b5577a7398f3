// Package upstream plays the ports of a commercial proxy, for tests: each has an
// address of its own at which it is found, and one that it leaves from. It
// passes everything on to one server that answers for all destinations, the test
// identity provider, which so sees the address. What can go wrong with such a
// proxy goes wrong on demand.
package upstream

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
	"net/url"
	"strings"
	"sync"
	"time"
)

// Config says how an upstream is started.
type Config struct {
	// Scheme is http (HTTP CONNECT), https (the same over TLS) or socks5.
	Scheme string
	// Certificate is asked for the certificate of Address's host, with https.
	Certificate func(host string) (*tls.Certificate, error)
	// Address is where it listens, and Listen how.
	Address string
	Listen  func(address string) (net.Listener, error)
	// Exit is the address that it leaves from, and Dial connects from it to the
	// server that answers for all destinations, an HTTP proxy.
	Exit netip.Addr
	Dial func(ctx context.Context, exit netip.Addr) (net.Conn, error)
	// User and Password are what it wants to be told.
	User, Password string
}

// Fault is what is wrong with an upstream. The zero value is nothing.
type Fault struct {
	// Delay is how long it takes before it answers.
	Delay time.Duration
	// Status, if not 0, is answered in place of 200: such as 407.
	Status int
	// Host, if not empty, limits Delay, Status and Half to a name.
	Host string
	// Half has it end its own direction right behind the answer. It goes on
	// reading.
	Half bool
	// Times is how often the fault strikes; 0: until another is set.
	Times int
}

// Destinations that an upstream answers for by itself, with bytes and no TLS, on
// every port.
const (
	// Greeter speaks first: Greeting, in the same write as the answer to the
	// CONNECT, and then ends its direction.
	Greeter  = "greeter.example.com"
	Greeting = "greetings, before you say a word\n"
	// Echoer sends everything back once the client has ended its direction.
	Echoer = "echoer.example.com"
)

// Asked is one connection that an upstream was asked for.
type Asked struct {
	To    string // host:port as it was asked for
	User  string // by whom, if that was told
	Taken bool   // it was connected
}

// Server is a running upstream. Its methods may be called concurrently.
type Server struct {
	cfg  Config
	work sync.WaitGroup
	ctx  context.Context // ends at Close
	end  context.CancelFunc

	mu       sync.Mutex
	listener net.Listener // nil while it is dead
	conns    map[net.Conn]struct{}
	exit     netip.Addr
	fault    Fault
	asked    []Asked
}

// Start starts an upstream. It must be closed.
func Start(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, exit: cfg.Exit, conns: map[net.Conn]struct{}{}}
	s.ctx, s.end = context.WithCancel(context.Background())
	if err := s.Revive(); err != nil {
		return nil, err
	}
	return s, nil
}

// URL is how the upstream is written in a configuration, credentials included.
func (s *Server) URL() string {
	u := url.URL{Scheme: s.cfg.Scheme, Host: s.cfg.Address}
	// Everything that can be encoded is: Go's own leaves some as they are.
	return strings.Replace(u.String(), "://", "://"+encode(s.cfg.User)+":"+encode(s.cfg.Password)+"@", 1)
}

func encode(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		fmt.Fprintf(&out, "%%%02X", b)
	}
	return out.String()
}

// Address is where it listens.
func (s *Server) Address() netip.AddrPort { return netip.MustParseAddrPort(s.cfg.Address) }

// Exit is the address that it leaves from now.
func (s *Server) Exit() netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exit
}

// SetExit has it leave from another address from the next connection on.
func (s *Server) SetExit(a netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exit = a
}

// SetFault sets what is wrong from the next connection on.
func (s *Server) SetFault(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

// Asked returns what it was asked for so far.
func (s *Server) Asked() []Asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Asked(nil), s.asked...)
}

// Open is how many connections it has.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Die has it end all connections, without a word, and listen no more.
func (s *Server) Die() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		_ = s.listener.Close()
		s.listener = nil
	}
	for c := range s.conns {
		if t, ok := c.(*tls.Conn); ok {
			c = t.NetConn()
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset
		}
		_ = c.Close()
	}
}

// Revive has it listen again.
func (s *Server) Revive() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil || s.ctx.Err() != nil {
		return nil
	}
	l, err := s.cfg.Listen(s.cfg.Address)
	if err != nil {
		return fmt.Errorf("upstream: %w", err)
	}
	if s.cfg.Scheme == "https" {
		l = tls.NewListener(l, &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return s.cfg.Certificate(s.Address().Addr().String())
			},
		})
	}
	s.listener = l
	s.work.Go(func() { s.accept(l) })
	return nil
}

// Close ends it, and returns when nothing of it runs any more.
func (s *Server) Close() error {
	s.end()
	s.Die()
	s.work.Wait()
	return nil
}

func (s *Server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.work.Go(func() {
			defer s.forget(conn)
			if s.hold(conn, l) {
				s.serve(conn)
			}
		})
	}
}

// hold notes a connection, so that it ends when the upstream dies. It may have
// died since that was accepted.
func (s *Server) hold(c net.Conn, of net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
	return s.listener == of || of == nil && s.listener != nil
}

func (s *Server) forget(c net.Conn) {
	_ = c.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// headTime is how long a client may take to say what it wants.
const headTime = 10 * time.Second

func (s *Server) serve(conn net.Conn) {
	_ = conn.SetReadDeadline(time.Now().Add(headTime))
	br := bufio.NewReader(conn)
	read := s.readConnect
	if s.cfg.Scheme == "socks5" {
		read = s.readSOCKS
	}
	ask, err := read(conn, br)
	if err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	host, _, err := net.SplitHostPort(ask.to)
	if err != nil {
		_ = ask.answer(http.StatusBadRequest, "")
		return
	}
	fault := s.strike(host)
	if fault.Delay > 0 && !s.wait(fault.Delay) {
		return
	}
	status := fault.Status
	if status == 0 && !ask.known {
		status = http.StatusProxyAuthRequired
	}
	if status != 0 {
		s.note(ask, false)
		_ = ask.answer(status, "")
		return
	}
	if ask.plain != nil {
		s.pass(conn, ask)
		return
	}
	s.connect(conn, br, ask, host, fault.Half)
}

// pass passes a plain request on, and its answer back.
func (s *Server) pass(conn net.Conn, a ask) {
	out, err := s.cfg.Dial(s.ctx, s.Exit())
	if err != nil {
		s.note(a, false)
		_ = a.answer(http.StatusBadGateway, "")
		return
	}
	defer s.forget(out)
	if !s.hold(out, nil) {
		return
	}
	s.note(a, true)
	a.plain.Header.Del("Proxy-Authorization")
	a.plain.Close = true
	if a.plain.WriteProxy(out) == nil {
		_, _ = io.Copy(conn, out)
	}
}

// strike returns what is wrong for a connection to a host.
func (s *Server) strike(host string) Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.fault
	if f.Host != "" && f.Host != host {
		return Fault{}
	}
	if s.fault.Times > 0 {
		if s.fault.Times--; s.fault.Times == 0 {
			s.fault = Fault{}
		}
	}
	return f
}

func (s *Server) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func (s *Server) note(a ask, taken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, Asked{To: a.to, User: a.user, Taken: taken})
}

// connect passes a connection on, or answers for the destination.
func (s *Server) connect(conn net.Conn, br *bufio.Reader, a ask, host string, half bool) {
	switch host {
	case Greeter:
		s.note(a, true)
		if a.answer(http.StatusOK, Greeting) == nil {
			closeWrite(conn)
			_, _ = io.Copy(io.Discard, br)
		}
		return
	case Echoer:
		s.note(a, true)
		if a.answer(http.StatusOK, "") == nil {
			text, _ := io.ReadAll(io.LimitReader(br, 1<<20))
			_, _ = conn.Write(text)
		}
		return
	}
	out, err := s.reach(a.to)
	if err != nil {
		s.note(a, false)
		status := http.StatusBadGateway
		var refused refusedError
		if errors.As(err, &refused) {
			status = int(refused)
		}
		_ = a.answer(status, "")
		return
	}
	defer s.forget(out)
	if !s.hold(out, nil) {
		return
	}
	s.note(a, true)
	if a.answer(http.StatusOK, "") != nil {
		return
	}
	if half {
		closeWrite(conn)
		_, _ = io.Copy(out, br)
		return
	}
	join(conn, br, out)
}

// refusedError is the status with which the destinations' server said no.
type refusedError int

func (r refusedError) Error() string { return fmt.Sprintf("upstream: refused with %d", int(r)) }

// reach asks the destinations' server for one.
func (s *Server) reach(to string) (net.Conn, error) {
	conn, err := s.cfg.Dial(s.ctx, s.Exit())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err = fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", to, to); err == nil {
		var resp *http.Response
		// Inside the tunnel the client speaks first: nothing is read ahead.
		resp, err = http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // it has none
		if err == nil && resp.StatusCode != http.StatusOK {
			err = refusedError(resp.StatusCode)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// join copies both ways until both directions have ended, and hands the end of
// each on. An error ends both. br is what conn sends.
func join(conn net.Conn, br io.Reader, out net.Conn) {
	var both sync.WaitGroup
	oneWay := func(dst net.Conn, src io.Reader) {
		if _, err := io.Copy(dst, src); err != nil {
			_ = conn.Close()
			_ = out.Close()
			return
		}
		closeWrite(dst)
	}
	both.Go(func() { oneWay(out, br) })
	both.Go(func() { oneWay(conn, out) })
	both.Wait()
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
