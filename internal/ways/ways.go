// Package ways decides through which upstream each user leaves, and sees to it
// that they come from their own address for as long as they do.
//
// A user's way is opened only after the port that is theirs was seen to leave
// from the address that is pinned to it, and it is looked at again while
// machines use it. When the address is another, the way is shut, its
// connections end, and the port is put into quarantine: nobody is ever moved
// to another address in silence.
package ways

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
)

// database is where it is kept who has which port. storetest says what each
// method guarantees.
type database interface {
	SyncPorts(ctx context.Context, keys []store.PortKey) error
	Ports(ctx context.Context) ([]store.Port, error)
	PortOf(ctx context.Context, userID string) (store.Port, error)
	ClaimPort(ctx context.Context, userID, provider string, refusedSince time.Time) (store.Port, bool, error)
	AssignPort(ctx context.Context, userID string, key store.PortKey, rest time.Duration) (store.Port, error)
	ReleasePort(ctx context.Context, key store.PortKey, rest time.Duration) error
	QuarantinePort(ctx context.Context, key store.PortKey, reason string) error
	SawExit(ctx context.Context, userID string, key store.PortKey, address string) (store.Port, error)
	PinExit(ctx context.Context, key store.PortKey, address string) (store.Port, error)
	PortRefuses(ctx context.Context, key store.PortKey, provider, name string) error
}

// proxy is the forward proxy at the end of the machines' lines.
type proxy interface {
	Expect(userID string)
	Open(userID string, up egress.Upstream)
	Shut(userID string)
	Fetch(ctx context.Context, up egress.Upstream, url string) ([]byte, error)
	Reaches(ctx context.Context, up egress.Upstream, name string) error
}

// Config is what Ways needs.
type Config struct {
	Database  database
	Proxy     proxy
	Upstreams []egress.Upstream
	// Shared has all users leave through the one upstream there is. Direct is
	// always shared. Otherwise each user has a port of their own.
	Shared bool
	Exit   Exit
	// Rest is how long a released port is given to nobody.
	Rest   time.Duration
	Logger *slog.Logger
	// Lost is told that a user's way was shut, and why. It must return at once
	// and call nothing of this package. Optional.
	Lost func(userID string, why *Error)
	// News is told, in a sentence, of what a user who waits should know. The
	// same as for Lost. Optional.
	News func(userID, sentence string)
}

const (
	// refusalTime is how long it is believed that a proxy refuses a name, or
	// that it does not.
	refusalTime = 6 * time.Hour
	reachTime   = 10 * time.Minute
	// probeTime limits what is asked of an upstream for one opening.
	probeTime = 30 * time.Second
	// tick is how often it is looked whether a way is due, and followEvery how
	// often whether an administrator has changed a row.
	tick        = 250 * time.Millisecond
	followEvery = time.Second
	// retryFirst and retryLast bound the waits between tries to open a way that
	// machines need.
	retryFirst = time.Second
	retryLast  = time.Minute
	// maxUnseen is how many checks in a row may fail before a way is shut: an
	// address that cannot be seen is not verified any more.
	maxUnseen = 3
)

// Way is an open way out.
type Way struct {
	Port        store.PortKey // zero where the way is shared
	ExitAddress string        // empty if nobody is asked
}

// Ways is the one owner of who leaves how. Methods may be called concurrently.
type Ways struct {
	cfg     Config
	log     *slog.Logger
	ups     map[store.PortKey]egress.Upstream
	opening singleflight.Group // by user: openings, checks and changes, one at a time

	mu    sync.Mutex // guards what follows
	users map[string]*user
	reach map[reached]time.Time // what was reached, and when
}

// user is what is known of somebody whose machines run.
type user struct {
	machines int  // that use the way
	open     *Way // nil while it is shut
	up       egress.Upstream
	unseen   int       // checks in a row that failed
	next     time.Time // when it is looked at again
	wait     time.Duration
	final    *Error        // why it is not tried again by itself
	lost     bool          // the way was shut, and that was told
	given    store.PortKey // the port that they were given for an opening that has not ended
}

type reached struct{ port, name string }

