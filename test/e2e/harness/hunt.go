package harness

import (
	"context"
	"fmt"
	"time"

	"github.com/anteroom/anteroom/internal/session"
)

// How long the server may go on between two looks at where it stands, and how
// long a look may take (a writer that was stopped in the wrong place can keep
// a reader waiting).
const (
	huntStep = 500 * time.Microsecond
	huntLook = 100 * time.Millisecond
)

// KillWhen kills the server (SIGKILL) at a moment in which hit is true of the
// session. It has the server advance in small steps and looks, while it is
// held still, at what it has written down; so nothing moves between the look
// and the kill. It returns the session as it stood then.
//
// A state that passes within one step is missed: past, if not nil, then says
// that it is too late, and ErrMissed is returned with the server running on.
func (r *Rig) KillWhen(ctx context.Context, id string, hit, past func(session.Session) bool) (session.Session, error) {
	step := time.NewTimer(huntStep)
	defer step.Stop()
	for {
		if err := r.Freeze(); err != nil {
			return session.Session{}, err
		}
		look, done := context.WithTimeout(ctx, huntLook)
		now, err := r.db.Session(look, session.ID(id))
		done()
		if err == nil && hit(now) {
			return now, r.Kill()
		}
		if thawErr := r.Thaw(); thawErr != nil {
			return now, thawErr
		}
		if err == nil && past != nil && past(now) {
			return now, fmt.Errorf("%w: it is %s", ErrMissed, now.State)
		}
		// A whole step from here on, so that a busy host does not keep the
		// server from moving at all.
		step.Reset(huntStep)
		select {
		case <-step.C:
		case <-ctx.Done():
			return now, fmt.Errorf("harness: hunting session %s, which is %s: %w", id, now.State, ctx.Err())
		}
	}
}
