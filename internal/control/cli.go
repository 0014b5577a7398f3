package control

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/machine"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/vault"
)

// collectEvery is how often a cli machine is asked whether a tool has
// refreshed its tokens. What was refreshed later than that is lost if the
// machine is killed, since its credential files are in memory only.
const collectEvery = 5 * time.Second

// guestTime is how long one request to a cli machine may take.
const guestTime = 30 * time.Second

// lockPerson lets one start, delivery or collection at a time be under way for
// a user's cli machine. It waits for as long as ctx allows.
func (s *Service) lockPerson(ctx context.Context, userID string) (unlock func(), err error) {
	s.mu.Lock()
	place := s.people[userID]
	if place == nil {
		place = make(chan struct{}, 1)
		s.people[userID] = place
	}
	s.mu.Unlock()
	select {
	case place <- struct{}{}:
		return func() { <-place }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cliMachine returns the user's cli machine: the one that runs, adopted after
// a restart, or (made) a new one with all active credentials delivered. The
// caller holds the user's lock.
func (s *Service) cliMachine(ctx context.Context, userID string) (m *machine.Machine, made bool, err error) {
	vm, err := s.db.CLIMachine(ctx, userID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		m, err = s.newCLIMachine(ctx, userID)
		return m, true, err
	case err != nil:
		return nil, false, err
	}
	if m := s.machine(vm.ID); m != nil {
		select {
		case <-m.Done():
		default:
			return m, false, nil
		}
	} else if m, err := s.adopt(ctx, vm, guestapi.View{}); err == nil {
		s.watch(userID, m)
		return m, false, nil
	} else if ctx.Err() != nil || errors.Is(err, errNotRunning) {
		return nil, false, err
	}
	if err := s.destroy(ctx, vm, "it was no longer running"); err != nil {
		return nil, false, err
	}
	m, err = s.newCLIMachine(ctx, userID)
	return m, true, err
}

func (s *Service) newCLIMachine(ctx context.Context, userID string) (*machine.Machine, error) {
	home := s.home(userID)
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("the person's home: %w", err)
	}
	vm := store.VM{
		ID: newMachineID(), UserID: userID, Kind: string(machine.CLI),
		Driver: s.cfg.Machines.Driver(), State: store.VMCreating, ImageID: s.cfg.ImageID,
	}
	m, err := s.start(ctx, vm, machine.Spec{ID: vm.ID, Kind: machine.CLI, Home: home}, guestapi.View{})
	if err != nil {
		return nil, err
	}
	s.watch(userID, m)
	active, err := s.db.ActiveCredentials(ctx, userID)
	if err != nil {
		return nil, err
	}
	for _, c := range active {
		if err := s.hand(ctx, m, c); err != nil {
			// The others are delivered all the same: this one can be again.
			s.logger.Error("delivering at the machine's start", "machine", m.ID(), "provider", c.Provider, "err", err)
		}
	}
	return m, nil
}

// deliver hands the active version of a provider's credential to the user's
// machine. What that machine has refreshed by itself is taken back first, so
// that an older version never overwrites a newer one.
func (s *Service) deliver(ctx context.Context, userID, providerName string) error {
	unlock, err := s.lockPerson(ctx, userID)
	if err != nil {
		return err
	}
	defer unlock()
	if s.cfg.Deliver != nil {
		c, err := s.db.ActiveCredential(ctx, userID, providerName)
		if err != nil {
			return err
		}
		return s.handTo(ctx, here, s.cfg.Deliver, c)
	}
	err = s.deliverToMachine(ctx, userID, providerName)
	if errors.Is(err, machine.ErrGone) {
		// It ended just now: another is made.
		err = s.deliverToMachine(ctx, userID, providerName)
	}
	return err
}

func (s *Service) deliverToMachine(ctx context.Context, userID, providerName string) error {
	m, made, err := s.cliMachine(ctx, userID)
	if err != nil {
		return err
	}
	s.collect(ctx, userID, m)
	c, err := s.db.ActiveCredential(ctx, userID, providerName)
	if err != nil {
		return err
	}
	if made && c.DeliveredTo == m.ID() {
		return nil // with everything else, when it started
	}
	return s.hand(ctx, m, c)
}

// hand delivers one version to a machine. Where the line breaks it is sent
// again, which the agent knows; machine.ErrGone if the machine has ended.
func (s *Service) hand(ctx context.Context, m *machine.Machine, c store.Credential) error {
	return s.handTo(ctx, m.ID(), func(ctx context.Context, in guestapi.Delivery) (guestapi.DeliveryAck, error) {
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
	}, c)
}

// handTo delivers one version to a holder and notes the acknowledgement.
func (s *Service) handTo(ctx context.Context, holder string, deliver func(context.Context, guestapi.Delivery) (guestapi.DeliveryAck, error), c store.Credential) error {
	file, err := s.cfg.Providers.Get(c.Provider)
	if err != nil {
		return err
	}
	files, err := s.open(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	ack, err := deliver(ctx, guestapi.Delivery{CredentialID: c.ID, SessionID: string(c.SessionID), Version: c.Version, Provider: file, Files: files})
	if err != nil {
		return err
	}
	if ack.CredentialID != c.ID || ack.Version != c.Version || ack.SHA256 != guestapi.DeliveryHash(files) {
		return errors.New("the acknowledgement is for something else than was delivered")
	}
	if err := s.db.MarkDelivered(ctx, c.ID, holder); err != nil {
		return err
	}
	s.changes.tell()
	return nil
}

// open decrypts a version's files.
func (s *Service) open(c store.Credential) ([]guestapi.File, error) {
	opened, err := s.cfg.Vault.Open(vault.BindingOf(c), c.Sealed)
	if err != nil {
		return nil, err
	}
	files := make([]guestapi.File, len(opened))
	for i, f := range opened {
		files[i] = guestapi.File{Name: f.Name, Content: f.Content}
	}
	return files, nil
}

// removeFromMachine takes a provider's files away from the user's machine, if
// that runs. The caller holds the user's lock.
func (s *Service) removeFromMachine(ctx context.Context, userID, providerName string) error {
	vm, err := s.db.CLIMachine(ctx, userID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	m := s.machine(vm.ID)
	file, err := s.cfg.Providers.Get(providerName)
	if m == nil || err != nil {
		return nil // it will start without them
	}
	ctx, cancel := context.WithTimeout(ctx, guestTime)
	defer cancel()
	guest, err := m.Guest(ctx)
	if err != nil {
		return nil
	}
	_, err = guest.Deliver(ctx, guestapi.Delivery{Provider: file})
	return err
}

// watch follows a cli machine: what its tools refresh becomes a new version,
// and when it ends without having been asked to, its row says so.
func (s *Service) watch(userID string, m *machine.Machine) {
	s.goRun(func(ctx context.Context) {
		ticker := time.NewTicker(collectEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-m.Done():
				// Under the lock, since a delivery may be clearing it away too.
				unlock, err := s.lockPerson(ctx, userID)
				if err != nil {
					return
				}
				defer unlock()
				if err := s.destroyID(ctx, m.ID(), "it ended by itself"); err != nil {
					s.logger.Error("clearing away a machine that ended", "machine", m.ID(), "err", err)
				}
				return
			case <-ticker.C:
			}
			if s.machine(m.ID()) != m {
				return // destroyed
			}
			unlock, err := s.lockPerson(ctx, userID)
			if err != nil {
				return
			}
			s.collect(ctx, userID, m)
			unlock()
		}
	})
}

// collect takes back what the tools on a cli machine have refreshed. Errors
// are logged: the next round tries again. The caller holds the user's lock.
func (s *Service) collect(ctx context.Context, userID string, m *machine.Machine) {
	active, err := s.db.ActiveCredentials(ctx, userID)
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
		if err := s.collectOne(ctx, m, c); err != nil && ctx.Err() == nil {
			s.logger.Warn("taking back refreshed credentials", "machine", m.ID(), "provider", c.Provider, "err", err)
		}
	}
}

// collectOne stores what a tool has made of version c, if that is valid and
// fresher. A file that a tool has blanked or lost is left alone.
func (s *Service) collectOne(ctx context.Context, m *machine.Machine, c store.Credential) error {
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
	had, err := s.open(c)
	if err != nil {
		return err
	}
	if guestapi.DeliveryHash(now.Files) == guestapi.DeliveryHash(had) || checkFiles(file, now.Files) != nil {
		return nil
	}
	if !provider.Fresher(file, contents(had), contents(now.Files)) {
		return nil
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
		s.changes.tell()
	}
	return err
}
