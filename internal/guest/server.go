//go:build linux

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
)

// maxWait is how long a status request may wait for a change.
const maxWait = 30 * time.Second

// routes are the agent's HTTP API. Everything but configuring and warming is
// refused until the machine has been configured.
func (a *Agent) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+guestapi.PathWarm, answer(func(r *http.Request, in guestapi.Warm) (struct{}, error) {
		return struct{}{}, a.warm(r.Context(), in)
	}))
	mux.HandleFunc("POST "+guestapi.PathConfigure, answer(func(r *http.Request, in guestapi.Configure) (guestapi.Ack, error) {
		return a.configure(r.Context(), in)
	}))
	mux.HandleFunc("POST "+guestapi.PathAuth+"{provider}", a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		answer(func(r *http.Request, in guestapi.AuthRequest) (guestapi.AuthStatus, error) {
			if in.Provider == nil || in.Provider.Name != r.PathValue("provider") {
				return guestapi.AuthStatus{}, errors.New("the body describes another provider than the path")
			}
			a.renewed()
			return p.startAuth(in)
		})(w, r)
	}))
	mux.HandleFunc("GET "+guestapi.PathStatus, a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.ParseInt(r.FormValue("after"), 10, 64)
		wait, _ := time.ParseDuration(r.FormValue("wait"))
		status, err := p.authStatus(r.Context(), after, min(wait, maxWait))
		reply(w, status, err)
	}))
	mux.HandleFunc("GET "+guestapi.PathCredentials, a.owned(func(p *person, w http.ResponseWriter, _ *http.Request) {
		out, err := p.credentials()
		reply(w, out, err)
	}))
	mux.HandleFunc("POST "+guestapi.PathDeliver, a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		answer(func(_ *http.Request, in guestapi.Delivery) (guestapi.DeliveryAck, error) { return p.deliver(in) })(w, r)
	}))
	mux.HandleFunc("POST "+guestapi.PathCollect, a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		answer(func(_ *http.Request, in guestapi.Collect) (guestapi.Credentials, error) { return p.collect(in) })(w, r)
	}))
	mux.HandleFunc("POST "+guestapi.PathRun, a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		answer(func(r *http.Request, in guestapi.RunRequest) (guestapi.RunResult, error) {
			return p.run(r.Context(), in)
		})(w, r)
	}))
	mux.HandleFunc("GET "+guestapi.PathVNC, a.owned(func(_ *person, w http.ResponseWriter, r *http.Request) {
		vnc, err := (&net.Dialer{}).DialContext(r.Context(), "unix", vncSocket)
		if err != nil {
			http.Error(w, "the X server does not answer", http.StatusServiceUnavailable)
			return
		}
		defer func() { _ = vnc.Close() }()
		if stream := takeOver(w, r); stream != nil {
			join(vnc, stream)
		}
	}))
	mux.HandleFunc("GET "+guestapi.PathScreen, a.owned(a.screen))
	mux.HandleFunc("GET "+guestapi.PathTerminal, a.owned(func(p *person, w http.ResponseWriter, r *http.Request) {
		cols, _ := strconv.Atoi(r.FormValue("cols"))
		rows, _ := strconv.Atoi(r.FormValue("rows"))
		if stream := takeOver(w, r); stream != nil {
			p.terminal(stream, cols, rows)
		}
	}))
	return mux
}

// screen gives the screen to one viewer, as video.
func (a *Agent) screen(p *person, w http.ResponseWriter, r *http.Request) {
	if codec := r.FormValue("codec"); codec != screenCodec {
		http.Error(w, fmt.Sprintf("codec %q: this machine has only %s", codec, screenCodec), http.StatusBadRequest)
		return
	}
	if p.screens == nil {
		http.Error(w, errWrongKind.Error(), http.StatusConflict)
		return
	}
	if err := p.screens.Take(); err != nil {
		http.Error(w, err.Error(), http.StatusTooManyRequests)
		return
	}
	stream := takeOver(w, r)
	if stream == nil {
		p.screens.leave()
		return
	}
	if err := p.screens.Serve(stream); err != nil {
		a.logger.Warn("a viewer's video has ended", "err", err)
	}
}

// owned refuses a request until the machine is somebody's.
func (a *Agent) owned(serve func(*person, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		p := a.person
		a.mu.Unlock()
		if p == nil {
			http.Error(w, "this machine has not been configured", http.StatusConflict)
			return
		}
		serve(p, w, r)
	}
}

// answer decodes a JSON body, calls do, and writes what it returns as JSON.
func answer[In, Out any](do func(*http.Request, In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 2*guestapi.MaxBodyBytes)).Decode(&in); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := do(r, in)
		reply(w, out, err)
	}
}

func reply(w http.ResponseWriter, out any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// takeOver turns the request's stream into raw bytes; nil if it was refused.
func takeOver(w http.ResponseWriter, r *http.Request) net.Conn {
	if !strings.EqualFold(r.Header.Get("Upgrade"), line.Upgrade) {
		http.Error(w, "this route needs Upgrade: "+line.Upgrade, http.StatusUpgradeRequired)
		return nil
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil
	}
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+line.Upgrade+"\r\n\r\n"); err != nil {
		_ = conn.Close()
		return nil
	}
	return buffered{conn, buf.Reader}
}

// buffered is a connection whose first bytes were read ahead.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }
