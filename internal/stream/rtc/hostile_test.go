package rtc

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// A hostile machine ends its own connection, or gets nowhere; another one's goes
// on.
func TestHostileGuest(t *testing.T) {
	header := func(typ byte, n uint32) []byte {
		return []byte{typ, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	for name, sent := range map[string][]byte{
		"garbage":             []byte(strings.Repeat("garbage ", 100)),
		"100 MB":              header('v', 100<<20),
		"4 GiB":               header('c', 1<<32-1),
		"half a frame":        append(header('v', 1000), make([]byte, 100)...),
		"a picture of none":   header('v', 0),
		"a cursor that lies":  append(header('c', 9), "\x00\x00\x00\x00\xff\xff\xff\xff0"...),
		"text that is none":   append(header('p', 2), "\xff\xfe"...),
		"what viewers say":    header('u', 0),
		"what gateways say":   header('k', 0),
		"nothing, and closed": nil,
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, nil)
			good, gg := connect(t, g, viewerOptions{session: "good"})
			gg.film(100)
			bad, gb := connect(t, g, viewerOptions{session: "bad"})
			_, _ = gb.conn.Write(sent)
			if name == "half a frame" || sent == nil {
				_ = gb.conn.Close()
			}
			await(t, "the end", bad.conn.Done())
			for len(good.packets) > 0 {
				<-good.packets
			}
			await(t, "a packet of the good one", good.packets)
		})
	}
	t.Run("silence", func(t *testing.T) {
		g := newGateway(t, func(c *Config) { c.FirstFrame = 50 * time.Millisecond })
		v, _ := connect(t, g, viewerOptions{})
		await(t, "the end", v.conn.Done())
	})
	t.Run("takes nothing", func(t *testing.T) {
		g := newGateway(t, nil)
		host, end := io.Pipe() // nobody reads
		defer func() { _ = host.Close() }()
		silence, _ := io.Pipe()
		stuck := struct {
			io.Reader
			io.Writer
			io.Closer
		}{silence, end, closer{end, silence}}
		v := newViewer(t, nil)
		v.join(g, viewerOptions{open: func(context.Context, string) (io.ReadWriteCloser, error) { return stuck, nil }})
		await(t, "the input channel", v.open)
		v.json("role")
		for range maxWaiting + 2 {
			if v.input.Send(guestapi.AppendInput(nil, guestapi.Input{Type: guestapi.InputKey, Keysym: 1, Down: true})) != nil {
				break
			}
		}
		await(t, "the end", v.conn.Done())
	})
	t.Run("a flood", func(t *testing.T) {
		g := newGateway(t, nil)
		good, gg := connect(t, g, viewerOptions{session: "good"})
		gg.film(100)
		bad, gb := connect(t, g, viewerOptions{session: "bad"})
		sent := make(chan int, 1)
		go func() {
			f := guestapi.VideoFrame{Keyframe: true, Width: 1, Height: 1, Data: make([]byte, guestapi.MaxVideoFrame)}
			n := 0
			for gb.video(f) == nil {
				n++
			}
			sent <- n
		}()
		began := time.Now()
		for range 30 {
			await(t, "a packet of the good one", good.packets)
		}
		took := time.Since(began)
		bad.conn.end(ending{})
		await(t, "the end", bad.conn.Done())
		n := await(t, "the flood's end", sent)
		t.Logf("%d frames of 4 MiB were taken in %v", n, took)
		if most := int(guestByteBurst/guestapi.MaxVideoFrame) + int(took.Seconds()+2) + 1; n > most {
			t.Errorf("%d frames were taken, more than %d", n, most)
		}
	})
}

type closer []io.Closer

func (c closer) Close() error {
	for _, x := range c {
		_ = x.Close()
	}
	return nil
}

