// Package guestapi is what host and guest say to each other over the line:
// the HTTP routes that the guest agent serves, their bodies, and the limits
// that the host holds a guest to. Whatever comes from a guest is hostile.
package guestapi

import (
	"time"

	"github.com/anteroom/anteroom/internal/provider"
)

// Routes of the guest agent, served on streams that the host opens.
const (
	PathConfigure   = "/configure"           // POST Configure, answered by Ack
	PathWarm        = "/warm"                // POST; answered when the browser is up, before any configuration
	PathAuth        = "/auth/"               // + provider name; POST AuthRequest, answered by AuthStatus
	PathStatus      = "/credentials/status"  // GET, ?after=N&wait=10s; answered by AuthStatus
	PathCredentials = "/credentials/get"     // GET; answered by Credentials
	PathCollect     = "/credentials/collect" // POST Collect, answered by Credentials (cli machines only)
	PathDeliver     = "/credentials/put"     // POST Delivery, answered by DeliveryAck
	PathVNC         = "/vnc"                 // GET with Upgrade: anteroom-stream; then RFB
	PathScreen      = "/screen"              // GET ?codec=vp8 with Upgrade: anteroom-stream; then screen frames
	PathTerminal    = "/terminal"            // GET ?cols&rows with Upgrade: anteroom-stream; then terminal frames
	PathRun         = "/run"                 // POST RunRequest, answered by RunResult (cli machines only)
)

// Limits that the host holds every guest to.
const (
	MaxHeaderBytes   = 16 << 10
	MaxBodyBytes     = 1 << 20
	MaxFileBytes     = 64 << 10
	MaxFiles         = 16
	MaxJSONDepth     = 16
	MaxLogBytes      = 64 << 10 // what AuthStatus carries at most
	MaxTerminalFrame = 64 << 10
)

// Warm starts the browser of a machine that is nobody's yet, so that a
// snapshot of it can be saved. Settings that Chromium reads only at its start
// are part of the snapshot; a machine that is configured with others starts
// its browser again.
type Warm struct {
	CAPEM     string `json:"ca_pem"`
	Locale    string `json:"locale"`
	Languages string `json:"languages"`
	// Providers whose tools fill their caches (Login.Warm).
	Providers []*provider.File `json:"providers"`
}

// Configure is the first request on every line. Until it is acknowledged the
// machine does nothing for anybody.
type Configure struct {
	MachineID string            `json:"machine_id"`
	Kind      string            `json:"kind"` // "browser" or "cli"
	WallClock time.Time         `json:"wall_clock"`
	Entropy   []byte            `json:"entropy"`   // 64 random bytes
	CAPEM     string            `json:"ca_pem"`    // extra certificates, may be empty
	Locale    string            `json:"locale"`    // such as "en_US.UTF-8"
	Languages string            `json:"languages"` // such as "sv-SE,sv,en"
	TimeZone  string            `json:"time_zone"` // IANA name
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Providers []*provider.File  `json:"providers"` // for cli machines: what to prepare
	Env       map[string]string `json:"env"`
}

// Ack is the guest's answer to Configure: it has taken all of it.
type Ack struct {
	MachineID string    `json:"machine_id"` // the one it was given
	Entropy   string    `json:"entropy"`    // hex SHA-256 of the entropy it was given
	Clock     time.Time `json:"clock"`      // the guest's wall clock after the change
	Build     string    `json:"build"`      // the agent's build; must be the host's
	Restored  bool      `json:"restored"`   // whether the browser was already running
	Again     bool      `json:"again"`      // it had been configured as this machine before
	// Uncaught is why programs that ignore the proxy variables reach nothing in
	// this machine; empty if they are caught.
	Uncaught string `json:"uncaught,omitempty"`
}

// AuthRequest starts one sign-in. A second request for the same session is
// answered with the status of the first; another session is refused with 409.
type AuthRequest struct {
	SessionID string         `json:"session_id"`
	Provider  *provider.File `json:"provider"`
}

// AuthPhase is how far a sign-in has come inside the machine.
type AuthPhase string

// The phases of a sign-in inside the machine.
const (
	PhaseIdle     AuthPhase = "idle"     // none asked for
	PhaseRunning  AuthPhase = "running"  // the tool runs, no page yet
	PhaseOpened   AuthPhase = "opened"   // the sign-in page is open in Chromium
	PhaseCaptured AuthPhase = "captured" // the tool has written its files, they are valid, it has stopped
	PhaseFailed   AuthPhase = "failed"
)

// AuthStatus says how the sign-in stands. A request with ?after=N&wait=D is
// answered as soon as Seq > N, at the latest after D (at most 30 s).
type AuthStatus struct {
	Seq       int64     `json:"seq"` // grows with every change
	SessionID string    `json:"session_id"`
	Phase     AuthPhase `json:"phase"`
	Reason    string    `json:"reason"` // a session.Reason, with PhaseFailed
	Detail    string    `json:"detail"`
	UserCode  string    `json:"user_code"` // of a device flow
	ExitCode  *int      `json:"exit_code"`
	Log       []string  `json:"log"`      // the tool's redacted lines, at most MaxLogBytes, oldest dropped
	LogFrom   int       `json:"log_from"` // the number of the first line in Log, counted from 0
}

// Credentials are the captured files.
type Credentials struct {
	SessionID string    `json:"session_id"`
	Provider  string    `json:"provider"`
	Files     []File    `json:"files"`
	Account   string    `json:"account"`    // label for people, may be empty
	ExpiresAt time.Time `json:"expires_at"` // zero if unknown
}

// File is one credential file by the name that its provider file gives it.
type File struct {
	Name    string `json:"name"`
	Content []byte `json:"content"`
}

// Collect asks a cli machine for the credential files as they are now: the
// tools refresh their tokens by themselves.
type Collect struct {
	Provider *provider.File `json:"provider"`
}

// Delivery hands a version to a cli machine. Without files it takes the
// provider's files away.
type Delivery struct {
	CredentialID string `json:"credential_id"`
	Version      int    `json:"version"`
	// SessionID names the sign-in that the version comes from, also by refreshes
	// that came back from a machine: two versions with the same one are states of
	// the same sign-in. May be empty.
	SessionID string         `json:"session_id"`
	Provider  *provider.File `json:"provider"`
	Files     []File         `json:"files"`
}

// DeliveryAck says that the files are in place, each written atomically with
// mode 0600. SHA256 is DeliveryHash of what was written.
type DeliveryAck struct {
	CredentialID string `json:"credential_id"`
	Version      int    `json:"version"`
	SHA256       string `json:"sha256"`
	// Kept says that nothing was written, because the machine's own files are a
	// later state of this very version: the tool has refreshed its tokens.
	// SHA256 is then that of the files that came.
	Kept bool `json:"kept"`
}

// RunRequest runs one command as the person's user in a cli machine. It has
// no terminal; output is cut at 256 KiB each.
type RunRequest struct {
	Argv    []string `json:"argv"`
	Stdin   string   `json:"stdin"`
	Timeout string   `json:"timeout"` // Go duration, at most 5m
}

// RunResult is what came of it.
type RunResult struct {
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
	TimedOut bool   `json:"timed_out"`
}
