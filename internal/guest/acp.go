//go:build linux

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Limits on the dialogue with a tool that speaks the Agent Client Protocol:
// JSON-RPC 2.0, one message per line.
const (
	maxACPLine     = 256 << 10
	maxACPMessages = 10_000
)

// errACP says that a tool did not speak the protocol, or refused.
var errACP = errors.New("the tool's agent protocol")

type acpMessage struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *acpError       `json:"error,omitempty"`
}

type acpError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// acpLogin has the tool at the other end of in and out sign in by method. done
// is called once: with nil as soon as the tool says that it is signed in, or
// with an error if it refuses or its output ends before. Lines that are not
// messages go to other. acpLogin returns when out ends; until then it drops
// what comes after done, so that the tool does not stall.
//
// The tool gets nothing from its requests to us: files, terminals and
// permissions are refused.
func acpLogin(in io.Writer, out io.Reader, method string, other func(line string), done func(error)) {
	d := &acpDialogue{in: in, other: other, done: done, steps: []acpMessage{
		{ID: json.RawMessage("1"), Method: "initialize", Params: json.RawMessage(
			`{"protocolVersion":1,"clientCapabilities":{"fs":{"readTextFile":false,"writeTextFile":false}}}`)},
		{ID: json.RawMessage("2"), Method: "authenticate", Params: json.RawMessage(
			`{"methodId":` + strconv.Quote(method) + `}`)},
	}}
	d.send(d.steps[0])
	readLines(out, maxACPLine, d.line)
	d.end(fmt.Errorf("%w: its output ended before it had signed in", errACP))
}

// acpDialogue is how far the dialogue has come.
type acpDialogue struct {
	in       io.Writer
	other    func(string)
	done     func(error)
	steps    []acpMessage
	step     int
	messages int
	over     bool
}

func (d *acpDialogue) end(err error) {
	if !d.over {
		d.over = true
		d.done(err)
	}
}

func (d *acpDialogue) send(m acpMessage) {
	m.Version = "2.0"
	b, err := json.Marshal(m)
	if err == nil {
		_, err = d.in.Write(append(b, '\n'))
	}
	if err != nil {
		d.end(fmt.Errorf("%w: writing to it: %w", errACP, err))
	}
}

func (d *acpDialogue) line(line string, whole bool) {
	if d.over {
		return
	}
	var m acpMessage
	if !whole || json.Unmarshal([]byte(line), &m) != nil || m.Version != "2.0" {
		d.other(line)
		return
	}
	if d.messages++; d.messages > maxACPMessages {
		d.end(fmt.Errorf("%w: more than %d messages", errACP, maxACPMessages))
		return
	}
	asked := d.steps[d.step]
	switch {
	case m.Method != "" && len(m.ID) > 0:
		d.send(acpMessage{ID: m.ID, Error: &acpError{Code: -32601, Message: "not supported"}})
	case m.Method != "" || string(m.ID) != string(asked.ID):
		// A notification, or an answer to nothing that we asked.
	case m.Error != nil:
		d.other(m.Error.Message)
		d.end(fmt.Errorf("%w: it refused %s", errACP, asked.Method))
	case d.step == len(d.steps)-1:
		d.end(nil)
	default:
		d.step++
		d.send(d.steps[d.step])
	}
}
