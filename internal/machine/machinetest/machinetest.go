// Package machinetest is the conformance suite of the drivers: what each of
// them promises, tried on real machines of theirs.
package machinetest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/anteroom/anteroom/internal/guestapi"
	"github.com/anteroom/anteroom/internal/line"
	"github.com/anteroom/anteroom/internal/machine"
)

// patience is how long anything here may take on a busy computer.
const patience = 60 * time.Second

func patienceWith(d machine.Driver) time.Duration {
	return patience * time.Duration(machine.PaceOf(d))
}

// Setup is a driver to be tried, and what of its host only its own package can
// do. A nil function leaves out the tests that need it; a driver of real
// machines has them all.
type Setup struct {
	Driver machine.Driver
	Build  string // what the agents in its machines must be
	// Again returns another driver over the same host and state directory, as
	// a restarted server makes it.
	Again func(t *testing.T) machine.Driver
	// Kill ends a machine from outside, as a crash would.
	Kill func(t *testing.T, id string, ref json.RawMessage)
	// Recycled is a ref whose process number belongs to another process.
	Recycled func(t *testing.T, ref json.RawMessage) json.RawMessage
	// Trace lists everything that this process and its host hold for machines:
	// processes, files, mounts, cgroups, descriptors. It must be the same after
	// machines have come and gone.
	Trace func(t *testing.T) []string
	// Refusing are drivers that cannot make a machine, by the error that they
	// must give.
	Refusing map[error]func(t *testing.T) machine.Driver
	// NoSnapshot is a driver whose snapshot is damaged.
	NoSnapshot func(t *testing.T) machine.Driver
	// OtherKey is a driver in whose snapshot's place there is a whole one of
	// something else.
	OtherKey func(t *testing.T) machine.Driver
	// Usage is the processor time that a machine has used on its host, and the
	// memory that it holds there, in bytes, of which Overhead may be beside its own.
	// Nil where this host does not let machines be limited.
	Usage    func(t *testing.T, id string) (cpu time.Duration, memory int64)
	Overhead int64
	// Creator is a program that makes a browser machine with this id over the same
	// state directory: it writes the lines "begins" and "made", and waits.
	Creator func(t *testing.T, id string) *exec.Cmd
	// Exec runs a shell command as root inside a machine.
	Exec func(t *testing.T, id, command string) string
}

// Run tries a driver. setup is called once.
func Run(t *testing.T, setup func(t *testing.T) Setup) {
	s := setup(t)
	for name, test := range map[string]func(*testing.T, Setup){
		"starts and answers":           testStart,
		"opens again":                  testOpenAgain,
		"is nobody's at first":         testNobodys,
		"is adopted":                   testAdopt,
		"wait":                         testWait,
		"destroy and list":             testDestroy,
		"refuses ids":                  testIDs,
		"fails cleanly":                testRefusing,
		"damaged snapshot":             testNoSnapshot,
		"inside":                       testInside,
		"catches all":                  testCatch,
		"a cli machine keeps its home": testHome,
		"leaves nothing behind":        testTrace,
		"limits":                       testLimits,
		"a snapshot of something else": testOtherKey,
		"a creator is killed":          testKilledCreator,
	} {
		t.Run(name, func(t *testing.T) { test(t, s) })
	}
}

// Prefix begins the ids of all machines that this process makes here, so that
// what they leave can be told from what others' machines do.
func Prefix() string { return fmt.Sprintf("t%xx", os.Getpid()) }

// newID returns an id that was never used.
func newID() string {
	b := make([]byte, 8)
	_, _ = rand.Read(b)
	return Prefix() + hex.EncodeToString(b)
}

// limited is a context for whatever may take its time with a driver's machines.
func limited(t *testing.T, d machine.Driver) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patienceWith(d))
	t.Cleanup(cancel)
	return ctx
}

// create makes a machine that is destroyed at the test's end. Its creator's
// context has ended when create returns.
func create(t *testing.T, d machine.Driver, spec machine.Spec) (string, machine.Created) {
	t.Helper()
	if spec.ID == "" {
		spec.ID = newID()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patienceWith(d))
	defer cancel()
	created, err := d.Create(ctx, spec)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		if err := d.Destroy(limited(t, d), spec.ID); err != nil {
			t.Errorf("destroy %s: %v", spec.ID, err)
		}
	})
	return spec.ID, created
}

