package stream

import (
	"encoding/json"
	"errors"
	"io"

	"github.com/coder/websocket"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// maxControl is how long a text message of a terminal's page may be.
const maxControl = 512

func rawToMachine(c *conn, typ websocket.MessageType, r io.Reader, buf []byte) *closing {
	if typ != websocket.MessageBinary {
		return notUnderstood()
	}
	return c.copyToMachine(r, buf, func(p []byte) error {
		_, err := c.machine.Write(p)
		return err
	})
}

func rawToViewer(c *conn, buf []byte) *closing {
	n, err := c.machine.Read(buf)
	if n > 0 {
		if end := c.send(websocket.MessageBinary, buf[:n]); end != nil {
			return end
		}
		c.toViewer.Add(int64(n))
	}
	if err != nil {
		return machineGone(err)
	}
	return nil
}

// copyToMachine hands one message on, piece by piece, as fast as the machine
// takes it.
func (c *conn) copyToMachine(r io.Reader, buf []byte, write func([]byte) error) *closing {
	for {
		n, rerr := r.Read(buf)
		if n > 0 {
			if err := write(buf[:n]); err != nil {
				return machineGone(err)
			}
			c.fromView.Add(int64(n))
		}
		if errors.Is(rerr, io.EOF) {
			return nil
		}
		if rerr != nil {
			return viewerGone(rerr)
		}
	}
}

func termToMachine(c *conn, typ websocket.MessageType, r io.Reader, buf []byte) *closing {
	if typ == websocket.MessageBinary {
		return c.copyToMachine(r, buf, func(p []byte) error {
			return guestapi.WriteTermFrame(c.machine, guestapi.TermData, p)
		})
	}
	msg, err := io.ReadAll(io.LimitReader(r, maxControl+1))
	if err != nil {
		return viewerGone(err)
	}
	cols, rows, err := parseResize(msg)
	if err != nil {
		return notUnderstood()
	}
	if err := guestapi.WriteTermFrame(c.machine, guestapi.TermResize, guestapi.EncodeTermSize(cols, rows)); err != nil {
		return machineGone(err)
	}
	return nil
}

func termToViewer(c *conn, buf []byte) *closing {
	typ, payload, err := guestapi.ReadTermFrame(c.machine, buf)
	if err != nil {
		return machineGone(err)
	}
	switch typ {
	case guestapi.TermData:
		if end := c.send(websocket.MessageBinary, payload); end != nil {
			return end
		}
		c.toViewer.Add(int64(len(payload)))
		return nil
	case guestapi.TermExit:
		code, err := guestapi.DecodeTermExit(payload)
		if err != nil {
			return machineGone(err)
		}
		if end := c.send(websocket.MessageText, exitMessage(code)); end != nil {
			return end
		}
		return &closing{websocket.StatusNormalClosure, "The shell has ended.", nil}
	}
	return machineGone(guestapi.ErrTermFrame) // a resize comes from the page only
}

func exitMessage(code int32) []byte {
	var m struct {
		Exit struct {
			Code int32 `json:"code"`
		} `json:"exit"`
	}
	m.Exit.Code = code
	b, _ := json.Marshal(m) // a struct of one number cannot fail
	return b
}

var errControl = errors.New("stream: not a control message")

// parseResize reads {"resize":{"cols":120,"rows":40}}.
func parseResize(msg []byte) (cols, rows int, err error) {
	if len(msg) > maxControl {
		return 0, 0, errControl
	}
	var m struct {
		Resize *struct {
			Cols int `json:"cols"`
			Rows int `json:"rows"`
		} `json:"resize"`
	}
	if err := decodeStrict(msg, &m); err != nil {
		return 0, 0, err
	}
	r := m.Resize
	if r == nil || r.Cols < guestapi.MinTermSize || r.Cols > guestapi.MaxTermSize ||
		r.Rows < guestapi.MinTermSize || r.Rows > guestapi.MaxTermSize {
		return 0, 0, errControl
	}
	return r.Cols, r.Rows, nil
}

func notUnderstood() *closing {
	return &closing{CodeBadMessage, "A message was not understood.", nil}
}
