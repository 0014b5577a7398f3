package rtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/pion/datachannel"
	"github.com/pion/webrtc/v4"
	tokens "golang.org/x/time/rate"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// The page's data channels.
const (
	channelInput = "input" // ordered, reliable
	channelMoves = "moves" // neither
)

const (
	maxControlText = 8 << 10 // bytes of a JSON message
	minSide        = 160
	maxSide        = 4096

	// What a person can do at most, by far: beyond it a message is not a person's.
	inputPerSecond, inputBurst = 1000, 2000
	movesPerSecond, movesBurst = 1000, 1000 // those beyond are left out
	bytesPerSecond, bytesBurst = 512 << 10, 2 << 20
)

var errViewer = errors.New("rtc: the viewer broke the rules")

func badViewer(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errViewer, fmt.Sprintf(format, args...))
}

// channel takes one data channel of the viewer's; those that the page does not
// make end the connection.
func (c *Conn) channel(dc *webrtc.DataChannel) {
	label := dc.Label()
	c.mu.Lock()
	again := c.channels[label]
	c.channels[label] = true
	c.mu.Unlock()
	if again || label != channelInput && label != channelMoves || label == channelInput && !dc.Ordered() {
		c.end(ending{reason: failedViewer, err: badViewer("a channel that the page does not make")})
		return
	}
	dc.OnOpen(func() {
		raw, err := dc.Detach()
		if err != nil {
			c.end(ending{reason: failedLost, err: err})
			return
		}
		ch, ok := raw.(*datachannel.DataChannel)
		if !ok {
			c.end(ending{reason: failedLost, err: fmt.Errorf("rtc: a channel is a %T", raw)})
			return
		}
		if label == channelMoves {
			c.spawn(func() { c.read(ch, c.moved, tokens.NewLimiter(movesPerSecond, movesBurst), false) })
			return
		}
		c.spawn(func() { c.read(ch, c.did, tokens.NewLimiter(inputPerSecond, inputBurst), true) })
		said := make(chan struct{})
		c.mu.Lock()
		c.said = said
		c.mu.Unlock()
		if !c.spawn(func() { defer close(said); c.out.run(ch, c.over, c.lastWord) }) {
			close(said)
		}
	})
}

// read takes a channel's messages. Beyond the limit they are a reason to end the
// connection where strict, and left out where not.
func (c *Conn) read(ch *datachannel.DataChannel, take func([]byte, bool) error, limit *tokens.Limiter, strict bool) {
	buf := make([]byte, guestapi.MaxScreenMessage)
	bytes := tokens.NewLimiter(bytesPerSecond, bytesBurst)
	if !strict {
		buf = buf[:64]
	}
	for {
		n, text, err := ch.ReadDataChannel(buf)
		switch {
		case errors.Is(err, io.ErrShortBuffer):
			c.end(ending{reason: failedViewer, err: badViewer("a message that is too long")})
			return
		case err != nil:
			return // the connection's own end says why
		}
		now := c.now()
		if !limit.AllowN(now, 1) || !bytes.AllowN(now, n) {
			if !strict {
				continue
			}
			c.end(ending{reason: failedViewer, err: badViewer("a flood of messages")})
			return
		}
		switch err := take(buf[:n], text); {
		case errors.Is(err, errStalled):
			c.end(ending{reason: failedStalled, err: err})
			return
		case err != nil:
			c.end(ending{reason: failedViewer, err: err})
			return
		}
	}
}

// moved takes a message of the channel for moves.
func (c *Conn) moved(msg []byte, text bool) error {
	in, err := guestapi.ParseInput(msg)
	if err != nil || text || in.Type != guestapi.InputMove {
		return badViewer("no move on the channel for them")
	}
	return c.to.input(in, false)
}

// did takes a message of the other channel.
func (c *Conn) did(msg []byte, text bool) error {
	if !text {
		in, err := guestapi.ParseInput(msg)
		if err != nil {
			return badViewer("%v", err)
		}
		return c.to.input(in, true)
	}
	if len(msg) > maxControlText {
		return badViewer("a message that is too long")
	}
	var m struct {
		Resize *struct {
			Width  float64 `json:"width"`
			Height float64 `json:"height"`
		} `json:"resize"`
		Control *bool           `json:"control"`
		Stats   json.RawMessage `json:"stats"`
	}
	if err := json.Unmarshal(msg, &m); err != nil {
		return badViewer("a message that is no JSON")
	}
	if m.Resize != nil {
		c.to.want(side(m.Resize.Width), side(m.Resize.Height))
	}
	if m.Stats != nil {
		c.stats(m.Stats)
	}
	if m.Control != nil && *m.Control {
		c.room.take(c)
	}
	return nil
}

// side is what a machine is asked for of what a viewer wants.
func side(v float64) uint16 { return uint16(min(max(v, minSide), maxSide)) }