// guest opens a machine's line; the returned function closes it.
func guest(t *testing.T, d machine.Driver, id string, ref json.RawMessage) (*guestapi.Client, *line.Line) {
	t.Helper()
	conn, err := d.Open(limited(t, d), id, ref)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	l, err := line.Host(conn)
	if err != nil {
		t.Fatalf("line: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return guestapi.NewClient(l), l
}

// configure sends a configuration and checks its acknowledgement.
func configure(t *testing.T, s Setup, client *guestapi.Client, id string, kind machine.Kind) guestapi.Ack {
	t.Helper()
	entropy := make([]byte, 64)
	_, _ = rand.Read(entropy)
	ack, err := client.Configure(limited(t, s.Driver), guestapi.Configure{
		MachineID: id, Kind: string(kind), WallClock: time.Now(), Entropy: entropy,
		Locale: "en_US", Languages: "en-US,en", TimeZone: "Asia/Tokyo", Width: 1000, Height: 700,
	})
	if err != nil {
		t.Fatalf("configure: %v", err)
	}
	sum := sha256.Sum256(entropy)
	if ack.MachineID != id || ack.Build != s.Build {
		t.Errorf("it acknowledges as %q of build %q, want %q of %q", ack.MachineID, ack.Build, id, s.Build)
	}
	if !ack.Again && ack.Entropy != hex.EncodeToString(sum[:]) {
		t.Errorf("it acknowledges other entropy")
	}
	if off := time.Since(ack.Clock).Abs(); off > 3*time.Second {
		t.Errorf("its clock is off by %s", off)
	}
	return ack
}

func testStart(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	if !created.Restored && created.ColdReason == "" {
		t.Error("it starts cold and does not say why")
	}
	if !json.Valid(created.Ref) {
		t.Errorf("the ref is not JSON: %q", created.Ref)
	}
	client, _ := guest(t, s.Driver, id, created.Ref)
	if ack := configure(t, s, client, id, machine.Browser); ack.Again {
		t.Error("a new machine says that it has been configured before")
	}
	vnc, err := client.VNC(limited(t, s.Driver))
	if err != nil {
		t.Fatalf("its screen: %v", err)
	}
	defer func() { _ = vnc.Close() }()
	hello := make([]byte, 12)
	if _, err := io.ReadFull(vnc, hello); err != nil || !bytes.HasPrefix(hello, []byte("RFB 003.")) {
		t.Errorf("the screen says %q (%v)", hello, err)
	}
	testScreen(t, s, client)
}

// testScreen: the machine's screen comes as video, with a whole picture at first
// and whenever one is wanted.
func testScreen(t *testing.T, s Setup, client *guestapi.Client) {
	t.Helper()
	var refused *guestapi.StatusError
	if _, err := client.Screen(limited(t, s.Driver), "mpeg2"); !errors.As(err, &refused) || refused.Code != http.StatusBadRequest {
		t.Errorf("a codec that there is not: %v", err)
	}
	video, err := client.Screen(limited(t, s.Driver), "vp8")
	if err != nil {
		t.Fatalf("its screen as video: %v", err)
	}
	defer func() { _ = video.Close() }()
	keyframe := func() guestapi.VideoFrame {
		t.Helper()
		for {
			kind, payload, err := guestapi.ReadScreenFrame(video, nil)
			if err != nil {
				t.Fatalf("its screen as video: %v", err)
			}
			if kind != guestapi.ScreenVideo {
				continue
			}
			f, err := guestapi.ParseVideo(payload)
			if err != nil {
				t.Fatal(err)
			}
			if f.Keyframe {
				return f
			}
		}
	}
	stop := context.AfterFunc(limited(t, s.Driver), func() { _ = video.Close() })
	defer stop()
	first := keyframe()
	if err := guestapi.WriteScreenFrame(video, guestapi.ScreenKeyframe, nil); err != nil {
		t.Fatal(err)
	}
	if again := keyframe(); again.Width != first.Width || again.Height != first.Height || again.Time < first.Time {
		t.Errorf("%dx%d at %d, then %dx%d at %d", first.Width, first.Height, first.Time, again.Width, again.Height, again.Time)
	}
}

func testOpenAgain(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	first, l := guest(t, s.Driver, id, created.Ref)
	configure(t, s, first, id, machine.Browser)
	_ = l.Close()
	second, l := guest(t, s.Driver, id, created.Ref)
	if ack := configure(t, s, second, id, machine.Browser); !ack.Again {
		t.Error("it has forgotten its configuration")
	}
	// A second channel replaces the first.
	third, _ := guest(t, s.Driver, id, created.Ref)
	configure(t, s, third, id, machine.Browser)
	select {
	case <-l.Done():
	case <-limited(t, s.Driver).Done():
		t.Error("the channel that was replaced is still open")
	}
	if _, err := third.Configure(limited(t, s.Driver), guestapi.Configure{MachineID: newID(), Kind: string(machine.Browser), WallClock: time.Now(), Entropy: make([]byte, 64)}); err == nil {
		t.Error("it took the configuration of another machine")
	}
}

func testAdopt(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	client, l := guest(t, s.Driver, id, created.Ref)
	configure(t, s, client, id, machine.Browser)
	_ = l.Close() // as the kernel does with a process's descriptors
	next := s.Again(t)
	if ids, err := next.List(limited(t, s.Driver)); err != nil || !slices.Contains(ids, id) {
		t.Errorf("the next driver does not list it: %v, %v", ids, err)
	}
	client, _ = guest(t, next, id, created.Ref)
	if ack := configure(t, s, client, id, machine.Browser); !ack.Again {
		t.Error("it has forgotten its configuration")
	}
	if err := next.Destroy(limited(t, s.Driver), id); err != nil {
		t.Errorf("the next driver cannot destroy it: %v", err)
	}
	if err := s.Driver.Wait(limited(t, s.Driver), id, created.Ref); err != nil {
		t.Errorf("wait after its destruction: %v", err)
	}
}

func testWait(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	short, cancel := context.WithCancel(limited(t, s.Driver))
	cancel()
	if err := s.Driver.Wait(short, id, created.Ref); !errors.Is(err, context.Canceled) {
		t.Errorf("wait for a machine that runs, with a context that has ended: %v", err)
	}
	for name, ref := range map[string]json.RawMessage{"no ref": nil, "garbage": json.RawMessage("["), "recycled": s.Recycled(t, created.Ref)} {
		if err := s.Driver.Wait(limited(t, s.Driver), id, ref); err != nil {
			t.Errorf("wait with %s: %v", name, err)
		}
		if _, err := s.Driver.Open(limited(t, s.Driver), id, ref); !errors.Is(err, machine.ErrGone) {
			t.Errorf("open with %s: %v, want ErrGone", name, err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Driver.Wait(limited(t, s.Driver), id, created.Ref) }()
	s.Kill(t, id, created.Ref)
	if err := <-ended; err != nil {
		t.Errorf("wait for a machine that was killed: %v", err)
	}
	if _, err := s.Driver.Open(limited(t, s.Driver), id, created.Ref); !errors.Is(err, machine.ErrGone) {
		t.Errorf("open of a machine that was killed: %v, want ErrGone", err)
	}
	if ids, err := s.Driver.List(limited(t, s.Driver)); err != nil || !slices.Contains(ids, id) {
		t.Errorf("a machine that was killed is not listed: %v, %v", ids, err)
	}
}

func testDestroy(t *testing.T, s Setup) {
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	open, l := guest(t, s.Driver, id, created.Ref)
	configure(t, s, open, id, machine.Browser)
	for range 2 {
		if err := s.Driver.Destroy(limited(t, s.Driver), id); err != nil {
			t.Fatalf("destroy: %v", err)
		}
	}
	select {
	case <-l.Done():
	case <-limited(t, s.Driver).Done():
		t.Error("the line of a destroyed machine is still up")
	}
	if ids, err := s.Driver.List(limited(t, s.Driver)); err != nil || slices.Contains(ids, id) {
		t.Errorf("it is still listed: %v, %v", ids, err)
	}
	if err := s.Driver.Destroy(limited(t, s.Driver), newID()); err != nil {
		t.Errorf("destroying what never was: %v", err)
	}
	if _, err := s.Driver.Open(limited(t, s.Driver), id, created.Ref); !errors.Is(err, machine.ErrGone) {
		t.Errorf("open of a destroyed machine: %v, want ErrGone", err)
	}
}

func testIDs(t *testing.T, s Setup) {
	for _, id := range []string{"", "short", "../../../etc", "UPPERCASE1", "has space1", "a23456789012345678901234567890123"} {
		if _, err := s.Driver.Create(limited(t, s.Driver), machine.Spec{ID: id, Kind: machine.Browser}); err == nil {
			t.Errorf("it made a machine with the id %q", id)
		}
		if err := s.Driver.Destroy(limited(t, s.Driver), id); err == nil {
			t.Errorf("it destroyed %q", id)
		}
	}
	id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
	if _, err := s.Driver.Create(limited(t, s.Driver), machine.Spec{ID: id, Kind: machine.Browser}); !errors.Is(err, machine.ErrExists) {
		t.Errorf("a second machine with the same id: %v, want ErrExists", err)
	}
	client, _ := guest(t, s.Driver, id, created.Ref)
	configure(t, s, client, id, machine.Browser)
}

func testRefusing(t *testing.T, s Setup) {
	if len(s.Refusing) == 0 {
		t.Skip("SKIPPED: this driver has no limits")
	}
	for want, make := range s.Refusing {
		d, id := make(t), newID()
		if _, err := d.Create(limited(t, s.Driver), machine.Spec{ID: id, Kind: machine.Browser}); !errors.Is(err, want) {
			t.Errorf("create: %v, want %v", err, want)
		}
		if ids, err := d.List(limited(t, s.Driver)); err != nil || slices.Contains(ids, id) {
			t.Errorf("after %v it is listed: %v, %v", want, ids, err)
		}
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	id := newID()
	if _, err := s.Driver.Create(ended, machine.Spec{ID: id, Kind: machine.Browser}); !errors.Is(err, context.Canceled) {
		t.Errorf("create with a context that has ended: %v", err)
	}
	if ids, err := s.Driver.List(limited(t, s.Driver)); err != nil || slices.Contains(ids, id) {
		t.Errorf("it is listed: %v, %v", ids, err)
	}
}

func testNoSnapshot(t *testing.T, s Setup) {
	if s.NoSnapshot == nil {
		t.Skip("SKIPPED: this driver has no snapshots")
	}
	d := s.NoSnapshot(t)
	id, created := create(t, d, machine.Spec{Kind: machine.Browser})
	if created.Restored || created.ColdReason == "" {
		t.Errorf("restored %v, reason %q; want a cold start with a reason", created.Restored, created.ColdReason)
	}
	client, _ := guest(t, d, id, created.Ref)
	if ack := configure(t, s, client, id, machine.Browser); ack.Restored {
		t.Error("the agent says that it was restored")
	}
}

// rounds is how many machines come and go without leaving anything.
const rounds = 20

func testTrace(t *testing.T, s Setup) {
	if s.Trace == nil {
		t.Skip("SKIPPED: this driver holds nothing outside of this process")
	}
	before := s.Trace(t)
	for range rounds {
		id := newID()
		if _, err := s.Driver.Create(limited(t, s.Driver), machine.Spec{ID: id, Kind: machine.Browser}); err != nil {
			t.Fatal(err)
		}
		if err := s.Driver.Destroy(limited(t, s.Driver), id); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2 {
		t.Run(fmt.Sprint("configured ", i+1), func(t *testing.T) {
			id, created := create(t, s.Driver, machine.Spec{Kind: machine.Browser})
			client, _ := guest(t, s.Driver, id, created.Ref)
			configure(t, s, client, id, machine.Browser)
			cli, created := create(t, s.Driver, machine.Spec{Kind: machine.CLI, Home: t.TempDir()})
			client, _ = guest(t, s.Driver, cli, created.Ref)
			configure(t, s, client, cli, machine.CLI)
		})
	}
	if after := s.Trace(t); !slices.Equal(before, after) {
		t.Errorf("before: %q\nafter:  %q", before, after)
	}
}
