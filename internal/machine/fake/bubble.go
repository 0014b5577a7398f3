package fake

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs a test in a bubble of testing/synctest, where time passes only
// while everything waits, and where a goroutine that is left over fails the
// test. Tests with bubbles must not run in parallel.
//
// yamux keeps timers for reuse in a pool of the process, and a bubble's timers
// must not be touched outside of it: two collections empty every pool.
func Bubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	empty := func() { runtime.GC(); runtime.GC() }
	empty()
	defer empty()
	synctest.Test(t, test)
}
