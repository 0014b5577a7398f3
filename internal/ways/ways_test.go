package ways_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/egress"
	"github.com/anteroom/anteroom/internal/provider"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/ways"
)

func TestEachUserHasAPort(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		s := w.serve()
		a, b, c := w.user("a"), w.user("b"), w.user("c")
		for i, u := range []store.User{a, b} {
			s.Use(u.ID)
			way, err := s.Open(w.Context(), u.ID, file(w.T, "claude"))
			if err != nil {
				w.Fatal(err)
			}
			if way.Port != key(i+1) || way.ExitAddress != fmt.Sprintf("203.0.113.%d", i+1) || w.leaves(u) != addr(i+1) {
				w.Errorf("%s leaves by %+v, %s", u.Name, way, w.leaves(u))
			}
		}
		s.Use(c.ID)
		if _, err := s.Open(w.Context(), c.ID, file(w.T, "claude")); code(err) != ways.NoPort || w.leaves(c) != "" {
			w.Errorf("the third: %v, %q", err, w.leaves(c))
		}
		// The way is that of all their machines, and is shut with the last.
		s.Use(a.ID)
		s.Done(a.ID)
		if w.leaves(a) == "" {
			w.Error("the way is shut though a machine runs")
		}
		s.Done(a.ID)
		if w.leaves(a) != "" {
			w.Error("the way is open though no machine runs")
		}
		s.Use(a.ID)
		if way, err := s.Open(w.Context(), a.ID, nil); err != nil || way.Port != key(1) {
			w.Errorf("later: %+v, %v", way, err)
		}
	})
}

// TestWaysOpenByThemselves: a machine that was found again needs no session.
func TestWaysOpenByThemselves(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve()
		a := w.user("a")
		w.set(func() { w.dead[addr(1)] = true })
		s.Use(a.ID)
		pass(10 * time.Second)
		if w.leaves(a) != "" {
			w.Fatal("it leaves through a dead upstream")
		}
		w.set(func() { clear(w.dead) })
		pass(time.Minute)
		if w.leaves(a) != addr(1) {
			w.Errorf("it leaves by %q", w.leaves(a))
		}
	})
}

func TestChangedAddress(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		s := w.serve()
		a := w.user("a")
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		pass(5 * time.Minute)
		if len(w.lost) > 0 || w.leaves(a) != addr(1) {
			w.Fatalf("without a change: %v, %q", w.lost, w.leaves(a))
		}
		w.set(func() { w.exits[addr(1)] = "203.0.113.99" })
		pass(61 * time.Second)
		if w.leaves(a) != "" || !slices.Equal(w.lost, []string{string(ways.Changed)}) {
			w.Errorf("it leaves by %q, was told %v", w.leaves(a), w.lost)
		}
		// The old address coming back changes nothing, nor does another try.
		w.set(func() { w.exits[addr(1)] = "203.0.113.1" })
		pass(time.Hour)
		_, err := s.Open(w.Context(), a.ID, nil)
		if code(err) != ways.Quarantined || w.leaves(a) != "" {
			w.Errorf("another try: %v, %q", err, w.leaves(a))
		}
		if !strings.Contains(err.Error(), "203.0.113.99") {
			w.Errorf("it does not say which address: %v", err)
		}
		// An administrator says that it is right.
		if _, err := s.Pin(w.Context(), key(1), "203.0.113.1"); err != nil {
			w.Fatal(err)
		}
		pass(2 * time.Second)
		if w.leaves(a) != addr(1) {
			w.Errorf("after the pin it leaves by %q", w.leaves(a))
		}
	})
}

// TestChangedWhileNobodyLooked: at the next opening, before anything leaves.
func TestChangedWhileNobodyLooked(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve()
		a := w.user("a")
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		s.Done(a.ID)
		w.set(func() { w.exits[addr(1)] = "203.0.113.99" })
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); code(err) != ways.Changed || w.leaves(a) != "" {
			w.Errorf("%v, %q", err, w.leaves(a))
		}
	})
}

func TestSecondOpinion(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve()
		a := w.user("a")
		s.Use(a.ID)
		w.set(func() { w.second[addr(1)] = "203.0.113.50" })
		if _, err := s.Open(w.Context(), a.ID, nil); code(err) != ways.Unverified || w.leaves(a) != "" {
			w.Fatalf("the two disagree: %v, %q", err, w.leaves(a))
		}
		w.set(func() { clear(w.second) })
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		// The first is wrong, or away, and the second says what was pinned.
		w.set(func() { w.exits[addr(1)], w.second[addr(1)] = "203.0.113.98", "203.0.113.1" })
		pass(90 * time.Second)
		w.set(func() { w.exits[addr(1)] = "203.0.113.1"; w.dead[addr(1)+" "+firstURL] = true })
		pass(5 * time.Minute)
		if w.leaves(a) != addr(1) || len(w.lost) > 0 {
			w.Errorf("it leaves by %q, was told %v", w.leaves(a), w.lost)
		}
		p, err := w.db.PortOf(w.Context(), a.ID)
		if err != nil || p.State != store.PortAssigned {
			w.Errorf("%+v, %v", p, err)
		}
	})
}

// TestNotSeenForLong: an address that cannot be seen is not verified.
func TestNotSeenForLong(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve()
		a := w.user("a")
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		w.set(func() { w.dead[addr(1)] = true })
		pass(2*time.Minute + time.Second)
		if w.leaves(a) != addr(1) || len(w.news) != 1 {
			w.Errorf("after two checks: %q, %q", w.leaves(a), w.news)
		}
		pass(time.Minute)
		if w.leaves(a) != "" || !slices.Equal(w.lost, []string{string(ways.Unverified)}) {
			w.Errorf("after three: %q, %v", w.leaves(a), w.lost)
		}
		w.set(func() { clear(w.dead) })
		pass(2 * time.Minute)
		if w.leaves(a) != addr(1) || len(w.news) != 2 {
			w.Errorf("when it is back: %q, %q", w.leaves(a), w.news)
		}
	})
}

func TestBlocked(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		claude, codex := file(w.T, "claude"), file(w.T, "codex")
		name := claude.Hosts[len(claude.Hosts)-1]
		s := w.serve()
		a, b := w.user("a"), w.user("b")
		w.set(func() { w.refuses[addr(1)+" "+name] = true })
		// Somebody new is given the next one.
		s.Use(a.ID)
		way, err := s.Open(w.Context(), a.ID, claude)
		if err != nil || way.Port != key(2) || w.leaves(a) != addr(2) {
			w.Fatalf("%+v, %v", way, err)
		}
		// Who does not need that host is given the first.
		s.Use(b.ID)
		if way, err = s.Open(w.Context(), b.ID, codex); err != nil || way.Port != key(1) {
			w.Fatalf("%+v, %v", way, err)
		}
		// It stays theirs from then on: they are told which host was refused, and not
		// moved.
		_, err = s.Open(w.Context(), b.ID, claude)
		var why *ways.Error
		if !errors.As(err, &why) || why.Code != ways.Blocked || why.Name != name || !strings.Contains(why.Sentence(), name) {
			w.Errorf("%v", err)
		}
		if w.leaves(b) != addr(1) {
			w.Errorf("their other tools leave by %q", w.leaves(b))
		}
		// So are those whose own machine is up, which may have left already.
		d := w.user("d")
		s.Use(d.ID)
		pass(time.Second)
		w.set(func() { w.refuses[w.ways[d.ID]+" "+name] = true })
		s.Use(d.ID)
		if _, err = s.Open(w.Context(), d.ID, claude); code(err) != ways.Blocked || w.leaves(d) != addr(3) {
			w.Errorf("%v; they leave by %q", err, w.leaves(d))
		}
		if err := s.Release(w.Context(), key(3), true); err != nil {
			w.Error(err)
		}
		s.Done(d.ID)
		s.Done(d.ID)
		all, err := s.Ports(w.Context())
		if err != nil || all[0].Refuses["claude"] != name || !all[0].InUse || all[2].InUse {
			w.Errorf("%+v, %v", all, err)
		}
		// All that are left refuse it.
		c := w.user("c")
		s.Use(c.ID)
		if _, err = s.Open(w.Context(), c.ID, claude); code(err) != ways.Blocked || w.leaves(c) != "" {
			w.Errorf("%v", err)
		}
	})
}

