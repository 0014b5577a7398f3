// Package buildinfo says which build a program is. Host and guest of one
// machine must be of the same build: they share types, not a protocol version.
package buildinfo

// Set with -ldflags -X at build time.
var (
	version = "devel"
	id      = "devel"
)

// Version is the release's name for people, such as "v1.2.0" or "devel".
func Version() string { return version }

// ID identifies what host and guest must have in common: a hash of the guest
// agent's sources, the same for two builds of the same tree.
func ID() string { return id }
