package machine

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/anteroom/anteroom/internal/line"
)

// Spare is a machine that runs and is nobody's: its line is up, nothing of it
// has been configured, and every stream that its guest opens is closed at once.
// What takes long is over; what depends on its user is done by Take.
type Spare struct {
	manager *Manager
	id      string
	ref     json.RawMessage

	stop context.CancelFunc
	over <-chan struct{}
	work sync.WaitGroup
}

// Spare makes a machine that is to be somebody's later. After an error nothing
// of it is left. The caller has written the machine's durable marker before.
func (m *Manager) Spare(ctx context.Context, spec Spec) (*Spare, Created, error) {
	created, err := m.create(ctx, spec)
	if err != nil {
		return nil, Created{}, err
	}
	l, err := openLine(ctx, m.driver, spec.ID, created.Ref)
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyTimeout)
		defer cancel()
		return nil, Created{}, errors.Join(err, m.driver.Destroy(undo, spec.ID))
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Spare{manager: m, id: spec.ID, ref: created.Ref, stop: stop, over: run.Done()}
	s.work.Go(func() { defer stop(); refuse(run, l) })
	s.work.Go(func() { defer stop(); m.awaitEnd(run, spec.ID, created.Ref) })
	return s, created, nil
}

// refuse closes whatever the guest asks for, until the line ends.
func refuse(run context.Context, l *line.Line) {
	defer func() { _ = l.Close() }()
	stop := context.AfterFunc(run, func() { _ = l.Close() })
	defer stop()
	for {
		stream, err := l.Accept()
		if err != nil {
			return
		}
		_ = stream.Close()
	}
}

// ID is the machine's id.
func (s *Spare) ID() string { return s.id }

// Over is closed once the machine has ended or its line has broken, which makes
// it good for nothing but to be destroyed, or it was taken or let go.
func (s *Spare) Over() <-chan struct{} { return s.over }

// Take makes the machine somebody's, over a new line of its own, so that nothing
// which its guest has asked for before is ever answered: the machine is
// configured and has acknowledged that, as after Manager.Start. It is called
// once. After an error the machine is still there and is to be destroyed.
func (s *Spare) Take(ctx context.Context, settings Settings) (*Machine, error) {
	s.Detach()
	return s.manager.attach(ctx, s.id, s.ref, settings, fresh)
}

// Detach lets go of the machine, which runs on; it returns when nothing of this
// process is attached to it any more. Idempotent.
func (s *Spare) Detach() {
	s.stop()
	s.work.Wait()
}
