package machine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/machine/fake"
)

// instead serves every request with a function of a hostile guest.
func instead(serve http.HandlerFunc) fake.Script {
	return fake.Script{HTTP: func(http.Handler) http.Handler { return serve }}
}

// speaks has a hostile guest write to its line, over and over, and never read.
func speaks(b []byte) fake.Script {
	return fake.Script{Line: func(_ context.Context, conn net.Conn) {
		for {
			if _, err := conn.Write(b); err != nil {
				return
			}
		}
	}}
}

// frame is a header of yamux.
func frame(kind byte, flags uint16, stream, length uint32) []byte {
	b := []byte{0, kind, 0, 0}
	binary.BigEndian.PutUint16(b[2:], flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

func lies(lie func(*guestapi.Ack)) fake.Script { return fake.Script{Ack: lie} }

// TestHostileGuest: whatever a guest does, it is no machine then, nothing of it
// is left, the error is short and soon there, and others work.
func TestHostileGuest(t *testing.T) {
	tests := map[string]struct {
		script  fake.Script
		refused bool // ErrRefused is wanted; else any error
	}{
		"another id":    {lies(func(a *guestapi.Ack) { a.MachineID = "machine2" }), true},
		"a huge id":     {lies(func(a *guestapi.Ack) { a.MachineID = strings.Repeat("x", 500<<10) }), true},
		"another build": {lies(func(a *guestapi.Ack) { a.Build = "another" }), true},
		"a huge build":  {lies(func(a *guestapi.Ack) { a.Build = strings.Repeat("\x1b[2J", 100<<10) }), true},
		"other entropy": {lies(func(a *guestapi.Ack) { a.Entropy = strings.Repeat("0", 64) }), true},
		"no entropy":    {lies(func(a *guestapi.Ack) { a.Entropy = "" }), true},
		"configured":    {lies(func(a *guestapi.Ack) { a.Again, a.Entropy = true, "" }), true},
		"a slow clock":  {lies(func(a *guestapi.Ack) { a.Clock = a.Clock.Add(-time.Hour) }), true},
		"a fast clock":  {lies(func(a *guestapi.Ack) { a.Clock = a.Clock.Add(time.Hour) }), true},
		"no clock":      {lies(func(a *guestapi.Ack) { a.Clock = time.Time{} }), true},
		"no JSON":       {instead(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") }), true},
		"another type":  {instead(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[]`) }), true},
		"an error":      {instead(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }), true},
		"a redirect": {instead(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		}), true},
		"a huge body":    {instead(endless), true},
		"a huge header":  {instead(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }), true},
		"no answer":      {instead(hang), true},
		"a slow answer":  {instead(drip), true},
		"a deep body":    {instead(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("[", 500<<10)) }), true},
		"no HTTP":        {instead(func(w http.ResponseWriter, _ *http.Request) { hijack(w, "SSH-2.0-x\r\n") }), true},
		"silence":        {fake.Script{Line: func(_ context.Context, conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }}, true},
		"a dead line":    {fake.Script{Line: func(context.Context, net.Conn) {}}, true},
		"garbage":        {speaks([]byte("GET / HTTP/1.1\r\n")), true},
		"zeros":          {speaks(make([]byte, 4096)), true},
		"pings":          {speaks(frame(2, 1, 0, 7)), true},
		"streams":        {speaks(frame(1, 1, 2, 0)), true}, // the same one: a duplicate
		"a huge frame":   {speaks(frame(0, 0, 1, 1<<31)), true},
		"it goes away":   {speaks(frame(3, 0, 0, 0)), true},
		"it does not go": {speaks(frame(3, 0, 0, 77)), true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			fake.Bubble(t, func(t *testing.T) {
				r := newRig(t)
				r.host.Script(func(s machine.Spec) fake.Script {
					if s.ID == "hostile1" {
						return test.script
					}
					return fake.Script{}
				})
				other, _ := r.start(t, "machine1")
				began := time.Now()
				m, _, err := r.manager.Start(t.Context(), machine.Spec{ID: "hostile1", Kind: machine.Browser}, settings(machine.Browser))
				if err == nil {
					m.Detach()
					t.Fatal("it was taken for a machine")
				}
				if took := time.Since(began); took > 2*time.Minute {
					t.Errorf("it took %s", took)
				}
				if test.refused != errors.Is(err, machine.ErrRefused) {
					t.Errorf("error: %v", err)
				}
				if len(err.Error()) > 2048 {
					t.Errorf("the error has %d bytes", len(err.Error()))
				}
				if r.host.Machine("hostile1") != nil {
					t.Error("it has left a trace")
				}
				if err := asks(t.Context(), t, other); err != nil {
					t.Errorf("another machine: %v", err)
				}
			})
		})
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	for chunk := make([]byte, 64<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// drip sends a byte of an answer that never ends each second.
func drip(w http.ResponseWriter, r *http.Request) {
	for {
		if _, err := io.WriteString(w, " "); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func hang(_ http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // only then the end of the connection is seen
	<-r.Context().Done()
}

func hijack(w http.ResponseWriter, say string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, say)
	_ = conn.Close()
}

// TestLineBrokenInALoop: a guest that takes every line and breaks it at once
// gets a new one only so often.
func TestLineBrokenInALoop(t *testing.T) {
	fake.Bubble(t, func(t *testing.T) {
		r := newRig(t)
		var lines atomic.Int64
		r.host.Script(func(s machine.Spec) fake.Script {
			return fake.Script{HTTP: func(agent http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					agent.ServeHTTP(w, req)
					if lines.Add(1) > 1 {
						time.AfterFunc(time.Millisecond, r.host.Machine(s.ID).BreakLine)
					}
				})
			}}
		})
		m, _ := r.start(t, "machine1")
		r.host.Machine("machine1").BreakLine()
		const minutes = 10
		<-time.After(minutes * time.Minute)
		if n := lines.Load(); n < 10 || n > 15*minutes {
			t.Errorf("it got %d lines in %d minutes", n, minutes)
		}
		select {
		case <-m.Done():
			t.Error("the machine is said to have ended")
		default:
		}
	})
}
