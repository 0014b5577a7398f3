package egress

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"
)

func TestReadRequest(t *testing.T) {
	const get = "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n"
	for _, tc := range []struct {
		name, in string
		code     Code // empty: it is taken
	}{
		{"connect", "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n", ""},
		{"connect of 1.0", "CONNECT example.com:443 HTTP/1.0\r\n\r\n", ""},
		{"connect with an empty body", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", ""},
		{"get", get + "\r\n", ""},
		{"a length", get + "Content-Length: 3\r\n\r\nabc", ""},
		{"chunked", get + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", ""},

		{"both length and coding", get + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
		{"two lengths", get + "Content-Length: 3\r\nContent-Length: 3\r\n\r\n", BadRequest},
		{"two lengths in one", get + "Content-Length: 3, 3\r\n\r\n", BadRequest},
		{"a signed length", get + "Content-Length: +3\r\n\r\n", BadRequest},
		{"a hexadecimal length", get + "Content-Length: 0x3\r\n\r\n", BadRequest},
		{"no length", get + "Content-Length:\r\n\r\n", BadRequest},
		{"two codings", get + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
		{"a list of codings", get + "Transfer-Encoding: gzip, chunked\r\n\r\n", BadRequest},
		{"an unknown coding", get + "Transfer-Encoding: xchunked\r\n\r\n", BadRequest},
		{"a coding with a tab", get + "Transfer-Encoding: \x0bchunked\r\n\r\n", BadRequest},
		{"a space before the colon", get + "Transfer-Encoding : chunked\r\n\r\n", BadRequest},
		{"a folded line", get + "X-A: b\r\n c\r\n\r\n", BadRequest},
		{"a folded coding", get + "Transfer-Encoding:\r\n chunked\r\n\r\n", BadRequest},
		{"a bare newline", get + "X-A: b\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
		{"a bare return", get + "X-A: b\rc\r\n\r\n", BadRequest},
		{"a null", get + "X-A: b\x00c\r\n\r\n", BadRequest},
		{"no name", get + ": b\r\n\r\n", BadRequest},
		{"no colon", get + "b\r\n\r\n", BadRequest},
		{"two hosts", get + "Host: b\r\n\r\n", BadRequest},
		{"connect with a body", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", BadRequest},
		{"connect with chunks", "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", BadRequest},
		{"version 1.0", "GET http://example.com/ HTTP/1.0\r\n\r\n", BadRequest},
		{"version 2.0", "PRI * HTTP/2.0\r\n\r\n", BadRequest},
		{"version 0.9", "GET http://example.com/\r\n\r\n", BadRequest},
		{"two spaces", "GET  http://example.com/ HTTP/1.1\r\n\r\n", BadRequest},
		{"a leading space", " GET http://example.com/ HTTP/1.1\r\n\r\n", BadRequest},
		{"a leading empty line", "\r\n" + get + "\r\n", BadRequest},
		{"a method that is no token", "G(T http://example.com/ HTTP/1.1\r\n\r\n", BadRequest},
		{"a fragment", "GET http://example.com/#x HTTP/1.1\r\n\r\n", BadTarget},
		{"a backslash", "GET http://example.com\\@evil/ HTTP/1.1\r\n\r\n", BadTarget},
		{"not ASCII", "GET http://ex\u00e4mple.com/ HTTP/1.1\r\n\r\n", BadTarget},
		{"a tab in the target", "GET http://example.com/\ta HTTP/1.1\r\n\r\n", BadTarget},
		{"TLS", "\x16\x03\x01\x02\x00\x01\r\n\r\n", BadRequest},
		{"too large", get + "X-A: " + strings.Repeat("a", MaxHeaderBytes) + "\r\n\r\n", HeaderTooLarge},
		{"too large without an end", strings.Repeat("a", MaxHeaderBytes+1), HeaderTooLarge},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := readRequest(bufio.NewReaderSize(strings.NewReader(tc.in), MaxHeaderBytes))
			if got := codeOf(err, "?"); tc.code == "" && err != nil || tc.code != "" && got != tc.code {
				t.Errorf("got %v, want %q", err, tc.code)
			}
		})
	}
}

func TestReadRequestTakesNothingMore(t *testing.T) {
	br := bufio.NewReaderSize(strings.NewReader("CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\nTLS"), MaxHeaderBytes)
	if _, _, err := readRequest(br); err != nil {
		t.Fatal(err)
	}
	rest, err := br.Peek(3)
	if err != nil || string(rest) != "TLS" {
		t.Errorf("behind the head there is %q, %v", rest, err)
	}
}

func TestDropHopByHop(t *testing.T) {
	h := http.Header{
		"Connection": {"close, X-Private", "x-also"}, "X-Private": {"1"}, "X-Also": {"1"}, "X-Kept": {"1"},
		"Proxy-Authorization": {"Basic x"}, "Proxy-Connection": {"keep-alive"}, "Proxy-Anything": {"1"},
		"Keep-Alive": {"1"}, "Te": {"trailers"}, "Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Upgrade": {"h2c"},
		"Max-Forwards": {"0"}, Header: {"allowed"},
	}
	dropHopByHop(h)
	if len(h) != 1 || h.Get("X-Kept") != "1" {
		t.Errorf("left: %v", h)
	}
}

// A head that is taken must be the one that net/http reads, to the byte.
func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST http://example.com/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("POST http://example.com/ HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"))
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReaderSize(bytes.NewReader(in), MaxHeaderBytes)
		req, _, err := readRequest(br)
		if err != nil {
			return
		}
		if len(req.TransferEncoding) > 0 && req.ContentLength != -1 {
			t.Fatalf("two lengths: %v %d", req.TransferEncoding, req.ContentLength)
		}
		end := bytes.Index(in, headEnd) + len(headEnd)
		if got := len(in) - br.Buffered(); len(in) <= MaxHeaderBytes && got != end {
			t.Fatalf("the head ends at %d, but %d bytes are gone", end, got)
		}
	})
}
