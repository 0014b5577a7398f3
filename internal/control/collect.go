package control

import (
	"context"
	"errors"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
)

// occasion is when credentials are taken back.
type occasion bool

const (
	inPassing  occasion = false // in a round of watch; not more often than may be stored
	lastChance occasion = true  // their owner has asked for what may make an end of them
)

// collect takes back what the tools on a cli machine have refreshed. Errors
// are logged: the next round tries again. The caller holds the user's lock.
func (s *Service) collect(ctx context.Context, p *person, m *machine.Machine, when occasion) {
	active, err := s.db.ActiveCredentials(ctx, p.id)
	if err != nil {
		if ctx.Err() == nil {
			s.logger.Error("reading credentials", "err", err)
		}
		return
	}
	for _, c := range active {
		if c.DeliveredTo != m.ID() {
			continue // what is there is not built on this version
		}
		if when == inPassing && !p.mayStore(c.Provider) {
			continue
		}
		if err := s.collectOne(ctx, p, m, c); err != nil && ctx.Err() == nil {
			s.logger.Warn("taking back refreshed credentials", "machine", m.ID(), "provider", c.Provider, "err", err)
		}
	}
}

// collectOne stores what a tool has made of version c, if that is valid and
// fresher. A file that a tool has blanked or lost is left alone.
func (s *Service) collectOne(ctx context.Context, p *person, m *machine.Machine, c store.Credential) error {
	file, err := s.cfg.Providers.Get(c.Provider)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	guest, err := m.Guest(ctx)
	if errors.Is(err, machine.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	now, err := guest.Collect(ctx, guestapi.Collect{Provider: file})
	var refused *guestapi.StatusError
	if errors.As(err, &refused) {
		return nil // not what the provider file describes: signed out, or in the middle of a write
	}
	if err != nil {
		return err
	}
	defer wipe(now.Files)
	if checkFiles(file, now.Files) != nil {
		return nil
	}
	fresher := false
	err = s.opened(c, func(had []guestapi.File) error {
		fresher = guestapi.DeliveryHash(now.Files) != guestapi.DeliveryHash(had) && provider.Fresher(file, contents(had), contents(now.Files))
		return nil
	})
	if err != nil || !fresher {
		return err
	}
	if now.Account == "" {
		now.Account = c.Account
	}
	next, err := s.seal(ctx, c.UserID, c.Provider, now)
	if err != nil {
		return err
	}
	next.SessionID = c.SessionID
	_, err = s.db.CommitRefreshed(ctx, c.ID, next, m.ID(), "The tool on your machine has renewed its sign-in; the new version is stored.")
	if errors.Is(err, session.ErrConflict) {
		return nil // a sign-in was stored in between
	}
	if err == nil {
		p.hasStored(c.Provider)
		s.changes.tell()
	}
	return err
}