// New checks cfg and takes the configuration's ports over into the database.
func New(ctx context.Context, cfg Config) (*Ways, error) {
	if cfg.Exit.Every == 0 {
		cfg.Exit.Every = time.Minute
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if len(cfg.Upstreams) == 1 && cfg.Upstreams[0].IsDirect() {
		cfg.Shared = true
	}
	if err := Check(cfg.Upstreams, cfg.Shared, cfg.Exit); err != nil {
		return nil, err
	}
	w := &Ways{
		cfg: cfg, log: cfg.Logger, ups: map[store.PortKey]egress.Upstream{},
		users: map[string]*user{}, reach: map[reached]time.Time{},
	}
	if !cfg.Shared {
		for _, up := range cfg.Upstreams {
			w.ups[keyOf(up)] = up
		}
	}
	if err := cfg.Database.SyncPorts(ctx, slices.Collect(maps.Keys(w.ups))); err != nil {
		return nil, err
	}
	return w, nil
}

func keyOf(up egress.Upstream) store.PortKey { return store.PortKey{Host: up.Host(), Port: up.Port()} }

// Check says whether upstreams can be used in this way.
func Check(ups []egress.Upstream, shared bool, exit Exit) error {
	if len(ups) == 0 {
		return errors.New("ways: there is no upstream")
	}
	if shared && len(ups) != 1 {
		return fmt.Errorf("ways: a shared way out must be exactly one upstream, not %d", len(ups))
	}
	return exit.check()
}

// Shared says whether all users leave through the same upstream.
func (w *Ways) Shared() bool { return w.cfg.Shared }

// Direct says whether they leave without a proxy.
func (w *Ways) Direct() bool { return w.cfg.Upstreams[0].IsDirect() }

// Use says that one more machine of a user runs. Its way is opened, and kept
// open, by Run. Each call is to be followed by one of Done.
func (w *Ways) Use(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.of(userID)
	if u.machines++; u.open == nil && u.final == nil {
		w.cfg.Proxy.Expect(userID)
	}
}

// Done says that a machine has ended. The way of the last one is shut.
func (w *Ways) Done(userID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.of(userID)
	if u.machines--; u.machines <= 0 {
		delete(w.users, userID)
		w.cfg.Proxy.Shut(userID)
	}
}

// of returns what is known of a user. It is called with the lock held.
func (w *Ways) of(userID string) *user {
	u := w.users[userID]
	if u == nil {
		u = &user{next: time.Now().Add(tick)} // whoever has the machine opens it first
		w.users[userID] = u
	}
	return u
}

// Way returns a user's way out, if it is open.
func (w *Ways) Way(userID string) (Way, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[userID]; u != nil && u.open != nil {
		return *u.open, true
	}
	return Way{}, false
}

// Open opens a user's way out, verified, and returns it. With a provider it has
// been seen to reach every host that the provider needs. The user must have a
// machine (Use). Errors are *Error; nothing leaves after one.
func (w *Ways) Open(ctx context.Context, userID string, need *provider.File) (Way, error) {
	name := ""
	if need != nil {
		name = need.Name
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	way, up, err := w.verified(ctx, userID, name)
	if err != nil {
		return Way{}, err
	}
	for need != nil {
		refused, err := w.reaches(ctx, way.Port, up, need)
		if err == nil {
			break
		}
		way, up, err = w.another(ctx, userID, name, refused, err)
		if err != nil {
			return Way{}, err
		}
	}
	w.setGiven(userID, store.PortKey{})
	return way, nil
}

// setGiven notes which port a user was given for the opening that is under way;
// none: that it has ended, and the port is theirs.
func (w *Ways) setGiven(userID string, key store.PortKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[userID]; u != nil {
		u.given = key
	}
}

func (w *Ways) isGiven(userID string, key store.PortKey) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[userID]
	return u != nil && u.given == key
}

// verified is Open without a look at what can be reached.
func (w *Ways) verified(ctx context.Context, userID, providerName string) (Way, egress.Upstream, error) {
	_, err, _ := w.opening.Do(userID, func() (any, error) {
		if _, open := w.Way(userID); open {
			return nil, nil
		}
		return nil, w.open(ctx, userID, providerName)
	})
	if err != nil {
		return Way{}, egress.Upstream{}, asError(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[userID]; u != nil && u.open != nil {
		return *u.open, u.up, nil
	}
	return Way{}, egress.Upstream{}, &Error{Code: Shut, Err: errors.New("it was shut at once")}
}

// open finds the user's upstream, verifies its address and opens the gate.
func (w *Ways) open(ctx context.Context, userID, providerName string) error {
	port, up, err := w.assigned(ctx, userID, providerName)
	if err != nil {
		return err
	}
	way := Way{Port: port.PortKey}
	if way.ExitAddress, err = w.see(ctx, up, port.ExitAddress); err != nil {
		return err
	}
	if !w.cfg.Shared && way.ExitAddress != "" {
		if err := w.pinned(ctx, userID, port, way.ExitAddress); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[userID]
	if u == nil {
		return &Error{Code: Shut, Err: errors.New("the user's machines have ended")}
	}
	u.open, u.up, u.unseen, u.wait, u.final = &way, up, 0, 0, nil
	u.next = time.Now().Add(w.cfg.Exit.Every)
	w.cfg.Proxy.Open(userID, up)
	if u.lost {
		u.lost = false
		w.tell(userID, "Your way out to the internet works again.")
	}
	w.log.Info("way out is open", "user", userID, "upstream", up.Addr(), "exit", way.ExitAddress)
	return nil
}

// assigned returns the user's port and its upstream; they are given one if they
// have none.
func (w *Ways) assigned(ctx context.Context, userID, providerName string) (store.Port, egress.Upstream, error) {
	if w.cfg.Shared {
		return store.Port{}, w.cfg.Upstreams[0], nil
	}
	port, claimed, err := w.cfg.Database.ClaimPort(ctx, userID, providerName, time.Now().Add(-refusalTime))
	switch {
	case errors.Is(err, store.ErrNoPort):
		return port, egress.Upstream{}, w.noPort(ctx, providerName)
	case err != nil:
		return port, egress.Upstream{}, err
	case port.State == store.PortQuarantined:
		return port, egress.Upstream{}, &Error{Code: Quarantined, Port: port.PortKey, Err: errors.New(port.Reason)}
	}
	up, ok := w.ups[port.PortKey]
	if !ok {
		return port, up, &Error{Code: Unconfigured, Port: port.PortKey}
	}
	if claimed {
		w.log.Info("upstream port assigned", "user", userID, "upstream", port.PortKey.String())
		if providerName != "" {
			w.setGiven(userID, port.PortKey)
		}
	}
	return port, up, nil
}

// noPort says why there is none: a proxy that refuses what the provider needs
// is named before one that is only used up.
func (w *Ways) noPort(ctx context.Context, providerName string) error {
	all, err := w.cfg.Database.Ports(ctx)
	if err != nil {
		return err
	}
	for _, p := range all {
		if name := p.Refuses[providerName]; name != "" && p.UserID == "" {
			return &Error{Code: Blocked, Port: p.PortKey, Name: name}
		}
	}
	return &Error{Code: NoPort}
}

// pinned notes what was seen, and puts the port into quarantine if that is not
// what it was.
func (w *Ways) pinned(ctx context.Context, userID string, port store.Port, seen string) error {
	now, err := w.cfg.Database.SawExit(ctx, userID, port.PortKey, seen)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &Error{Code: Shut, Err: errors.New("the port was taken from the user in between")}
	case err != nil:
		return err
	case now.ExitAddress == seen:
		return nil
	}
	return w.changed(ctx, port.PortKey, now.ExitAddress, seen)
}

// changed is what a changed address leads to. The quarantine is written before
// anybody is told.
func (w *Ways) changed(ctx context.Context, key store.PortKey, was, is string) error {
	why := fmt.Sprintf("Its exit address was %s and is %s.", was, is)
	w.log.Error("exit address has changed; the port is in quarantine", "upstream", key.String(), "was", was, "is", is)
	if err := w.cfg.Database.QuarantinePort(context.WithoutCancel(ctx), key, why); err != nil {
		return err
	}
	return &Error{Code: Changed, Port: key, Err: errors.New(why)}
}

// see asks where an upstream leaves from; "" if nobody is to be asked.
func (w *Ways) see(ctx context.Context, up egress.Upstream, expected string) (string, error) {
	if w.cfg.Exit.URL == "" {
		return "", nil
	}
	seen, err := w.cfg.Exit.ask(ctx, w.cfg.Proxy, up, expected)
	if err != nil {
		return "", &Error{Code: Unverified, Port: keyOf(up), Err: err}
	}
	return seen, nil
}

// reaches asks an upstream for every host that a provider needs. refused is
// the one that it says no to.
func (w *Ways) reaches(ctx context.Context, key store.PortKey, up egress.Upstream, need *provider.File) (refused string, err error) {
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, len(need.Hosts))
	asked := 0
	for _, name := range need.Hosts {
		if w.knownReached(up, name) {
			continue
		}
		asked++
		go func() { answers <- answer{name, w.cfg.Proxy.Reaches(ctx, up, name)} }()
	}
	for range asked {
		a := <-answers
		switch code := egress.CodeOf(a.err); {
		case a.err == nil:
			w.noteReached(up, a.name)
		case code == egress.UpstreamRefused || code == egress.NameDenied:
			refused, err = a.name, a.err
		case err == nil:
			err = a.err
		}
	}
	if err == nil && asked > 0 && !w.cfg.Shared {
		err = w.cfg.Database.PortRefuses(ctx, key, need.Name, "")
	}
	return refused, err
}

func (w *Ways) knownReached(up egress.Upstream, name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.reach[reached{up.Addr(), name}]) < reachTime
}

// forgetReached has an upstream be asked again for every name.
func (w *Ways) forgetReached(up egress.Upstream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.reach, func(r reached, _ time.Time) bool { return r.port == up.Addr() })
}

