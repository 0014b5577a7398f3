package ways

import (
	"context"
	"errors"
	"fmt"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
)

// ErrShared says that there are no ports to administer: all users leave
// through the same upstream.
var ErrShared = fmt.Errorf("ways: all users leave through the same upstream: %w", store.ErrConflict)

// Port is an upstream port as an administrator sees it.
type Port struct {
	store.Port
	Configured bool // it is in the configuration
	InUse      bool // machines leave through it
}

// Ports returns all upstream ports, in order; none where the way is shared.
func (w *Ways) Ports(ctx context.Context) ([]Port, error) {
	if w.cfg.Shared {
		return []Port{}, nil
	}
	all, err := w.cfg.Database.Ports(ctx)
	if err != nil {
		return nil, err
	}
	open := w.allOpen()
	out := make([]Port, len(all))
	for i, p := range all {
		_, configured := w.ups[p.PortKey]
		way, inUse := open[p.UserID]
		out[i] = Port{Port: p, Configured: configured, InUse: inUse && way.Port == p.PortKey}
	}
	return out, nil
}

// PortOf returns the port that a user has, or store.ErrNotFound.
func (w *Ways) PortOf(ctx context.Context, userID string) (store.Port, error) {
	return w.cfg.Database.PortOf(ctx, userID)
}

// Assign moves a user to a port that nobody has. Their machines leave through
// it as soon as its address has been seen.
func (w *Ways) Assign(ctx context.Context, userID string, key store.PortKey) (store.Port, error) {
	if err := w.known(key); err != nil {
		return store.Port{}, err
	}
	p, err := w.cfg.Database.AssignPort(ctx, userID, key, w.cfg.Rest)
	if err == nil {
		w.log.Info("upstream port assigned by an administrator", "user", userID, "upstream", key.String())
		w.follow(ctx)
		w.again(userID)
	}
	return p, err
}

// Claim gives a user a port if they have none.
func (w *Ways) Claim(ctx context.Context, userID string) (store.Port, error) {
	if w.cfg.Shared {
		return store.Port{}, ErrShared
	}
	port, _, err := w.assigned(ctx, userID, "")
	return port, err
}

func (w *Ways) known(key store.PortKey) error {
	if w.cfg.Shared {
		return ErrShared
	}
	if _, ok := w.ups[key]; !ok {
		return fmt.Errorf("ways: %s is not in the configuration: %w", key, store.ErrNotFound)
	}
	return nil
}

// Release takes a port from its user, and out of quarantine. It rests before
// another user is given it; with now it does not.
func (w *Ways) Release(ctx context.Context, key store.PortKey, now bool) error {
	if w.cfg.Shared {
		return ErrShared
	}
	rest := w.cfg.Rest
	if now {
		rest = 0
	}
	if err := w.cfg.Database.ReleasePort(ctx, key, rest); err != nil {
		return err
	}
	w.log.Info("upstream port released by an administrator", "upstream", key.String())
	w.follow(ctx)
	return nil
}

// Quarantine puts a port out of use. Its user keeps it and cannot leave.
func (w *Ways) Quarantine(ctx context.Context, key store.PortKey, reason string) error {
	if w.cfg.Shared {
		return ErrShared
	}
	if err := w.cfg.Database.QuarantinePort(ctx, key, reason); err != nil {
		return err
	}
	w.log.Info("upstream port put into quarantine by an administrator", "upstream", key.String(), "reason", reason)
	w.follow(ctx)
	return nil
}

// Pin has a port that somebody has be the one with an exit address; "" means
// the one that is seen next. It takes the port out of quarantine.
// store.ErrNotFound if nobody has it.
func (w *Ways) Pin(ctx context.Context, key store.PortKey, address string) (store.Port, error) {
	if w.cfg.Shared {
		return store.Port{}, ErrShared
	}
	if address != "" {
		var err error
		if address, err = store.ParseAddress(address); err != nil {
			return store.Port{}, err
		}
	}
	p, err := w.cfg.Database.PinExit(ctx, key, address)
	if err == nil {
		w.log.Info("exit address pinned by an administrator", "user", p.UserID, "upstream", key.String(), "exit", address)
		w.follow(ctx)
		w.again(p.UserID)
	}
	return p, err
}

// Report is what a look at an upstream has shown.
type Report struct {
	ExitAddress string
	Err         *Error            // why that was not seen
	Refuses     map[string]string // a name that is refused, by provider
}

// Look looks at a port now, whether somebody has it or not, and notes what it
// refuses. Its address is told, and not pinned.
func (w *Ways) Look(ctx context.Context, key store.PortKey, providers []*provider.File) (Report, error) {
	up := w.cfg.Upstreams[0]
	if !w.cfg.Shared {
		if err := w.known(key); err != nil {
			return Report{}, err
		}
		up = w.ups[key]
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	w.forgetReached(up)
	out := Report{Refuses: map[string]string{}}
	var err error
	if out.ExitAddress, err = w.see(ctx, up, ""); err != nil {
		out.Err = asError(err)
		return out, nil
	}
	for _, file := range providers {
		refused, err := w.reaches(ctx, key, up, file)
		if refused == "" {
			if err != nil {
				out.Err = &Error{Code: Failed, Port: key, Err: err}
			}
			continue
		}
		out.Refuses[file.Name] = refused
		if w.cfg.Shared || egress.CodeOf(err) == egress.NameDenied {
			continue
		}
		if err := w.cfg.Database.PortRefuses(ctx, key, file.Name, refused); err != nil && !errors.Is(err, store.ErrNotFound) {
			return out, err
		}
	}
	return out, nil
}
