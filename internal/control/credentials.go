package control

import (
	"context"
	"errors"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/vault"
)

// stepCapturing checks that the guest has the files, before anything is
// written. They are fetched again for storing: what the host holds of them is
// in memory only, and this may be another server by then.
func (s *Service) stepCapturing(ctx context.Context, now session.Session) (session.Session, error) {
	creds, err := s.fetch(ctx, now)
	if err != nil {
		return now, err
	}
	wipe(creds.Files)
	return s.db.Move(ctx, now.ID, session.Capturing, session.Storing, s.cfg.Owner, store.Change{}, "Encrypting and storing the credentials.")
}

// fetch takes the captured files from the session's machine and checks them:
// the guest is not believed that it did.
func (s *Service) fetch(ctx context.Context, now session.Session) (guestapi.Credentials, error) {
	var none guestapi.Credentials
	file, err := s.cfg.Providers.Get(now.Provider)
	if err != nil {
		return none, fail(session.ReasonProviderGone, err)
	}
	m, err := s.sessionMachine(ctx, now)
	if err != nil {
		return none, err
	}
	for {
		guest, err := m.Guest(ctx)
		if err != nil {
			return none, lost(err)
		}
		creds, err := guest.Credentials(ctx)
		switch {
		case err == nil:
			if creds.SessionID != string(now.ID) || creds.Provider != file.Name {
				return none, fail(session.ReasonCaptureInvalid, errors.New("the guest answers for another session"))
			}
			if err := checkFiles(file, creds.Files); err != nil {
				return none, fail(session.ReasonCaptureInvalid, err)
			}
			return creds, nil
		case answered(err):
			return none, fail(session.ReasonCaptureInvalid, err)
		}
		if err := pause(ctx, brokenPause); err != nil {
			return none, err
		}
	}
}

// checkFiles holds a set of files to what the provider file says of them.
func checkFiles(file *provider.File, files []guestapi.File) error {
	have := contents(files)
	if len(have) != len(files) {
		return errors.New("a file comes twice")
	}
	return file.Check(have)
}

func contents(files []guestapi.File) provider.Content {
	out := make(provider.Content, len(files))
	for _, f := range files {
		out[f.Name] = f.Content
	}
	return out
}

// stepStoring seals the files and commits version, state and audit record at
// once.
func (s *Service) stepStoring(ctx context.Context, now session.Session) (session.Session, error) {
	creds, err := s.fetch(ctx, now)
	if err != nil {
		return now, err
	}
	defer wipe(creds.Files)
	for {
		c, err := s.seal(ctx, now.UserID, now.Provider, creds)
		if err != nil {
			return now, failFor(session.ReasonStore, err)
		}
		c.SessionID = now.ID
		next, _, err := s.db.CommitCredential(ctx, now.ID, s.cfg.Owner, c, "Stored; delivering to your own machine.")
		var moved *session.ConflictError
		switch {
		case err == nil:
			return next, nil
		case errors.As(err, &moved) || ctx.Err() != nil:
			return now, err
		case errors.Is(err, store.ErrConflict):
			continue // another session took the version number
		}
		return now, failFor(session.ReasonStore, err)
	}
}

// seal makes the next version of a credential.
func (s *Service) seal(ctx context.Context, userID, providerName string, creds guestapi.Credentials) (store.Credential, error) {
	version, err := s.db.NextVersion(ctx, userID, providerName)
	if err != nil {
		return store.Credential{}, err
	}
	c := store.Credential{
		ID: newCredentialID(), UserID: userID, Provider: providerName, Version: version,
		Account: store.Clip(creds.Account, 200), ExpiresAt: creds.ExpiresAt,
	}
	files := make([]vault.File, len(creds.Files))
	for i, f := range creds.Files {
		files[i] = vault.File{Name: f.Name, Content: f.Content}
	}
	c.Sealed, err = s.cfg.Vault.Seal(vault.BindingOf(c), files)
	return c, err
}

// storedAnyway is the sentence for a person whose session ends without success
// though its credentials are stored; empty where the reason's own says so.
func storedAnyway(reason session.Reason) string {
	switch reason {
	case session.ReasonDelivery:
		return ""
	case session.ReasonDiskFull, session.ReasonNoMemory:
		return "The credentials are stored; press Deliver once there is room."
	case session.ReasonCancelled:
		return "The credentials were stored before that, and your own machine gets them when it runs. Delete them if you do not want them."
	}
	return "The credentials are stored all the same: no new sign-in is needed, press Deliver."
}

// stepDelivering hands the version to the user's own machine.
func (s *Service) stepDelivering(ctx context.Context, now session.Session) (session.Session, error) {
	if _, err := s.deliver(ctx, now.UserID, now.Provider); err != nil {
		if ctx.Err() != nil {
			return now, err
		}
		return now, failFor(session.ReasonDelivery, err)
	}
	return s.db.Move(ctx, now.ID, session.Delivering, session.Completed, s.cfg.Owner, store.Change{}, "Delivered: the tool on your own machine is signed in.")
}
