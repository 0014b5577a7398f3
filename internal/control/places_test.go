package control

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// TestPlaces: machines first, each kind in the order in which it came, and a
// place that nobody takes is not lost.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(1)
		held, err := p.machine(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		give := make(chan func(), 8)
		ask := func(ctx context.Context, name string, take func(context.Context) (func(), error)) {
			go func() {
				release, err := take(ctx)
				if err != nil {
					return
				}
				got = append(got, name) // one at a time: there is one place
				give <- release
			}()
			synctest.Wait()
		}
		gone, leave := context.WithCancel(t.Context())
		ask(t.Context(), "tool 1", p.tool)
		ask(t.Context(), "tool 2", p.tool)
		ask(gone, "machine that is cancelled", p.machine)
		ask(t.Context(), "machine 1", p.machine)
		ask(t.Context(), "machine 2", p.machine)
		leave()
		synctest.Wait()
		held()
		held() // once more is nothing
		for range 4 {
			synctest.Wait()
			(<-give)()
		}
		want := []string{"machine 1", "machine 2", "tool 1", "tool 2"}
		if !slices.Equal(got, want) {
			t.Errorf("places went to %q, want %q", got, want)
		}
		if p.free != 1 || len(p.machines)+len(p.tools) != 0 {
			t.Errorf("%d places are free and %d wait, want 1 and 0", p.free, len(p.machines)+len(p.tools))
		}
	})
}

// TestIdle: what is for nobody in particular waits until nothing is being
// started, and is in nobody's way then.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(1)
		held, err := p.tool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		idle := make(chan error, 2)
		gone, leave := context.WithCancel(t.Context())
		for _, ctx := range []context.Context{t.Context(), gone} {
			go func() { idle <- p.whenIdle(ctx) }()
		}
		next := make(chan func(), 1)
		go func() {
			if release, err := p.machine(t.Context()); err == nil {
				next <- release
			}
		}()
		synctest.Wait()
		leave()
		if err := <-idle; !errors.Is(err, context.Canceled) {
			t.Errorf("who stops waiting: %v", err)
		}
		held()
		release := <-next
		synctest.Wait()
		if len(idle) > 0 {
			t.Error("it did not wait for who came later and has a person")
		}
		release()
		if err := <-idle; err != nil {
			t.Error(err)
		}
		if again, err := p.machine(t.Context()); err != nil || len(p.idle) > 0 {
			t.Errorf("%v, %d still wait", err, len(p.idle))
		} else {
			again()
		}
	})
}

// TestPlaceAtTheLastMoment: who is given a place just as they stop waiting
// passes it on.
func TestPlaceAtTheLastMoment(t *testing.T) {
	for range 1000 {
		p := newPlaces(1)
		held, err := p.machine(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			if release, err := p.tool(ctx); err == nil {
				release()
			}
		}()
		go cancel()
		held()
		<-done
		if again, err := p.machine(t.Context()); err != nil {
			t.Fatal(err)
		} else {
			again()
		}
	}
}
