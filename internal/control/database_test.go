package control_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/control"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// failing is a database of which some writes fail for a while.
type failing struct {
	*sqlite.DB
	err   error
	until time.Time
	what  string
}

func (f *failing) fails(what string) error {
	if f.what == what && time.Now().Before(f.until) {
		return f.err
	}
	return nil
}

func (f *failing) CommitCredential(ctx context.Context, id session.ID, owner string, c store.Credential, message string) (session.Session, store.Credential, error) {
	if err := f.fails("commit"); err != nil {
		return session.Session{}, store.Credential{}, err
	}
	return f.DB.CommitCredential(ctx, id, owner, c, message)
}

func (f *failing) InsertVM(ctx context.Context, v store.VM) error {
	if err := f.fails("machine"); err != nil {
		return err
	}
	if err := f.fails("own machine"); err != nil && v.Kind == "cli" {
		return err
	}
	return f.DB.InsertVM(ctx, v)
}

func (f *failing) Move(ctx context.Context, id session.ID, from, to session.State, owner string, change store.Change, message string) (session.Session, error) {
	if err := f.fails("move"); err != nil {
		return session.Session{}, err
	}
	return f.DB.Move(ctx, id, from, to, owner, change, message)
}

func (f *failing) MarkDelivered(ctx context.Context, id, machineID string) error {
	if err := f.fails("delivered"); err != nil {
		return err
	}
	return f.DB.MarkDelivered(ctx, id, machineID)
}

func (f *failing) Heartbeat(ctx context.Context, id session.ID, owner string) error {
	if err := f.fails("heartbeat"); err != nil {
		return err
	}
	return f.DB.Heartbeat(ctx, id, owner)
}

// TestDatabaseFails: a write that fails ends the session with a reason, and
// nothing half-written stays.
func TestDatabaseFails(t *testing.T) {
	broken := errors.New("disk I/O error")
	for name, test := range map[string]struct {
		what   string
		err    error
		reason session.Reason
	}{
		"storing, disk full":  {"commit", store.ErrDiskFull, session.ReasonDiskFull},
		"storing, broken":     {"commit", broken, session.ReasonStore},
		"starting, disk full": {"machine", store.ErrDiskFull, session.ReasonDiskFull},
		"starting, broken":    {"machine", broken, session.ReasonMachineStart},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				db := &failing{DB: w.db, err: test.err, what: test.what, until: time.Now().Add(time.Minute)}
				s := w.serve(func(c *control.Config) { c.Database = db })
				g := w.hold(session.Waiting)
				close(g.open)
				now := w.reach(w.start(s, "claude"), session.Failed)
				if now.Reason != test.reason {
					t.Errorf("reason %q", now.Reason)
				}
				if _, err := w.db.ActiveCredential(t.Context(), w.user, "claude"); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("something was stored: %v", err)
				}
				w.quiet()
				<-time.After(time.Minute)
				again(t, w, s)
			})
		})
	}
}

// TestDatabaseComesBack: where not even the failure can be written, the session
// goes on once it can.
func TestDatabaseComesBack(t *testing.T) {
	for _, what := range []string{"move", "heartbeat"} {
		t.Run(what, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				g := w.hold(session.Waiting)
				db := &failing{DB: w.db, err: store.ErrDiskFull, what: what}
				s := w.serve(func(c *control.Config) { c.Database = db })
				id := w.start(s, "claude")
				before := w.reach(id, session.Waiting)
				db.until = time.Now().Add(time.Minute)
				close(g.open)
				<-time.After(time.Minute)
				done := w.reach(id, session.Completed)
				if done.VMID != before.VMID {
					t.Errorf("it had machine %s, then %s", before.VMID, done.VMID)
				}
				w.quiet()
			})
		})
	}
}
