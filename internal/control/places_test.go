package control

import (
	"context"
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

// TestPlacesForNobody: a machine that is nobody's is started while nothing else
// is, one at a time, and after all that wait.
func TestPlacesForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlaces(2)
		held, err := p.tool(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan func(), 2)
		for range 2 {
			go func() {
				if release, err := p.spare(t.Context()); err == nil {
					got <- release
				}
			}()
		}
		synctest.Wait()
		if len(got) > 0 {
			t.Error("it did not wait for a tool")
		}
		held()
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("%d were started at once", len(got))
		}
		second, err := p.machine(t.Context()) // there is a place beside it
		if err != nil {
			t.Fatal(err)
		}
		(<-got)()
		synctest.Wait()
		if len(got) > 0 {
			t.Error("it did not wait for a machine")
		}
		second()
		(<-got)()
		if p.free != 2 || len(p.spares) > 0 {
			t.Errorf("%d places are free and %d wait", p.free, len(p.spares))
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