// moveUntilEnd sends a message on the channel for moves, again and again: that
// one may not be open yet, and delivers what it can.
func (v *viewer) moveUntilEnd(msg []byte) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx := testContext(v.t)
	for {
		_ = v.moves.Send(msg)
		select {
		case <-v.conn.Done():
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// A hostile viewer's connection is closed, and nothing it says comes through.
func TestHostileViewer(t *testing.T) {
	tests := map[string]func(v *viewer){
		"not a message":          func(v *viewer) { _ = v.input.Send([]byte("garbage")) },
		"an empty message":       func(v *viewer) { _ = v.input.Send([]byte{'y'}) },
		"not JSON":               func(v *viewer) { _ = v.input.SendText("hello") },
		"long JSON":              func(v *viewer) { _ = v.input.SendText(`{"stats":"` + strings.Repeat("x", maxControlText) + `"}`) },
		"text that is too long":  func(v *viewer) { _ = v.input.Send(append([]byte("t\x00\x00\x00\x01"), make([]byte, 5000)...)) },
		"a key among the moves":  func(v *viewer) { v.moveUntilEnd(guestapi.AppendInput(nil, guestapi.Input{Type: guestapi.InputKey})) },
		"a long message of many": func(v *viewer) { v.moveUntilEnd(make([]byte, 1000)) },
		"another channel":        func(v *viewer) { _, _ = v.pc.CreateDataChannel("more", nil) },
		"a channel twice":        func(v *viewer) { _, _ = v.pc.CreateDataChannel(channelInput, nil) },
		"a flood of input": func(v *viewer) {
			msg := guestapi.AppendInput(nil, guestapi.Input{Type: guestapi.InputKey, Keysym: 1, Down: true})
			for range 20 * inputBurst {
				if v.input.Send(msg) != nil {
					return
				}
			}
		},
		"a flood of clipboards": func(v *viewer) {
			msg := guestapi.AppendInput(nil, guestapi.Input{Type: guestapi.ScreenClipboard, Text: strings.Repeat("x", 60<<10)})
			for range 200 {
				if v.input.Send(msg) != nil {
					return
				}
			}
		},
	}
	for name, attack := range tests {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, nil)
			v, gst := connect(t, g, viewerOptions{})
			told := gst.film(100)
			v.json("role")
			attack(v)
			await(t, "the end", v.conn.Done())
			keys := 0
			for m := range told {
				switch m.typ {
				case guestapi.InputText:
					t.Error("text came through")
				case guestapi.InputKey:
					keys++
				}
			}
			if keys > 2*inputBurst {
				t.Errorf("%d keys came through", keys)
			}
		})
	}
}

// Offers that are not the page's are refused before anything is opened.
func TestHostileOffers(t *testing.T) {
	g := newGateway(t, nil)
	good := newViewer(t, nil).offer()
	section := func(kind string) string {
		i := strings.Index(good, "m="+kind)
		rest := good[i:]
		if j := strings.Index(rest[2:], "\r\nm="); j >= 0 {
			rest = rest[:j+4]
		}
		return rest
	}
	replace := func(old, by string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("the offer has no %q:\n%s", old, good)
		}
		return strings.ReplaceAll(good, old, by)
	}
	bundle := func(s string) string { return strings.Replace(s, "BUNDLE 0 1", "BUNDLE 0 1 2", 1) }
	for name, offer := range map[string]string{
		"nothing":              "",
		"nonsense":             "v=0\r\nhello",
		"64 KiB":               good + strings.Repeat("a=x:y\r\n", 10<<10),
		"a long line":          good + "a=x:" + strings.Repeat("y", maxLine) + "\r\n",
		"1000 candidates":      good + strings.Repeat("a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n", 1000),
		"sendrecv":             replace("a=recvonly", "a=sendrecv"),
		"sendonly":             replace("a=recvonly", "a=sendonly"),
		"both":                 replace("a=recvonly", "a=recvonly\r\na=sendrecv"),
		"no direction":         replace("a=recvonly\r\n", ""),
		"two videos":           bundle(good + strings.Replace(section("video"), "a=mid:0", "a=mid:2", 1)),
		"audio":                bundle(good + strings.Replace(strings.Replace(section("video"), "m=video", "m=audio", 1), "a=mid:0", "a=mid:2", 1)),
		"no data":              strings.Replace(strings.Replace(good, section("application"), "", 1), "BUNDLE 0 1", "BUNDLE 0", 1),
		"no video":             strings.Replace(strings.Replace(good, section("video"), "", 1), "BUNDLE 0 1", "BUNDLE 1", 1),
		"not bundled":          replace("BUNDLE 0 1", "BUNDLE 0"),
		"no codec":             strings.NewReplacer("VP8/90000", "VP7/90000", "H264/90000", "H263/90000").Replace(good),
		"no fingerprint":       replace("a=fingerprint:sha-256", "a=fingerprint:sha-1"),
		"no ICE password":      replace("a=ice-pwd:", "a=ice-pwd:x\r\na=x:"),
		"an odd name":          replace("a=ice-ufrag:", "a=ice-ufrag:<>"),
		"it wants to begin":    replace("a=setup:actpass", "a=setup:active"),
		"an odd message size":  replace("a=sctp-port:5000", "a=sctp-port:5000\r\na=max-message-size:-1"),
		"a name that is empty": replace("a=mid:0", "a=mid:"),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := g.Connect(t.Context(), t.Context(), Request{Session: "s", User: "u", Offer: []byte(offer), Open: func(context.Context, string) (io.ReadWriteCloser, error) {
				t.Error("the machine was opened")
				return nil, io.EOF
			}})
			if !errors.Is(err, ErrOffer) || !strings.HasSuffix(err.Error(), ".") {
				t.Errorf("%v", err)
			}
			if n := g.Viewers(); n != 0 {
				t.Errorf("%d viewers", n)
			}
		})
	}
	// One codec only: constrained baseline H.264.
	o, err := parseOffer([]byte(replace("VP8/90000", "VP7/90000")))
	if err != nil || o.codec != H264 {
		t.Errorf("%+v, %v", o, err)
	}
}
