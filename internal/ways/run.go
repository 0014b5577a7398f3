package ways

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/store"
)

// Run opens the ways that machines need and looks at open ones again, until
// ctx ends. It returns when nothing is under way any more.
func (w *Ways) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for followed := (time.Time{}); ; {
		if time.Since(followed) >= followEvery {
			followed = time.Now()
			w.follow(ctx)
		}
		for _, id := range w.due(time.Now()) {
			work.Go(func() { w.look(ctx, id) })
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// follow shuts the ways whose port is not their user's any more, or out of use:
// administrators change rows from other processes too.
func (w *Ways) follow(ctx context.Context) {
	open := w.allOpen()
	if w.cfg.Shared || len(open) == 0 {
		return
	}
	all, err := w.cfg.Database.Ports(ctx)
	if err != nil {
		if ctx.Err() == nil {
			w.log.Error("reading upstream ports", "err", err)
		}
		return
	}
	rows := make(map[store.PortKey]store.Port, len(all))
	for _, p := range all {
		rows[p.PortKey] = p
	}
	for id, way := range open {
		row := rows[way.Port]
		switch {
		case row.UserID == id && row.State == store.PortAssigned && (row.ExitAddress == "" || row.ExitAddress == way.ExitAddress):
		case row.UserID == id && row.State == store.PortQuarantined:
			w.shut(id, &Error{Code: Quarantined, Port: way.Port, Err: errors.New(row.Reason)})
		default:
			w.shut(id, &Error{Code: Shut, Port: way.Port, Err: errors.New("an administrator has changed whose port it is, or its address")})
			w.again(id)
		}
	}
}

func (w *Ways) allOpen() map[string]Way {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]Way{}
	for id, u := range w.users {
		if u.open != nil {
			out[id] = *u.open
		}
	}
	return out
}

// again has a user's way tried again at once.
func (w *Ways) again(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[userID]; u != nil {
		u.final, u.wait, u.next = nil, 0, time.Time{}
		if u.open == nil {
			w.cfg.Proxy.Expect(userID)
		}
	}
}

// due returns the users whose way is to be looked at, and puts that off until
// the next time.
func (w *Ways) due(now time.Time) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var ids []string
	for id, u := range w.users {
		if now.Before(u.next) || u.final != nil || u.machines == 0 {
			continue
		}
		u.next = now.Add(w.cfg.Exit.Every)
		if u.open == nil {
			u.wait = min(max(2*u.wait, retryFirst), retryLast)
			u.next = now.Add(u.wait)
		}
		if u.open == nil || w.cfg.Exit.URL != "" {
			ids = append(ids, id)
		}
	}
	return ids
}

// look opens a user's way, or checks an open one.
func (w *Ways) look(ctx context.Context, userID string) {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if _, open := w.Way(userID); !open {
		_, _, err := w.verified(ctx, userID, "")
		var why *Error
		if errors.As(err, &why) && ctx.Err() == nil {
			w.failed(userID, why)
		}
		return
	}
	_, err, _ := w.opening.Do(userID, func() (any, error) { return nil, w.check(ctx, userID) })
	if err != nil && ctx.Err() == nil {
		w.shut(userID, asError(err))
	}
}

// failed notes that a way could not be opened.
func (w *Ways) failed(userID string, why *Error) {
	if !why.Temporary() {
		w.shut(userID, why)
		return
	}
	w.log.Warn("way out could not be opened; it is tried again", "user", userID, "why", why)
}

// check looks whether an open way still leads to the same address. An error
// says that it must be shut.
func (w *Ways) check(ctx context.Context, userID string) error {
	w.mu.Lock()
	u := w.users[userID]
	if u == nil || u.open == nil {
		w.mu.Unlock()
		return nil
	}
	way, up := *u.open, u.up
	w.mu.Unlock()
	seen, err := w.see(ctx, up, way.ExitAddress)
	if err != nil {
		return w.unseen(userID, err)
	}
	if !w.cfg.Shared {
		if err := w.pinned(ctx, userID, store.Port{PortKey: way.Port}, seen); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.unseen > 0 {
		u.unseen = 0
		w.tell(userID, "Your way out to the internet works again.")
	}
	if u.open != nil {
		u.open = &Way{Port: way.Port, ExitAddress: seen}
	}
	return nil
}

// unseen counts checks that failed; after some the way counts as not verified.
func (w *Ways) unseen(userID string, err error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[userID]
	if u == nil {
		return nil
	}
	u.unseen++
	w.log.Warn("exit address could not be seen", "user", userID, "times", u.unseen, "err", err)
	if u.unseen >= maxUnseen {
		u.unseen = 0
		return err
	}
	if u.unseen == 1 {
		w.tell(userID, "Your way out to the internet does not answer at the moment; it is tried again.")
	}
	return nil
}

func (w *Ways) tell(userID, sentence string) {
	if w.cfg.News != nil {
		w.cfg.News(userID, sentence)
	}
}

// Health takes what the proxy tells of an upstream that begins to fail or
// works again, for the users who leave through it.
func (w *Ways) Health(up egress.Upstream, works bool) {
	sentence := "Your way out to the internet does not answer at the moment; it is tried again."
	if works {
		sentence = "Your way out to the internet works again."
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, u := range w.users {
		if u.open != nil && u.up == up {
			w.tell(id, sentence)
		}
	}
}