// TestCheckAsksAgain: what an administrator is told of a port is of now, however
// lately its names were reached, and whoever signs in next is told the same.
func TestCheckAsksAgain(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		codex := file(w.T, "codex")
		s := w.serve()
		u := w.user("u")
		s.Use(u.ID)
		if _, err := s.Open(w.Context(), u.ID, codex); err != nil {
			w.Fatal(err)
		}
		for _, refused := range []bool{true, false} {
			w.set(func() { w.refuses[addr(1)+" "+codex.Hosts[0]] = refused })
			want, wantCode := "", ways.Code("")
			if refused {
				want, wantCode = codex.Hosts[0], ways.Blocked
			}
			if r, err := s.Look(w.Context(), key(1), []*provider.File{codex}); err != nil || r.Err != nil || r.Refuses["codex"] != want {
				w.Errorf("%+v, %v; want %q to be refused", r, err, want)
			}
			if _, err := s.Open(w.Context(), u.ID, codex); code(err) != wantCode {
				w.Errorf("it opens with %v, want %q", err, wantCode)
			}
			if all, err := s.Ports(w.Context()); err != nil || all[0].Refuses["codex"] != want {
				w.Errorf("%+v, %v", all, err)
			}
		}
	})
}

func TestAdministrator(t *testing.T) {
	inWorld(t, 3, func(w *world) {
		s := w.serve()
		a, b := w.user("a"), w.user("b")
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		if _, err := s.Assign(w.Context(), b.ID, key(1)); !errors.Is(err, store.ErrConflict) {
			w.Errorf("somebody else's: %v", err)
		}
		if _, err := s.Assign(w.Context(), a.ID, key(9)); !errors.Is(err, store.ErrNotFound) {
			w.Errorf("one that is not configured: %v", err)
		}
		if _, err := s.Assign(w.Context(), a.ID, key(3)); err != nil {
			w.Fatal(err)
		}
		pass(2 * time.Second)
		if way, _ := s.Way(a.ID); w.leaves(a) != addr(3) || way.ExitAddress != "203.0.113.3" {
			w.Errorf("moved to %q, %+v", w.leaves(a), way)
		}
		// From another process, by the rows alone.
		if err := w.db.QuarantinePort(w.Context(), key(3), "by hand"); err != nil {
			w.Fatal(err)
		}
		pass(2 * time.Second)
		if w.leaves(a) != "" || w.lost[len(w.lost)-1] != string(ways.Quarantined) {
			w.Errorf("in quarantine: %q, %v", w.leaves(a), w.lost)
		}
		if err := s.Release(w.Context(), key(3), true); err != nil {
			w.Fatal(err)
		}
		if p, err := s.Claim(w.Context(), b.ID); err != nil || p.PortKey != key(2) { // 1 rests
			w.Errorf("%+v, %v", p, err)
		}
		r, err := s.Look(w.Context(), key(2), []*provider.File{file(w.T, "claude")})
		if err != nil || r.Err != nil || r.ExitAddress != "203.0.113.2" || len(r.Refuses) > 0 {
			w.Errorf("%+v, %v", r, err)
		}
		if _, err := s.Pin(w.Context(), key(2), "not an address"); !errors.Is(err, store.ErrInvalid) {
			w.Errorf("%v", err)
		}
	})
}

// TestNotConfiguredAnyMore: a port that left the configuration is not replaced
// in silence.
func TestNotConfiguredAnyMore(t *testing.T) {
	inWorld(t, 2, func(w *world) {
		s := w.serve()
		a := w.user("a")
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); err != nil {
			w.Fatal(err)
		}
		s = w.serve(func(c *ways.Config) { c.Upstreams = c.Upstreams[1:] })
		s.Use(a.ID)
		if _, err := s.Open(w.Context(), a.ID, nil); code(err) != ways.Unconfigured {
			w.Errorf("%v", err)
		}
	})
}