func (w *Ways) noteReached(up egress.Upstream, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reach[reached{up.Addr(), name}] = time.Now()
}

// another is what comes after an upstream that does not reach what a provider
// needs. Somebody who was given its port for this very opening is given another
// one; anybody else may have been seen to come from theirs: they keep it and are
// told which host was refused.
func (w *Ways) another(ctx context.Context, userID, providerName, refused string, why error) (Way, egress.Upstream, error) {
	if refused == "" {
		return Way{}, egress.Upstream{}, &Error{Code: Failed, Err: why}
	}
	blocked := &Error{Code: Blocked, Name: refused, Err: why}
	if w.cfg.Shared || egress.CodeOf(why) == egress.NameDenied {
		return Way{}, egress.Upstream{}, blocked
	}
	port, err := w.cfg.Database.PortOf(ctx, userID)
	if err != nil {
		return Way{}, egress.Upstream{}, asError(err)
	}
	blocked.Port = port.PortKey
	w.log.Warn("an upstream refuses what a provider needs", "upstream", port.PortKey.String(), "provider", providerName, "name", refused)
	if err := w.cfg.Database.PortRefuses(ctx, port.PortKey, providerName, refused); err != nil {
		return Way{}, egress.Upstream{}, asError(err)
	}
	if !w.isGiven(userID, port.PortKey) {
		return Way{}, egress.Upstream{}, blocked // it is theirs, and others of their tools use it
	}
	w.shut(userID, nil)
	if err := w.cfg.Database.ReleasePort(ctx, port.PortKey, 0); err != nil {
		return Way{}, egress.Upstream{}, asError(err)
	}
	return w.verified(ctx, userID, providerName)
}

// shut shuts a user's way. With a reason that is told, and unless it may mend
// by itself the way is not opened again before somebody does something.
func (w *Ways) shut(userID string, why *Error) {
	w.mu.Lock()
	u := w.users[userID]
	if u != nil {
		u.open = nil
		u.lost = u.lost || why != nil
		if why != nil && !why.Temporary() {
			u.final = why
		}
	}
	w.cfg.Proxy.Shut(userID)
	w.mu.Unlock()
	if why == nil {
		return
	}
	w.log.Warn("way out is shut", "user", userID, "why", why)
	if w.cfg.Lost != nil && u != nil {
		w.cfg.Lost(userID, why)
	}
}
