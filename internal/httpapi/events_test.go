package httpapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// reader reads one event stream.
type reader struct {
	*testing.T
	body io.ReadCloser
	sc   *bufio.Scanner
}

func (r *rig) subscribe(path string, edits ...edit) *reader {
	r.Helper()
	req, err := http.NewRequestWithContext(testContext(r.T), "GET", r.http.URL+path, nil)
	if err != nil {
		r.Fatal(err)
	}
	for _, e := range edits {
		e(req)
	}
	res, err := r.http.Client().Do(req)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" || res.Header.Get("Cache-Control") != "no-store" {
		r.Fatalf("%d %v", res.StatusCode, res.Header)
	}
	return &reader{r.T, res.Body, bufio.NewScanner(res.Body)}
}

// next returns the next event; comments are counted, not returned.
func (r *reader) next() (e Event, comments int) {
	r.Helper()
	var id string
	for r.sc.Scan() {
		line := r.sc.Text()
		switch {
		case strings.HasPrefix(line, ":"):
			comments++
		case strings.HasPrefix(line, "id: "):
			id = line[4:]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[6:]), &e); err != nil {
				r.Fatal(err)
			}
			if id != strconv.FormatInt(e.Seq, 10) {
				r.Fatalf("id %q of event %d", id, e.Seq)
			}
			return e, comments
		}
	}
	r.Fatalf("the stream ended: %v", r.sc.Err())
	return e, comments
}

func (r *reader) expect(messages ...string) {
	r.Helper()
	for _, want := range messages {
		if e, _ := r.next(); e.Message != want {
			r.Fatalf("got event %d %q, want %q", e.Seq, e.Message, want)
		}
	}
}

// ended waits for the end of the stream.
func (r *reader) ended() {
	r.Helper()
	for r.sc.Scan() {
		if strings.HasPrefix(r.sc.Text(), "data: ") {
			r.Fatalf("another event: %s", r.sc.Text())
		}
	}
	if err := r.sc.Err(); err != nil { // the test's own time was up
		r.Fatalf("the stream did not end: %v", err)
	}
}

func TestEventsResume(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.alice, r.bob
	add := func(p person, m string) { r.uc.add(p.user.ID, p.session, m) }
	add(a, "one")
	add(b, "of bob")
	add(a, "two")
	path := "/api/v1/sessions/" + string(a.session) + "/events"
	s := r.subscribe(path, bearer(a.token))
	s.expect("one", "two")
	add(b, "also of bob")
	add(a, "three")
	s.expect("three")
	_ = s.body.Close()
	add(a, "four") // while nobody listens

	r.subscribe(path, bearer(a.token), header("Last-Event-ID", "5")).expect("four")
	r.subscribe(path+"?after=3", bearer(a.token)).expect("three", "four")
	// What EventSource does when it connects again: same address, newer header.
	r.subscribe(path+"?after=0", bearer(a.token), header("Last-Event-ID", "5")).expect("four")
	r.subscribe("/api/v1/events", bearer(b.token)).expect("of bob", "also of bob")
	all := r.subscribe("/api/v1/events", bearer(a.token))
	all.expect("one", "two", "three", "four")
	r.uc.add(a.user.ID, "", "of a machine")
	all.expect("of a machine")
}

// A reader that wants no history gets none, and misses nothing from there on.
func TestEventsFromNow(t *testing.T) {
	r := newRig(t, nil)
	add := func(m string) { r.uc.add(r.alice.user.ID, r.alice.session, m) }
	const path = "/api/v1/events?from=now"
	begins := func(s *reader, want string) {
		t.Helper()
		for s.sc.Scan() {
			if id, ok := strings.CutPrefix(s.sc.Text(), "id: "); ok {
				if id != want {
					t.Errorf("the stream begins at %s, want %s", id, want)
				}
				return
			}
		}
		t.Fatal("the stream has no beginning")
	}
	begins(r.subscribe(path, bearer(r.bob.token)), "0")
	add("one")
	add("two")
	r.uc.add(r.bob.user.ID, r.bob.session, "of bob")
	s := r.subscribe(path, bearer(r.alice.token))
	begins(s, "2")
	add("three")
	s.expect("three")
	_ = s.body.Close()
	add("four")

	// EventSource connects again to the same address, with what it saw last: an
	// event, or where the stream began.
	r.subscribe(path, bearer(r.alice.token), header("Last-Event-ID", "4")).expect("four")
	r.subscribe(path, bearer(r.alice.token), header("Last-Event-ID", "2")).expect("three", "four")
	r.subscribe(path+"&after=4", bearer(r.alice.token)).expect("four")

	r.problem(r.do("GET", "/api/v1/events?from=then", "", bearer(r.alice.token)), ProblemCodeInvalidRequest)
}

