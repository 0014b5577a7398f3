package rtc

import (
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Whoever leaves in the middle of typing is told exactly what the machine has
// been given, however the connection ends.
func TestLeaveSaysWhatWasHandedOn(t *testing.T) {
	ends := map[string]func(t *testing.T, v *viewer, gst *guest){
		"asked":                    func(*testing.T, *viewer, *guest) {},
		"the page closed it first": func(t *testing.T, v *viewer, _ *guest) { closed(t, v); await(t, "the end", v.conn.Done()) },
		"the page is closing it":   func(t *testing.T, v *viewer, _ *guest) { closed(t, v) },
		"the machine broke off":    func(t *testing.T, v *viewer, gst *guest) { _ = gst.conn.Close(); await(t, "the end", v.conn.Done()) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, nil)
			v, gst := connect(t, g, viewerOptions{})
			told := gst.film(100)
			v.json("role")
			const typed = 200
			for id := uint32(1); id <= typed; id++ {
				v.do(guestapi.Input{Type: guestapi.InputText, ID: id, Text: "x"})
			}
			got := uint32(0)
			for got < 20 { // in the middle
				got = max(got, textID(await(t, "what was typed", told)))
			}
			end(t, v, gst)
			n, ok, err := g.Leave(testContext(t), "u", "s", v.conn.ID())
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			for m := range told {
				got = max(got, textID(m))
			}
			if name == "the machine broke off" { // who knows what it had read
				if n < 20 || n > typed {
					t.Errorf("%d", n)
				}
			} else if n != got {
				t.Errorf("%d is said to have been handed on, the machine had %d", n, got)
			}
			if again, ok, err := g.Leave(testContext(t), "u", "s", v.conn.ID()); again != n || !ok || err != nil {
				t.Errorf("asked again it is %d, %v, %v", again, ok, err)
			}
			for _, who := range [][2]string{{"other", "s"}, {"u", "other"}} {
				if _, ok, _ := g.Leave(testContext(t), who[0], who[1], v.conn.ID()); ok {
					t.Errorf("%v is told", who)
				}
			}
			await(t, "the end", v.conn.Done())
		})
	}
}

func closed(t *testing.T, v *viewer) {
	if err := v.pc.Close(); err != nil {
		t.Fatal(err)
	}
}

func textID(m toldGuest) uint32 {
	in, err := guestapi.ParseInput(append([]byte{byte(m.typ)}, m.payload...))
	if err != nil || in.Type != guestapi.InputText {
		return 0
	}
	return in.ID
}

// A machine that takes nothing holds up nobody's leaving for long.
func TestLeaveOfAMachineThatStalls(t *testing.T) {
	g := newGateway(t, nil)
	v, _ := connect(t, g, viewerOptions{}) // it reads, but shows nothing
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	if _, ok, err := g.Leave(ctx, "u", "s", v.conn.ID()); !ok || err == nil {
		// It may have been quick enough.
		t.Log("it was quicker")
	}
	if _, ok, err := g.Leave(testContext(t), "u", "s", v.conn.ID()); !ok || err != nil {
		t.Fatal(ok, err)
	}
}

// halfClosing is a stream whose Close ends one direction only, as those to a
// machine do.
type halfClosing struct {
	io.ReadCloser
	io.Writer
	close func() error
}

func (h halfClosing) Close() error { return h.close() }

// The answer comes when the machine has done what it was given.
func TestLeaveWaitsForTheMachine(t *testing.T) {
	g := newGateway(t, nil)
	fromGuest, guestOut := io.Pipe()
	guestIn, toGuest := io.Pipe()
	machine := halfClosing{fromGuest, toGuest, toGuest.Close}
	v := newViewer(t, nil)
	v.join(g, viewerOptions{open: func(context.Context, string) (io.ReadWriteCloser, error) { return machine, nil }})
	await(t, "the input channel", v.open)
	finished := make(chan struct{})
	gotKey := make(chan struct{}, 1)
	go func() {
		for {
			typ, _, err := guestapi.ReadScreenFrame(guestIn, nil)
			if err != nil {
				break
			}
			if typ == guestapi.InputKey {
				gotKey <- struct{}{}
			}
		}
		for range 20 { // it is still at it, and shows it
			_ = guestapi.WriteScreenFrame(guestOut, guestapi.ScreenVideo, guestapi.AppendVideo(nil, guestapi.VideoFrame{Width: 8, Height: 8, Data: []byte("x")}))
			time.Sleep(2 * time.Millisecond) // widens the time in which an answer that comes too early would be seen
		}
		close(finished)
		_ = guestOut.Close()
	}()
	v.json("role")
	v.do(guestapi.Input{Type: guestapi.InputKey, ID: 3, Down: true})
	await(t, "the key", gotKey)
	if n, ok, err := g.Leave(testContext(t), "u", "s", v.conn.ID()); n != 3 || !ok || err != nil {
		t.Errorf("%d, %v, %v", n, ok, err)
	}
	select {
	case <-finished:
	default:
		t.Error("the machine is still at it")
	}
}

func TestPartingsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ps partings
		end := func(id string) { ps.over(ps.expect(id, Request{User: "u", Session: "s"}), 1) }
		open := ps.expect("open", Request{User: "u", Session: "s"})
		end("first")
		time.Sleep(rememberParting + time.Second) // of the fake clock
		if ps.find("u", "s", "first") == nil {
			t.Error("there was no reason to forget it")
		}
		end("second")
		if ps.find("u", "s", "first") != nil || ps.find("u", "s", "second") == nil {
			t.Error("the wrong one was forgotten")
		}
		for i := range 2 * rememberPartings {
			end(fmt.Sprint(i))
		}
		if len(ps.all) > rememberPartings+1 || ps.find("u", "s", "open") != open {
			t.Errorf("%d are remembered", len(ps.all))
		}
	})
}