func TestShared(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve(func(c *ways.Config) { c.Shared = true })
		a, b := w.user("a"), w.user("b")
		for _, u := range []store.User{a, b} {
			s.Use(u.ID)
			way, err := s.Open(w.Context(), u.ID, file(w.T, "claude"))
			if err != nil || way.ExitAddress != "203.0.113.1" || w.leaves(u) != addr(1) {
				w.Errorf("%+v, %v", way, err)
			}
		}
		w.set(func() { w.exits[addr(1)] = "203.0.113.7" }) // it is nobody's own
		pass(2 * time.Minute)
		if way, open := s.Way(a.ID); !open || way.ExitAddress != "203.0.113.7" {
			w.Errorf("%+v, %v", way, open)
		}
		if _, err := s.Assign(w.Context(), a.ID, key(1)); !errors.Is(err, ways.ErrShared) {
			w.Errorf("%v", err)
		}
		if all, err := s.Ports(w.Context()); err != nil || len(all) > 0 {
			w.Errorf("%v, %v", all, err)
		}
		claude := file(w.T, "claude")
		w.set(func() { w.refuses[addr(1)+" "+claude.Hosts[0]] = true })
		pass(time.Hour)
		if _, err := s.Open(w.Context(), a.ID, claude); code(err) != ways.Blocked {
			w.Errorf("%v", err)
		}
	})
}

// TestNobodyIsAsked: without an address to ask nothing is verified, and
// nothing is asked.
func TestNobodyIsAsked(t *testing.T) {
	inWorld(t, 1, func(w *world) {
		s := w.serve(func(c *ways.Config) { c.Exit = ways.Exit{} })
		a := w.user("a")
		s.Use(a.ID)
		way, err := s.Open(w.Context(), a.ID, nil)
		if err != nil || way.ExitAddress != "" || w.leaves(a) != addr(1) {
			w.Errorf("%+v, %v", way, err)
		}
		pass(10 * time.Minute)
		if w.fetched > 0 || w.leaves(a) == "" {
			w.Errorf("%d questions, %q", w.fetched, w.leaves(a))
		}
	})
}

// TestManyAtOnce: openings of one user are one, of several do not wait for
// each other.
func TestManyAtOnce(t *testing.T) {
	inWorld(t, 50, func(w *world) {
		s := w.serve()
		var work sync.WaitGroup
		got := make([]ways.Way, 50)
		for i := range got {
			u := w.user(fmt.Sprintf("u%d", i))
			s.Use(u.ID)
			for range 3 {
				work.Go(func() {
					way, err := s.Open(w.Context(), u.ID, nil)
					if err != nil {
						w.Error(err)
					}
					w.set(func() { got[i] = way })
				})
			}
		}
		work.Wait()
		seen := map[store.PortKey]bool{}
		for _, way := range got {
			seen[way.Port] = true
		}
		if len(seen) != 50 || len(slices.Collect(maps.Keys(w.ways))) != 50 {
			w.Errorf("%d ports, %d ways", len(seen), len(w.ways))
		}
	})
}

func TestNewRefuses(t *testing.T) {
	direct, err := egress.ParseUpstream(egress.Direct)
	if err != nil {
		t.Fatal(err)
	}
	two, err := egress.ParseUpstream("http://h:1-2")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		ups    []egress.Upstream
		shared bool
		exit   ways.Exit
	}{
		"no upstream":                  {nil, false, ways.Exit{}},
		"two that are shared":          {two, true, ways.Exit{}},
		"asking no address":            {direct, true, ways.Exit{URL: "ftp://x.example/"}},
		"asking an inner address":      {direct, true, ways.Exit{URL: "https://10.0.0.1/"}},
		"a pointer that is none":       {direct, true, ways.Exit{URL: firstURL, Pointer: "proxy.ip"}},
		"a second without a first":     {direct, true, ways.Exit{SecondURL: secondURL}},
		"a second pointer without one": {direct, true, ways.Exit{URL: firstURL, SecondPointer: "/ip"}},
	} {
		if err := ways.Check(tc.ups, tc.shared, tc.exit); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
