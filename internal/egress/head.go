package egress

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
)

var headEnd = []byte("\r\n\r\n")

// waitHead waits until a whole head is buffered in br and returns it without
// taking it out. br's size is the limit. The bytes are good until br is read.
func waitHead(br *bufio.Reader, tooLarge Code) ([]byte, error) {
	for seen := 0; ; {
		buf, _ := br.Peek(br.Buffered())
		from := max(0, seen-len(headEnd)+1)
		if i := bytes.Index(buf[from:], headEnd); i >= 0 {
			return buf[:from+i+len(headEnd)], nil
		}
		if seen = len(buf); seen >= br.Size() {
			return nil, &Error{Code: tooLarge}
		}
		if _, err := br.Peek(seen + 1); err != nil {
			return nil, err
		}
	}
}

// readRequest reads one proxy request. What two programs could read in two
// ways is refused before net/http sees it. asked is the target as the guest
// wrote it, of a request that is refused too; "" if none can be told.
func readRequest(br *bufio.Reader) (req *http.Request, asked string, err error) {
	head, err := waitHead(br, HeaderTooLarge)
	if err != nil {
		head, _ = br.Peek(br.Buffered())
		return nil, askedIn(head), err
	}
	asked = askedIn(head)
	if err := checkHead(head); err != nil {
		return nil, asked, err
	}
	if req, err = http.ReadRequest(br); err != nil {
		// The error quotes what the guest sent, which does not belong in a log.
		return nil, asked, refusal(BadRequest, "net/http did not take it")
	}
	return req, asked, nil
}

// askedIn is the target in a request's head, of which the end may be missing.
func askedIn(head []byte) string {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	method, rest, _ := strings.Cut(string(line), " ")
	asked, _, _ := strings.Cut(rest, " ")
	if !isToken(method) {
		return ""
	}
	return asked
}

// checkHead holds a request head to the strictest reading of RFC 9112: one
// kind of line end, no folded lines, no two statements about where the body
// ends.
func checkHead(head []byte) error {
	lines := strings.Split(string(head[:len(head)-len(headEnd)]), "\r\n")
	if err := checkRequestLine(lines[0]); err != nil {
		return err
	}
	seen := make(map[string]int)
	var length, coding string
	for _, line := range lines[1:] {
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return refusal(BadRequest, "a header line has no name")
		}
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			return refusal(BadRequest, "a header has a control character")
		}
		name, value = strings.ToLower(name), strings.Trim(value, " \t")
		seen[name]++
		switch name {
		case "content-length":
			length = value
		case "transfer-encoding":
			coding = value
		}
	}
	switch {
	case seen["host"] > 1 || seen["content-length"] > 1 || seen["transfer-encoding"] > 1:
		return refusal(BadRequest, "a header that there is one of comes twice")
	case seen["content-length"] > 0 && seen["transfer-encoding"] > 0:
		return refusal(BadRequest, "both Content-Length and Transfer-Encoding")
	case seen["transfer-encoding"] > 0 && !strings.EqualFold(coding, "chunked"):
		return refusal(BadRequest, "a transfer coding other than chunked")
	case seen["content-length"] > 0 && (length == "" || strings.Trim(length, "0123456789") != ""):
		return refusal(BadRequest, "the Content-Length is not a number")
	case strings.HasPrefix(lines[0], http.MethodConnect+" ") && (coding != "" || strings.Trim(length, "0") != ""):
		return refusal(BadRequest, "a CONNECT with a body")
	}
	return nil
}

// checkRequestLine takes "METHOD target HTTP/1.1"; a CONNECT may be of
// HTTP/1.0, which some clients still send.
func checkRequestLine(line string) error {
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" {
		return refusal(BadRequest, "the request line is malformed")
	}
	if strings.ContainsFunc(parts[1], func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '#' || r == '\\' }) {
		return refusal(BadTarget, "the target has a character that must be encoded")
	}
	if parts[2] != "HTTP/1.1" && (parts[2] != "HTTP/1.0" || parts[0] != http.MethodConnect) {
		return refusal(BadRequest, "the protocol version is not HTTP/1.1")
	}
	return nil
}

// isToken says whether s is a token of RFC 9110, 5.6.2.
func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// dropHopByHop removes the headers that are about one connection only, those
// that Connection names, everything that begins with Proxy-, and this proxy's
// own Header.
func dropHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.Trim(name, " \t"))
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "Proxy-") {
			delete(h, name)
		}
	}
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Max-Forwards", Header} {
		h.Del(name)
	}
}
