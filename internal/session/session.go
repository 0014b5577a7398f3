// Package session is the domain of Anteroom: what one attempt to sign in is,
// which states it passes through, which moves are allowed and why an attempt
// can end. It imports the standard library only, so that everything else may
// depend on it.
package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"
)

// ID identifies one session: 20 lower-case base-32 characters (100 random
// bits), safe in a path, a file name and a log line.
type ID string

const (
	idLen      = 20
	idAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

// NewID returns a fresh random ID. The other tables use the same form.
func NewID() ID {
	b := make([]byte, idLen)
	rand.Read(b) // never fails: the program ends if there is no entropy
	for i := range b {
		b[i] = idAlphabet[b[i]&31]
	}
	return ID(b)
}

// ErrID says that a string is not an ID.
var ErrID = errors.New("session: not an id")

// Validate returns ErrID unless id has the form that NewID gives.
func (id ID) Validate() error {
	if len(id) != idLen {
		return ErrID
	}
	for i := range len(id) {
		if c := id[i]; (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return ErrID
		}
	}
	return nil
}

// State is where a session stands. The strings are stored and sent: they are
// part of the database schema and of the API.
type State string

// The states in the order in which a session passes through them, and the
// four that end it.
const (
	Requested  State = "requested"
	Starting   State = "starting"
	Waiting    State = "waiting"
	Capturing  State = "capturing"
	Storing    State = "storing"
	Delivering State = "delivering"

	Completed State = "completed"
	Failed    State = "failed"
	Expired   State = "expired"
	Cancelled State = "cancelled"
)

// States returns every state, in order.
func States() []State {
	return []State{Requested, Starting, Waiting, Capturing, Storing, Delivering, Completed, Failed, Expired, Cancelled}
}

// Final says whether the session has ended: no move leads out of s.
func (s State) Final() bool {
	switch s {
	case Completed, Failed, Expired, Cancelled:
		return true
	}
	return false
}

// Valid says whether s is one of the states above.
func (s State) Valid() bool {
	for _, k := range States() {
		if s == k {
			return true
		}
	}
	return false
}

// moves is the one table of allowed moves. The store's UPDATE names both
// states, and a CHECK constraint repeats the set of states, so that neither a
// bug nor a second server can take a session anywhere else.
var moves = map[State][]State{
	Requested:  {Starting, Failed, Expired, Cancelled},
	Starting:   {Waiting, Failed, Expired, Cancelled},
	Waiting:    {Capturing, Failed, Expired, Cancelled},
	Capturing:  {Storing, Failed, Expired, Cancelled},
	Storing:    {Delivering, Failed, Expired, Cancelled},
	Delivering: {Completed, Failed, Expired, Cancelled},
}

// CanMove says whether a session may go from one state to another.
func CanMove(from, to State) bool {
	for _, s := range moves[from] {
		if s == to {
			return true
		}
	}
	return false
}

// Session is one attempt of one user to sign in to one provider.
type Session struct {
	ID       ID
	UserID   string
	Provider string
	State    State
	// Attempt counts the machines that were tried, from 1; 0 before the first.
	Attempt int
	// Position is the session's place in the queue of those that wait for a
	// machine, from 1; 0 if it does not wait. It is worked out when it is asked
	// for, and kept nowhere.
	Position int
	// Reason says why the session ended without success; empty otherwise.
	Reason Reason
	// Detail is one more sentence for the person, without secrets; may be empty.
	Detail string
	// VMID names the browser machine (table vms); empty before there is one.
	VMID string
	// ViewerURL is the path of the page that shows the session.
	ViewerURL string
	// View is what the person's browser told of itself when it asked for the
	// session (size, time zone), as JSON, for the machine; may be empty.
	View string
	// ExitAddress is where the machine was seen to come from; empty if nobody
	// was asked.
	ExitAddress string
	// CredentialID names the version that the session stored, from delivering on.
	CredentialID string
	// LeaseOwner is the server that works on the session; LastHeartbeat is when
	// it last said so. A lease is over once LastHeartbeat is older than its term.
	LeaseOwner    string
	LastHeartbeat time.Time
	// Deadline is when a session that is not final expires.
	Deadline  time.Time
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Event is one recorded change. Seq grows without gaps that matter: a reader
// that has seen Seq n asks for what is after n and misses nothing.
type Event struct {
	Seq       int64
	SessionID ID     // empty for events of machines and credentials
	UserID    string // whose event it is; nobody else may read it
	Kind      EventKind
	State     State // the state after the event, for EventState
	Reason    Reason
	// Message is one plain sentence for the person, without secrets.
	Message string
	At      time.Time
}

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventState               EventKind = "state"                // a session moved
	EventProgress            EventKind = "progress"             // a sentence about the work under way (an attempt, a retry)
	EventLog                 EventKind = "log"                  // a redacted line of the CLI's own output
	EventMachineCreated      EventKind = "machine_created"      // a machine's row was written
	EventMachineDestroyed    EventKind = "machine_destroyed"    // a machine is gone
	EventCredentialStored    EventKind = "credential_stored"    // a version was sealed and committed
	EventCredentialDelivered EventKind = "credential_delivered" // a CLI machine acknowledged a version
	EventCredentialDeleted   EventKind = "credential_deleted"   // a credential was deleted by its owner
)

// Reason is the stable code of why a session ended without success.
type Reason string

// The reasons. Each has a sentence for the person; see Reason.Sentence.
const (
	ReasonMachineStart   Reason = "machine_start_failed"
	ReasonMachineLost    Reason = "machine_lost"
	ReasonLoginExited    Reason = "login_exited"
	ReasonLoginURL       Reason = "login_url_refused"
	ReasonLoginTimeout   Reason = "login_timeout"
	ReasonCaptureInvalid Reason = "capture_invalid"
	ReasonStore          Reason = "store_failed"
	ReasonDelivery       Reason = "delivery_failed"
	ReasonExpired        Reason = "expired"
	ReasonCancelled      Reason = "cancelled"
	ReasonDiskFull       Reason = "disk_full"
	ReasonNoMemory       Reason = "no_memory"
	ReasonUpstream       Reason = "upstream_failed"
	ReasonNoPort         Reason = "no_upstream_port"
	ReasonPortShut       Reason = "upstream_port_shut"
	ReasonExitChanged    Reason = "exit_address_changed"
	ReasonBlocked        Reason = "provider_blocked"
	ReasonToolMissing    Reason = "tool_missing"
	ReasonProviderGone   Reason = "provider_unknown"
	ReasonInternal       Reason = "internal"
)

var sentences = map[Reason]string{
	ReasonMachineStart:   "The browser machine could not be started. Please try again; if it happens again, ask whoever runs this server to look at its log.",
	ReasonMachineLost:    "The browser machine stopped before the sign-in was finished. Nothing was stored; please try again.",
	ReasonLoginExited:    "The command-line tool ended its sign-in without success. Its own words are in the session's log; please try again.",
	ReasonLoginURL:       "The command-line tool asked to open an address that is not one of its provider's, so it was not opened.",
	ReasonLoginTimeout:   "The command-line tool did not ask for a sign-in page in time. Please try again.",
	ReasonCaptureInvalid: "The sign-in finished, but the credential files were not what this tool is known to write, so they were not stored. The tool may have changed; ask whoever runs this server to look.",
	ReasonStore:          "The credentials could not be stored. Nothing was kept; please try again.",
	ReasonDelivery:       "The credentials are stored, but your own machine did not take them. Press Deliver to try that step again.",
	ReasonExpired:        "The time for this sign-in ran out. Please start a new one.",
	ReasonCancelled:      "This sign-in was cancelled.",
	ReasonDiskFull:       "The server's disk is full, so the sign-in could not go on. Nothing half-written was kept; ask whoever runs this server to make room.",
	ReasonNoMemory:       "The server has not enough free memory for another machine. Please try again in a few minutes.",
	ReasonUpstream:       "The way out to the internet did not work, so the sign-in page could not be reached. Please try again; if it happens again, ask whoever runs this server to look at the proxy.",
	ReasonNoPort:         "No internet address of your own is free at the moment. Ask whoever runs this server for one.",
	ReasonPortShut:       "Your way out to the internet is out of use until whoever runs this server has looked at it.",
	ReasonExitChanged:    "Your way out to the internet suddenly had another address, so it was shut. Nothing was stored; ask whoever runs this server to look at it.",
	ReasonBlocked:        "Your way out to the internet refuses an address that this tool needs. Ask whoever runs this server for another one.",
	ReasonToolMissing:    "This tool is not installed in this server's machines. Ask whoever runs the server for it.",
	ReasonProviderGone:   "This server no longer knows the tool that the sign-in was for.",
	ReasonInternal:       "Something went wrong on the server. Please try again; if it happens again, ask whoever runs this server to look at its log.",
}

// Reasons returns every reason, in no particular order.
func Reasons() []Reason {
	out := make([]Reason, 0, len(sentences))
	for r := range sentences {
		out = append(out, r)
	}
	return out
}

// Sentence says in plain words what happened and what to do. It never holds
// internals; an unknown reason gets the sentence of ReasonInternal.
func (r Reason) Sentence() string {
	if s, ok := sentences[r]; ok {
		return s
	}
	return sentences[ReasonInternal]
}

// QueueSentence tells somebody who waits for a machine how many are before them.
func QueueSentence(ahead int) string {
	switch ahead {
	case 0:
		return "You are next: your sign-in starts as soon as a place is free."
	case 1:
		return "1 person is before you. Your sign-in starts by itself when it is your turn."
	}
	return fmt.Sprintf("%d people are before you. Your sign-in starts by itself when it is your turn.", ahead)
}

// ErrConflict is the sentinel of every ConflictError.
var ErrConflict = errors.New("conflict: it was in another state or held by another server")

// ErrNotReady says that the service is starting or stopping. A moment later it
// can be asked again.
var ErrNotReady = errors.New("not now: the service is starting or stopping")

// ConflictError says that a move matched no row: the session was in another
// state, or another server holds it. To is empty where it was the lease alone
// that was missed. It is not a failure of the session.
type ConflictError struct {
	ID       ID
	From, To State
	Actual   State // empty if unknown
}

func (e *ConflictError) Error() string {
	switch {
	case e.To == "" && e.Actual.Final():
		return fmt.Sprintf("session %s: it is %s", e.ID, e.Actual)
	case e.To == "":
		return fmt.Sprintf("session %s: another server holds it", e.ID)
	case !CanMove(e.From, e.To):
		return fmt.Sprintf("session %s: no move leads from %s to %s", e.ID, e.From, e.To)
	case e.Actual == e.From:
		return fmt.Sprintf("session %s: cannot move from %s to %s: another server holds it", e.ID, e.From, e.To)
	}
	return fmt.Sprintf("session %s: cannot move from %s to %s: it is %s", e.ID, e.From, e.To, e.Actual)
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }
