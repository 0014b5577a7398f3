package upstream

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// ask is what a client wants, and how it is answered.
type ask struct {
	to    string // host:port
	user  string
	known bool // the credentials are right
	// answer writes the answer, by the status of HTTP, with more bytes right
	// behind it.
	answer func(status int, more string) error
	// plain, if not nil, is a request that is to be passed on as it is.
	plain *http.Request
}

func (s *Server) readConnect(conn net.Conn, br *bufio.Reader) (ask, error) {
	r, err := http.ReadRequest(br)
	if err != nil {
		return ask{}, err
	}
	a := ask{to: r.RequestURI, answer: func(status int, more string) error {
		head := fmt.Sprintf("HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
		if status == http.StatusProxyAuthRequired {
			head += "Proxy-Authenticate: Basic realm=\"test upstream\"\r\nContent-Length: 0\r\n"
		}
		_, err := io.WriteString(conn, head+"\r\n"+more)
		return err
	}}
	if r.Method != http.MethodConnect {
		if !r.URL.IsAbs() || r.URL.Port() != "" {
			return ask{}, errors.Join(errors.New("upstream: not a request for a proxy"), a.answer(http.StatusBadRequest, ""))
		}
		a.to, a.plain = net.JoinHostPort(r.URL.Host, "80"), r
	}
	scheme, encoded, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	if raw, err := base64.StdEncoding.DecodeString(encoded); err == nil && strings.EqualFold(scheme, "Basic") {
		var password string
		a.user, password, _ = strings.Cut(string(raw), ":")
		a.known = a.user == s.cfg.User && password == s.cfg.Password
	}
	return a, nil
}

// What SOCKS5 is made of (RFC 1928, RFC 1929).
const (
	socksVersion     = 5
	socksAuthVersion = 1
	byPassword       = 2
	toName, toIPv4   = 3, 1
	toIPv6           = 4
	socksFailed      = 1
	socksForbidden   = 2
)

func (s *Server) readSOCKS(conn net.Conn, br *bufio.Reader) (ask, error) {
	if err := s.greetSOCKS(conn, br); err != nil {
		return ask{}, err
	}
	a := ask{}
	user, err := readText(br)
	if err != nil {
		return ask{}, err
	}
	password, err := readText(br)
	if err != nil {
		return ask{}, err
	}
	a.user, a.known = user, user == s.cfg.User && password == s.cfg.Password
	if !a.known || s.fails(http.StatusProxyAuthRequired) {
		_, err := conn.Write([]byte{socksAuthVersion, 1})
		return ask{}, errors.Join(errors.New("upstream: not the credentials"), err)
	}
	if _, err := conn.Write([]byte{socksAuthVersion, 0}); err != nil {
		return ask{}, err
	}
	a.to, err = readSOCKSTarget(br)
	a.answer = func(status int, more string) error {
		code := byte(socksFailed)
		switch status {
		case http.StatusOK:
			code = 0
		case http.StatusForbidden:
			code = socksForbidden
		}
		_, err := conn.Write(append([]byte{socksVersion, code, 0, toIPv4, 0, 0, 0, 0, 0, 0}, more...))
		return err
	}
	return a, err
}

// greetSOCKS reads the offered methods, chooses the password and reads up to the
// user name.
func (s *Server) greetSOCKS(conn net.Conn, br *bufio.Reader) error {
	version, err := br.ReadByte()
	if err != nil || version != socksVersion {
		return errors.Join(errors.New("upstream: not SOCKS5"), err)
	}
	methods, err := readText(br)
	if err != nil {
		return err
	}
	if !strings.Contains(methods, string(rune(byPassword))) {
		_, err := conn.Write([]byte{socksVersion, 0xff})
		return errors.Join(errors.New("upstream: no password is offered"), err)
	}
	if _, err := conn.Write([]byte{socksVersion, byPassword}); err != nil {
		return err
	}
	version, err = br.ReadByte()
	if err != nil || version != socksAuthVersion {
		return errors.Join(errors.New("upstream: not the password's exchange"), err)
	}
	return nil
}

// fails says whether the fault that is set is a status.
func (s *Server) fails(status int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault.Status == status
}

// readText reads bytes whose number stands before them.
func readText(br *bufio.Reader) (string, error) {
	n, err := br.ReadByte()
	if err != nil {
		return "", err
	}
	b := make([]byte, n)
	_, err = io.ReadFull(br, b)
	return string(b), err
}

func readSOCKSTarget(br *bufio.Reader) (string, error) {
	var head [4]byte
	if _, err := io.ReadFull(br, head[:]); err != nil {
		return "", err
	}
	var host string
	var err error
	switch head[3] {
	case toName:
		host, err = readText(br)
	case toIPv4, toIPv6:
		b := make([]byte, map[byte]int{toIPv4: net.IPv4len, toIPv6: net.IPv6len}[head[3]])
		_, err = io.ReadFull(br, b)
		host = net.IP(b).String()
	default:
		err = errors.New("upstream: an unknown kind of address")
	}
	if err != nil {
		return "", err
	}
	var port [2]byte
	if _, err := io.ReadFull(br, port[:]); err != nil {
		return "", err
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(port[:])))), nil
}
