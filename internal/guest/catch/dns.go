//go:build linux

package catch

import (
	"strings"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/anteroom/anteroom/internal/hostname"
)

const (
	// maxQuery is the longest question that is looked at. One has at most a
	// name of 255 bytes and an option record.
	maxQuery = 1232
	// maxAnswer is how long an answer may be for a program that does not say.
	// Those given here are far shorter.
	maxAnswer = 512
	// answerTTL is how long a program may remember an answer, in seconds.
	answerTTL = 5
)

// answer answers one question about a name: A and AAAA with the name's
// synthetic addresses, whether or not the name is there, which only the way out
// knows; other types with nothing; names that cannot be public with NXDOMAIN.
// What is not one well-formed question is refused with a code, or, if it
// cannot be told whether it is a question at all, with nil: no answer.
func (s *names) answer(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response {
		return nil
	}
	r := reply{header: dnsmessage.Header{
		ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired, RecursionAvailable: true,
	}}
	if h.OpCode != 0 {
		r.header.RCode = dnsmessage.RCodeNotImplemented
		return r.pack()
	}
	var m dnsmessage.Message
	if len(query) > maxQuery || m.Unpack(query) != nil || len(m.Questions) != 1 {
		r.header.RCode = dnsmessage.RCodeFormatError
		return r.pack()
	}
	r.question = &m.Questions[0]
	for _, a := range m.Additionals {
		r.options = r.options || a.Header.Type == dnsmessage.TypeOPT
	}
	s.lookUp(&r)
	return r.pack()
}

// lookUp fills in what the question is answered with.
func (s *names) lookUp(r *reply) {
	q := r.question
	if q.Class != dnsmessage.ClassINET {
		r.header.RCode = dnsmessage.RCodeRefused
		return
	}
	// The letters' case means nothing, and is given back as it came.
	name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
	if hostname.CheckLabels(name) != nil || hostname.EndsInNumber(name) || hostname.CheckPublic(name) != nil {
		r.header.RCode = dnsmessage.RCodeNameError
		return
	}
	switch q.Type {
	case dnsmessage.TypeA:
		r.body = &dnsmessage.AResource{A: address4(s.number(name)).As4()}
	case dnsmessage.TypeAAAA:
		r.body = &dnsmessage.AAAAResource{AAAA: address6(s.number(name)).As16()}
	}
}

// reply is an answer in the making.
type reply struct {
	header   dnsmessage.Header
	question *dnsmessage.Question
	body     dnsmessage.ResourceBody
	options  bool // the question came with an option record, so must the answer
}

// pack is the reply as it is sent; nil if a name in it cannot be written.
func (r *reply) pack() []byte {
	m := dnsmessage.Message{Header: r.header}
	if r.question != nil {
		m.Questions = []dnsmessage.Question{*r.question}
	}
	if r.body != nil {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: r.question.Name, Class: dnsmessage.ClassINET, TTL: answerTTL},
			Body:   r.body,
		}}
	}
	if r.options {
		var h dnsmessage.ResourceHeader
		if err := h.SetEDNS0(maxQuery, dnsmessage.RCodeSuccess, false); err != nil {
			return nil
		}
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	out, err := m.AppendPack(make([]byte, 0, maxAnswer))
	if err != nil {
		return nil
	}
	return out
}