// More events than one read takes, some of them written while it reads.
func TestEventsInBatches(t *testing.T) {
	r := newRig(t, nil)
	const n = 3*eventBatch + 7
	for range eventBatch + 1 {
		r.uc.add(r.alice.user.ID, r.alice.session, "x")
	}
	s := r.subscribe("/api/v1/events", bearer(r.alice.token))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range n - eventBatch - 1 {
			r.uc.add(r.alice.user.ID, r.alice.session, "x")
		}
	}()
	for want := int64(1); want <= n; want++ {
		if e, _ := s.next(); e.Seq != want {
			t.Fatalf("event %d instead of %d", e.Seq, want)
		}
	}
	<-done
}

func TestEventsHeartbeat(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 5 * time.Millisecond })
	s := r.subscribe("/api/v1/events", bearer(r.alice.token))
	for beats := 0; beats < 2; {
		if !s.sc.Scan() {
			t.Fatal("the stream ended")
		}
		if strings.HasPrefix(s.sc.Text(), ":") {
			beats++
		}
	}
	r.uc.add(r.alice.user.ID, r.alice.session, "still here")
	s.expect("still here")
}

func TestEventsEndWithTheSignIn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = time.Hour }) // at once, not at the next look
	c := r.browser(r.alice)
	cookie := c.Jar.Cookies(mustURL(t, r.http.URL))[0]
	s := r.subscribe("/api/v1/events", header("Cookie", cookie.Name+"="+cookie.Value))
	other := r.subscribe("/api/v1/events", bearer(r.alice.token))
	if a := r.send(c, "POST", "/api/v1/logout", ""); a.status != http.StatusNoContent {
		t.Fatal(a.status)
	}
	s.ended()
	r.uc.add(r.alice.user.ID, r.alice.session, "for who is signed in")
	other.expect("for who is signed in")
}

// A token that is deleted behind the server's back ends its streams too.
func TestEventsEndWithTheToken(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Heartbeat = 5 * time.Millisecond })
	s := r.subscribe("/api/v1/events", bearer(r.alice.token))
	tokens, err := r.db.Tokens(t.Context(), r.alice.user.ID)
	if err != nil || len(tokens) != 1 {
		t.Fatal(tokens, err)
	}
	if err := r.db.DeleteToken(t.Context(), r.alice.user.ID, tokens[0].ID); err != nil {
		t.Fatal(err)
	}
	s.ended()
}

func TestEventsEndWithTheServer(t *testing.T) {
	r := newRig(t, nil)
	s := r.subscribe("/api/v1/events", bearer(r.alice.token))
	if err := r.server.Shutdown(testContext(t)); err != nil {
		t.Fatal(err)
	}
	s.ended()
	r.problem(r.do("GET", "/api/v1/events", "", bearer(r.alice.token)), ProblemCodeUnavailable)
	if err := r.server.Shutdown(testContext(t)); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestTooManyStreams(t *testing.T) {
	r := newRig(t, nil)
	var last *reader
	for range maxStreamsPerUser {
		last = r.subscribe("/api/v1/events", bearer(r.alice.token))
	}
	r.problem(r.do("GET", "/api/v1/events", "", bearer(r.alice.token)), ProblemCodeTooManyStreams)
	r.subscribe("/api/v1/events", bearer(r.bob.token)) // others are not held up
	_ = last.body.Close()
}

func TestEventsErrors(t *testing.T) {
	r := newRig(t, nil)
	s := r.subscribe("/api/v1/events", bearer(r.alice.token))
	r.uc.failWith(errors.New("SECRET"))
	r.problem(r.do("GET", "/api/v1/events", "", bearer(r.alice.token)), ProblemCodeInternal)
	r.uc.add(r.alice.user.ID, r.alice.session, "never arrives")
	s.ended() // so that the page connects again
}

func TestEventsHead(t *testing.T) {
	r := newRig(t, nil)
	if a := r.do("HEAD", "/api/v1/events", "", bearer(r.alice.token)); a.status != http.StatusOK {
		t.Errorf("%d", a.status)
	}
}
