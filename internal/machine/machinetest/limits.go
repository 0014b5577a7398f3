package machinetest

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/machine"
)

// testLimits: a machine gets no more processor time and no more memory than it
// was given, whatever runs in it.
func testLimits(t *testing.T, s Setup) {
	if s.Usage == nil {
		t.Skip("SKIPPED: these machines are not limited here")
	}
	const cpus, memory = 0.5, 768 << 20
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser, CPUs: cpus, MemoryBytes: memory})
	guest(t, s.Driver, id, created.Ref)
	// Three loops that want a processor each, and one program that wants twice the
	// memory: it ends, or the machine does.
	s.Exec(t, id, "for i in 1 2 3; do (while :; do :; done) >/dev/null 2>&1 & done")
	before, _ := s.Usage(t, id)
	began := time.Now()
	<-time.After(4 * time.Second) // what a share of time comes to shows only over some of it
	after, _ := s.Usage(t, id)
	if used, most := after-before, time.Duration(float64(time.Since(began))*cpus*1.25); used > most || used == 0 {
		t.Errorf("in %s it used %s of processor time, at most %s are its own", time.Since(began), used, most)
	}
	said := s.Exec(t, id, fmt.Sprintf("pkill -f 'while :' ; perl -e '$x = \"x\" x %d; print \"it has it\"'", 2*memory))
	if strings.Contains(said, "it has it") {
		t.Error("it got twice the memory that it may have")
	}
	if _, held := s.Usage(t, id); held > memory+s.Overhead {
		t.Errorf("it holds %d MiB, and may hold %d", held>>20, (memory+s.Overhead)>>20)
	}
}

// testOtherKey: a snapshot of something else is not used, wherever it lies.
func testOtherKey(t *testing.T, s Setup) {
	if s.OtherKey == nil {
		t.Skip("SKIPPED: this driver has no snapshots")
	}
	d := s.OtherKey(t)
	ctx, cancel := context.WithTimeout(context.Background(), patienceWith(d))
	defer cancel()
	id := newID()
	created, err := d.Create(ctx, machine.Spec{ID: id, Kind: machine.Browser})
	if err != nil {
		t.Fatal(err)
	}
	if created.Restored || !strings.Contains(created.ColdReason, "another image") {
		t.Errorf("restored %v, reason %q", created.Restored, created.ColdReason)
	}
	if err := d.Destroy(ctx, id); err != nil {
		t.Error(err)
	}
}

// testKilledCreator: whenever a server is killed while it makes a machine, the
// next one finds all that it left. What was still being started goes on for a
// while; reclaiming must end that too.
func testKilledCreator(t *testing.T, s Setup) {
	if s.Creator == nil {
		t.Skip("SKIPPED: this driver makes machines within the test's process")
	}
	before := s.Trace(t)
	for i, after := range []time.Duration{0, 5 * time.Millisecond, 20 * time.Millisecond, 40 * time.Millisecond, 80 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond, 600 * time.Millisecond, -1} {
		t.Run(fmt.Sprint(after), func(t *testing.T) {
			killCreator(t, s.Creator(t, fmt.Sprintf("%skilled%d", Prefix(), i)), after)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			ids, err := s.Driver.List(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				if err := s.Driver.Destroy(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
			// What had not begun ends by itself, for want of its directory.
			left := s.Trace(t)
			for !slices.Equal(left, before) && ctx.Err() == nil {
				<-time.After(10 * time.Millisecond)
				left = s.Trace(t)
			}
			if !slices.Equal(left, before) {
				t.Errorf("left: %q\nwant: %q", left, before)
			}
		})
	}
}

// killCreator starts a creator and kills it, after a time or (-1) once it has
// made its machine. It says "begins" and "made".
func killCreator(t *testing.T, cmd *exec.Cmd, after time.Duration) {
	t.Helper()
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "begins" {
		t.Fatalf("the creator says %q", lines.Text())
	}
	if after < 0 {
		if !lines.Scan() || lines.Text() != "made" {
			t.Fatalf("the creator says %q", lines.Text())
		}
	} else {
		<-time.After(after)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}
