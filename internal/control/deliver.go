package control

import (
	"context"
	"errors"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/vault"
)

// deliver hands the active version of a provider's credential to the user's
// machine, and returns it as it was before. What that machine has refreshed by
// itself is taken back first, so that an older version never overwrites a newer
// one.
func (s *Service) deliver(ctx context.Context, userID, providerName string) (store.Credential, error) {
	p, err := s.lockPerson(ctx, userID)
	if err != nil {
		return store.Credential{}, err
	}
	defer p.unlock()
	if s.cfg.Deliver != nil {
		c, err := s.db.ActiveCredential(ctx, userID, providerName)
		if err != nil {
			return store.Credential{}, err
		}
		return c, s.handTo(ctx, here, s.cfg.Deliver, c)
	}
	c, err := s.deliverToMachine(ctx, p, providerName)
	if errors.Is(err, machine.ErrGone) {
		// It ended just now: another is made.
		c, err = s.deliverToMachine(ctx, p, providerName)
	}
	return c, err
}

func (s *Service) deliverToMachine(ctx context.Context, p *person, providerName string) (store.Credential, error) {
	m, err := s.cliMachine(ctx, p)
	if err != nil {
		return store.Credential{}, err
	}
	s.collect(ctx, p, m, lastChance)
	c, err := s.db.ActiveCredential(ctx, p.id, providerName)
	if err != nil {
		return store.Credential{}, err
	}
	err = s.hand(ctx, m, c)
	switch {
	case err == nil:
		p.took(m.ID(), handing(providerName))
	case ctx.Err() == nil:
		p.refused(m.ID(), handing(providerName)) // so that it is not asked again at once
	}
	return c, err
}

// reconcile makes a cli machine hold what its owner has stored: it is handed
// each active version that it has not acknowledged, because it is new, because
// whoever was to hand it over was interrupted, or because it refused; and the
// files of what was deleted are taken away from it. Errors are logged; later
// rounds of watch try again, less and less often. What a tool has refreshed is
// not touched: that is a version that was acknowledged. The caller holds the
// user's lock.
func (s *Service) reconcile(ctx context.Context, p *person, m *machine.Machine) {
	active, err := s.db.CredentialsOf(ctx, p.id)
	var left []string
	if err == nil {
		left, err = s.db.LeftOn(ctx, p.id, m.ID())
	}
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Error("reading what a machine is to hold", "machine", m.ID(), "err", err)
		}
		return
	}
	for _, c := range active {
		if c.DeliveredTo == m.ID() {
			continue
		}
		s.attempt(ctx, p, m, handing(c.Provider), func() error {
			c, err := s.db.ActiveCredential(ctx, p.id, c.Provider)
			if err != nil {
				return err
			}
			return s.hand(ctx, m, c)
		})
	}
	for _, name := range left {
		s.attempt(ctx, p, m, "taking away "+name, func() error { return s.takeAway(ctx, p.id, m, name) })
	}
}

func handing(providerName string) string { return "handing over " + providerName }

// attempt has a machine take something, unless it has refused that only just
// now.
func (s *Service) attempt(ctx context.Context, p *person, m *machine.Machine, what string, do func() error) {
	if !p.due(m.ID(), what) {
		return
	}
	err := do()
	switch {
	case err == nil:
		p.took(m.ID(), what)
	case ctx.Err() != nil || errors.Is(err, machine.ErrGone):
		// Nothing that the machine has done.
	case p.refused(m.ID(), what):
		s.logger.Error("the machine does not take it; it is asked again, less and less often", "machine", m.ID(), "what", what, "err", err)
	default:
		s.logger.Debug("the machine still does not take it", "machine", m.ID(), "what", what, "err", err)
	}
}

// hand delivers one version to a machine; machine.ErrGone if that has ended.
func (s *Service) hand(ctx context.Context, m *machine.Machine, c store.Credential) error {
	return s.handTo(ctx, m.ID(), func(ctx context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error) {
		return send(ctx, m, in)
	}, c)
}

// send makes one delivery to a machine. Where the line breaks it is sent again,
// which the agent knows.
func send(ctx context.Context, m *machine.Machine, in guestapi.Delivery) (guestapi.DeliveryAck, error) {
	for {
		guest, err := m.Guest(ctx)
		if err != nil {
			return guestapi.DeliveryAck{}, err
		}
		ack, err := guest.Deliver(ctx, in)
		if err == nil || answered(err) {
			return ack, err
		}
		if pause(ctx, brokenPause) != nil {
			return guestapi.DeliveryAck{}, err
		}
	}
}

// takeAway removes a provider's files from a machine and notes that it has said
// so.
func (s *Service) takeAway(ctx context.Context, userID string, m *machine.Machine, providerName string) error {
	file, err := s.cfg.Providers.Get(providerName)
	if err != nil {
		return err
	}
	asking, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	ack, err := send(asking, m, guestapi.Delivery{Provider: file})
	if err != nil {
		return err
	}
	if ack.CredentialID != "" || ack.SHA256 != guestapi.DeliveryHash(nil) {
		return errOtherAck
	}
	return s.db.MarkTakenAway(context.WithoutCancel(ctx), userID, providerName, m.ID())
}

// errOtherAck says that a holder acknowledges what it was not given.
var errOtherAck = errors.New("the acknowledgement is for something else than was delivered")

// handTo delivers one version to a holder and notes the acknowledgement, also
// where nobody waits for it any more: the files are there then.
func (s *Service) handTo(ctx context.Context, holder string, deliver func(context.Context, guestapi.Delivery) (guestapi.DeliveryAck, error), c store.Credential) error {
	file, err := s.cfg.Providers.Get(c.Provider)
	if err != nil {
		return err
	}
	err = s.opened(c, func(files []guestapi.File) error {
		asking, cancel := context.WithTimeout(ctx, guestTime)
		defer cancel()
		ack, err := deliver(asking, guestapi.Delivery{CredentialID: c.ID, SessionID: string(c.SessionID), Version: c.Version, Provider: file, Files: files})
		if err == nil && (ack.CredentialID != c.ID || ack.Version != c.Version || ack.SHA256 != guestapi.DeliveryHash(files)) {
			err = errOtherAck
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.db.MarkDelivered(context.WithoutCancel(ctx), c.ID, holder); err != nil {
		return err
	}
	s.changes.tell()
	return nil
}

// opened decrypts a version's files for as long as use runs: their contents are
// cleared after it.
func (s *Service) opened(c store.Credential, use func([]guestapi.File) error) error {
	opened, err := s.cfg.Vault.Open(vault.BindingOf(c), c.Sealed)
	if err != nil {
		return err
	}
	files := make([]guestapi.File, len(opened))
	for i, f := range opened {
		files[i] = guestapi.File{Name: f.Name, Content: f.Content}
	}
	defer wipe(files)
	return use(files)
}

// wipe clears the contents of files that are of no more use.
func wipe(files []guestapi.File) {
	for _, f := range files {
		clear(f.Content)
	}
}
