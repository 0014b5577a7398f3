package control

import (
	"context"
	"errors"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/ways"
)

// wayOut is who leaves through which upstream. Package ways says what the
// methods guarantee.
type wayOut interface {
	Use(userID string)
	Done(userID string)
	Open(ctx context.Context, userID string, need *provider.File) (ways.Way, error)
}

// wayTime is how long a session waits for a way out that may still be mended,
// and wayPause how long between two tries.
const (
	wayTime  = 2 * time.Minute
	wayPause = 2 * time.Second
)

// opened is what comes of opening a session's way out.
type opened struct {
	way ways.Way
	err error
}

// openWay opens the way out of a session, beside whatever else is done for it.
// The channel gets one value, unless ctx ends first.
func (s *Service) openWay(ctx context.Context, now session.Session, need *provider.File) <-chan opened {
	out := make(chan opened, 1)
	s.goRun(func(context.Context) {
		if o := s.waitForWay(ctx, now, need); ctx.Err() == nil {
			out <- o
		}
	})
	return out
}

// waitForWay tries to open a way out for as long as it may still be mended.
func (s *Service) waitForWay(ctx context.Context, now session.Session, need *provider.File) opened {
	began := time.Now()
	for said := false; ; {
		way, err := s.cfg.Ways.Open(ctx, now.UserID, need)
		var why *ways.Error
		if err == nil || !errors.As(err, &why) || !why.Temporary() || time.Since(began) > wayTime || ctx.Err() != nil {
			return opened{way, wayFailure(err)}
		}
		s.logger.Warn("way out could not be opened; it is tried again", "session", now.ID, "err", err)
		if !said {
			said = true
			s.progress(ctx, now, "Your way out to the internet does not answer yet; it is tried again.")
		}
		if err := pause(ctx, wayPause); err != nil {
			return opened{err: err}
		}
	}
}

// keepWay opens the way out of a session that an earlier server has started,
// and has the session fail if there is none.
func (s *Service) keepWay(ctx context.Context, now session.Session, need *provider.File) {
	s.goRun(func(context.Context) {
		if o := s.waitForWay(ctx, now, need); o.err != nil && ctx.Err() == nil {
			s.interrupt(now.ID, o.err)
		}
	})
}

// progress tells a session's person in a sentence how it stands.
func (s *Service) progress(ctx context.Context, now session.Session, sentence string) {
	_, err := s.db.AddEvent(ctx, session.Event{SessionID: now.ID, UserID: now.UserID, Kind: session.EventProgress, Message: sentence})
	if err != nil && ctx.Err() == nil {
		s.logger.Warn("recording progress", "session", now.ID, "err", err)
	}
	s.changes.tell()
}

// wayFailure turns why a way is shut into why a session fails.
func wayFailure(err error) error {
	var why *ways.Error
	if !errors.As(err, &why) {
		return err
	}
	reasons := map[ways.Code]session.Reason{
		ways.NoPort: session.ReasonNoPort, ways.Blocked: session.ReasonBlocked, ways.Changed: session.ReasonExitChanged,
		ways.Quarantined: session.ReasonPortShut, ways.Unconfigured: session.ReasonPortShut,
		ways.Internal: session.ReasonInternal,
	}
	reason, ok := reasons[why.Code]
	if !ok {
		reason = session.ReasonUpstream
	}
	return &failure{reason: reason, detail: why.Sentence(), err: err}
}

// WayLost has the sessions that still need the internet fail whose user's way
// was shut for good; of one that may mend by itself they are told. It returns
// at once.
func (s *Service) WayLost(userID string, why *ways.Error) {
	if why.Temporary() {
		s.WayNews(userID, "Your way out to the internet is shut, since it could not be seen where it leads; it is opened again as soon as that is known.")
		return
	}
	s.onNet(userID, func(_ context.Context, now session.Session) { s.interrupt(now.ID, wayFailure(why)) })
}

// WayNews tells the sessions that still need the internet how their way out
// stands. It returns at once.
func (s *Service) WayNews(userID, sentence string) {
	s.onNet(userID, func(ctx context.Context, now session.Session) { s.progress(ctx, now, sentence) })
}

// onNet calls f for every session of a user that has not come past the sign-in.
func (s *Service) onNet(userID string, f func(ctx context.Context, now session.Session)) {
	s.goRun(func(ctx context.Context) {
		open, err := s.db.OpenSessions(ctx)
		if err != nil {
			if ctx.Err() == nil {
				s.logger.Error("looking for a user's sessions", "err", err)
			}
			return
		}
		for _, one := range open {
			if one.UserID == userID && (one.State == session.Starting || one.State == session.Waiting) {
				f(ctx, one)
			}
		}
	})
}

// throughWay notes in a change where the session's machine leaves from.
func throughWay(change store.Change, way ways.Way) store.Change {
	if way.ExitAddress != "" {
		change.ExitAddress = &way.ExitAddress
	}
	return change
}
