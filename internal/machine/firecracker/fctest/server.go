//go:build linux

package fctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// Request is one that a server got.
type Request struct {
	Operation string          `json:"operation"` // "PUT /vsock"
	Body      json.RawMessage `json:"body,omitempty"`
	Refused   string          `json:"refused,omitempty"` // why; empty: it was taken
}

// Fault is what a server does to a request instead of answering it, or before.
type Fault struct {
	Delay  time.Duration `json:"delay,omitempty"`  // first; a request that ends meanwhile is not answered
	Status int           `json:"status,omitempty"` // with this, and Body; 0: as usual
	Body   string        `json:"body,omitempty"`
	Hang   bool          `json:"hang,omitempty"` // no answer, for ever
	Cut    bool          `json:"cut,omitempty"`  // the connection ends without one
}

// Server answers as Firecracker's API server does: what its definition does not
// allow is refused, the rest is for its handler. It may be used concurrently.
type Server struct {
	definition *Definition
	// handle is called for valid requests, one at a time; an error is a refusal
	// by Firecracker, in its words.
	handle func(operation string, body []byte) (answer any, err error)

	mu       sync.Mutex // guards what follows
	faults   map[string]Fault
	requests []Request
	noted    func(Request) // called for each, if not nil

	one sync.Mutex // of handle
}

// NewServer returns a server; see Server.
func NewServer(d *Definition, handle func(operation string, body []byte) (any, error)) *Server {
	return &Server{definition: d, handle: handle, faults: map[string]Fault{}}
}

// Inject has a fault happen to an operation ("PUT /vsock"), from now on.
func (s *Server) Inject(operation string, f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[operation] = f
}

// Requests are those that came, in their order.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

func (s *Server) note(r Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r)
	if s.noted != nil {
		s.noted(r)
	}
}

// maxRequest is what Firecracker takes of a request at most, by default.
const maxRequest = 51200

// ServeHTTP checks a request, lets happen to it what was injected, and answers.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	operation := r.Method + " " + r.URL.Path
	req := Request{Operation: operation, Body: body}
	if len(body) == 0 {
		req.Body = nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := s.definition.Check(r); err != nil {
		req.Refused = err.Error()
		s.note(req)
		refuse(w, http.StatusBadRequest, fmt.Sprintf("not in the API's definition: %v", err))
		return
	}
	s.note(req)
	s.mu.Lock()
	fault := s.faults[operation]
	s.mu.Unlock()
	if s.fail(w, r, fault) {
		return
	}
	s.one.Lock()
	answer, err := s.handle(operation, body)
	s.one.Unlock()
	switch {
	case err != nil:
		refuse(w, http.StatusBadRequest, err.Error())
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	}
}

// fail lets a fault happen; done says that there is no more to answer.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, f Fault) (done bool) {
	if f.Delay > 0 {
		timer := time.NewTimer(f.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return true
		}
	}
	switch {
	case f.Hang:
		<-r.Context().Done()
		return true
	case f.Cut:
		panic(http.ErrAbortHandler)
	case f.Status != 0:
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return true
	}
	return false
}

// refuse answers with an error of Firecracker's form.
func refuse(w http.ResponseWriter, status int, fault string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"fault_message": fault})
}
