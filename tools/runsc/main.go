// Command runsc is gVisor's, as it is, but for when the sandbox's kernel
// collects its garbage: next to never while it starts, when all that it reads
// of a snapshot is needed, and early afterwards, since there is one such heap
// for each machine that waits for its person.
package main

import (
	"os"
	"runtime/debug"
	"slices"
	"time"

	"gvisor.dev/gvisor/runsc/cli/maincli"
)

const (
	startTime   = 10 * time.Second
	whileStarts = 400 // percent, as debug.SetGCPercent takes it
	onceStarted = 30
	subcommand  = "boot" // what runsc starts itself again as, for the sandbox
)

func main() {
	if slices.Contains(os.Args, subcommand) {
		debug.SetGCPercent(whileStarts)
		time.AfterFunc(startTime, func() {
			debug.SetGCPercent(onceStarted)
			debug.FreeOSMemory()
		})
	}
	maincli.Main()
}
