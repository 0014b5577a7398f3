package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/anteroom/anteroom/internal/session"
)

// eventBatch is how many events are read at once.
const eventBatch = 256

// SessionEvents streams the events of one session.
func (a api) SessionEvents(w http.ResponseWriter, r *http.Request, id ID, params SessionEventsParams) {
	if s, ok := a.session(w, r, id); ok {
		a.events(w, r, s.ID, beginning{after: params.After, last: params.LastEventID})
	}
}

// AllEvents streams all events of the user, or those from now on.
func (a api) AllEvents(w http.ResponseWriter, r *http.Request, params AllEventsParams) {
	if params.From != nil && !params.From.Valid() {
		a.problem(w, r, ProblemCodeInvalidRequest, `from can only be "now".`)
		return
	}
	a.events(w, r, "", beginning{after: params.After, last: params.LastEventID, now: params.From != nil})
}

func (a api) events(w http.ResponseWriter, r *http.Request, id session.ID, begin beginning) {
	from, now, err := begin.place()
	if err != nil {
		a.problem(w, r, ProblemCodeInvalidRequest, err.Error())
		return
	}
	ctx, end, ok := a.beginStream(r.Context(), w, r)
	if !ok {
		return
	}
	defer end()
	defer a.metrics.stream("events")()
	es := &eventStream{
		api: a, w: w, rc: http.NewResponseController(w),
		user: who(r).user.ID, session: id, after: from,
	}
	// The first read comes before the headers: it can still fail as a problem,
	// and what happens once they are there is in the stream.
	changed := a.cfg.UseCases.Changed()
	batch, err := es.first(ctx, now)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if err := es.follow(ctx, batch, changed); err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "event stream broke off", slog.Any("error", err))
	}
}

var (
	errLastEventID = errors.New("Last-Event-ID must be a number that the server sent.") //nolint:staticcheck // a sentence for the client
	errAfter       = errors.New("after must not be negative.")                          //nolint:staticcheck // a sentence for the client
)

// beginning is what a reader says of where its stream begins.
type beginning struct {
	last  *LastEventID // of the last event that it saw
	after *After       // where there is no last
	now   bool         // where there is neither
}

// place is the number after which the stream begins; now says that it is not
// known yet.
func (b beginning) place() (after int64, now bool, err error) {
	if b.last != nil && *b.last != "" {
		n, err := strconv.ParseInt(*b.last, 10, 64)
		if err != nil || n < 0 {
			return 0, false, errLastEventID
		}
		return n, false, nil
	}
	if b.after == nil {
		return 0, b.now, nil
	}
	if *b.after < 0 {
		return 0, false, errAfter
	}
	return *b.after, false, nil
}

// eventStream is one reader's stream while it is open.
type eventStream struct {
	api     api
	w       io.Writer
	rc      *http.ResponseController
	user    string
	session session.ID
	after   int64
}

// first finds out where the stream begins, if that is now, and reads from there.
func (es *eventStream) first(ctx context.Context, now bool) (batch []session.Event, err error) {
	if now {
		if es.after, err = es.api.cfg.UseCases.LatestSeq(ctx, es.user); err != nil {
			return nil, err
		}
	}
	return es.read(ctx)
}

func (es *eventStream) read(ctx context.Context) ([]session.Event, error) {
	return es.api.cfg.UseCases.EventsAfter(ctx, es.user, es.session, es.after, eventBatch)
}

// follow writes a batch, and then whatever comes, until ctx ends. changed was
// taken before the batch was read, so nothing falls in between.
func (es *eventStream) follow(ctx context.Context, batch []session.Event, changed <-chan struct{}) error {
	tick := time.NewTicker(es.api.cfg.Heartbeat)
	defer tick.Stop()
	// The id is that of no event: a reader whose connection breaks before the
	// first one goes on from here.
	if err := es.send(func() error { _, err := fmt.Fprintf(es.w, "retry: 1000\nid: %d\n\n", es.after); return err }); err != nil {
		return err
	}
	for {
		if err := es.write(batch); err != nil {
			return err
		}
		if len(batch) < eventBatch {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			case <-tick.C:
				if err := es.send(func() error { _, err := io.WriteString(es.w, ":\n\n"); return err }); err != nil {
					return err
				}
				batch = nil
				continue
			}
		}
		changed = es.api.cfg.UseCases.Changed()
		var err error
		if batch, err = es.read(ctx); err != nil {
			return err
		}
	}
}

func (es *eventStream) write(batch []session.Event) error {
	if len(batch) == 0 {
		return nil
	}
	return es.send(func() error {
		for _, e := range batch {
			b, err := json.Marshal(apiEvent(e))
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(es.w, "id: %d\ndata: %s\n\n", e.Seq, b); err != nil {
				return err
			}
			es.after = e.Seq
		}
		return nil
	})
}

// send writes and flushes within the time that a reader has for it.
func (es *eventStream) send(write func() error) error {
	if err := es.rc.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if err := write(); err != nil {
		return err
	}
	return es.rc.Flush()
}

// beginStream registers a long answer, or says why there cannot be one.
func (s *Server) beginStream(ctx context.Context, w http.ResponseWriter, r *http.Request) (context.Context, func(), bool) {
	id := who(r)
	ctx, end, err := s.live.begin(ctx, id, s.cfg.Heartbeat, func(ctx context.Context) bool {
		return s.stillSignedIn(ctx, id)
	})
	switch {
	case errors.Is(err, errTooManyStreams):
		s.problem(w, r, ProblemCodeTooManyStreams, "Too many streams of yours are open. Close some of the pages.")
	case err != nil:
		s.problem(w, r, ProblemCodeUnavailable, "The server is stopping. Please try again in a moment.")
	default:
		return ctx, end, true
	}
	return nil, nil, false
}
