// Package provider describes the command-line tools that a person can sign in
// to. Everything that Anteroom knows about a tool is in its provider file, a
// YAML document; nothing about a tool is hard-coded anywhere else.
//
// The same package is used by the host (loading, API) and inside the machine
// (login, capture): a File travels to the machine as JSON.
package provider

import (
	"slices"
	"strings"
	"time"
)

// File is one provider file. Field names in YAML and JSON are those of the
// tags; an unknown field, a wrong type or a rule broken refuses the file with
// its name, line and reason.
type File struct {
	Name    string   `yaml:"name" json:"name"`       // [a-z][a-z0-9_-]{0,31}, unique over all names and aliases
	Aliases []string `yaml:"aliases" json:"aliases"` // further names that mean this provider
	Title   string   `yaml:"title" json:"title"`     // for people: "Claude Code"
	Vendor  string   `yaml:"vendor" json:"vendor"`   // for people: "Anthropic"
	Terms   string   `yaml:"terms" json:"terms"`     // https URL of the vendor's terms
	Version string   `yaml:"version" json:"version"` // the tool's version that the file was written for

	Login   Login        `yaml:"login" json:"login"`
	URL     URL          `yaml:"url" json:"url"`
	Files   []Credential `yaml:"files" json:"files"`
	Redact  []string     `yaml:"redact" json:"redact"`     // Go regular expressions of the vendor's secrets, as the tool may print them; optional
	Account *Value       `yaml:"account" json:"account"`   // where the account's label is; optional
	Expiry  *Value       `yaml:"expiry" json:"expiry"`     // when the sign-in is over as far as the files tell; optional
	Fresh   *Value       `yaml:"fresh" json:"fresh"`       // what grows with each refresh; optional, default Expiry
	HomeEnv *HomeEnv     `yaml:"home_env" json:"home_env"` // a variable that moves the tool's files; optional
	Target  Target       `yaml:"target" json:"target"`
	Refresh Refresh      `yaml:"refresh" json:"refresh"`
	Hosts   []string     `yaml:"hosts" json:"hosts"`   // names that the tool must be able to reach
	Reach   Reach        `yaml:"reach" json:"reach"`   // what its browser machines may reach; optional
	CAEnv   []string     `yaml:"ca_env" json:"ca_env"` // variables that get the path of the CA bundle
}

// Reach says which names a browser machine of this provider may reach, beside
// what the server says. "example.com" is that name, ".example.com" that name
// and all below it. A name on Deny may not be reached; where Allow has entries,
// nothing else may.
type Reach struct {
	Allow []string `yaml:"allow" json:"allow"`
	Deny  []string `yaml:"deny" json:"deny"`
}

// Login says how the tool's own sign-in is started.
type Login struct {
	Argv []string          `yaml:"argv" json:"argv"` // argv[0] is looked up in the machine's PATH
	Env  map[string]string `yaml:"env" json:"env"`   // added to the machine's environment
	// Warm is a command of the tool that needs neither network nor home, such
	// as its --version; it is run with Env before a snapshot is saved, so that
	// caches of compiled code are part of it. Optional.
	Warm []string `yaml:"warm" json:"warm"`
	TTY  bool     `yaml:"tty" json:"tty"` // give it a pseudo-terminal
	// Dialogue is how the agent talks to the tool: "none" (stdin is /dev/null),
	// "script" (Stdin is written at once), or "acp" (JSON-RPC over stdio:
	// initialize, then authenticate with ACPMethod).
	Dialogue  string `yaml:"dialogue" json:"dialogue"`
	Stdin     string `yaml:"stdin" json:"stdin"`
	ACPMethod string `yaml:"acp_method" json:"acp_method"`
	// Flow is "loopback", "device" or "poll". ("paste", where the person carries
	// a code from the page to the tool, is refused: with a real browser beside
	// the tool nobody needs it, and nothing would carry the code.)
	Flow string `yaml:"flow" json:"flow"`
	// Timeout is a Go duration: how long a person has. 1m to 1h.
	Timeout string `yaml:"timeout" json:"timeout"`
	// ExitsOnSuccess says that exit code 0 ends a successful login. An ACP
	// login has succeeded with the answer to authenticate; the tool is then
	// stopped.
	ExitsOnSuccess bool `yaml:"exits_on_success" json:"exits_on_success"`
}

// TimeLimit is Timeout as a duration; 0 if it does not parse, which Validate
// refuses.
func (l Login) TimeLimit() time.Duration {
	d, _ := time.ParseDuration(l.Timeout)
	return d
}

// URL says how the sign-in page's address is caught and which are allowed.
type URL struct {
	// Hooks are the names under which the tool looks for a browser: "BROWSER"
	// (the environment variable) and program names such as "xdg-open".
	Hooks []string `yaml:"hooks" json:"hooks"`
	// Pattern finds the address in the tool's output where no hook is called:
	// a Go regular expression with one group. Optional.
	Pattern string `yaml:"pattern" json:"pattern"`
	// CodePattern finds the one-time code of a device flow. Optional.
	CodePattern string `yaml:"code_pattern" json:"code_pattern"`
	// Hosts are the exact host names that the address may have (https only).
	Hosts []string `yaml:"hosts" json:"hosts"`
}

// Credential is one file that the tool writes when it has signed in.
type Credential struct {
	Name     string `yaml:"name" json:"name"` // its name in the vault: [a-z0-9_.-]{1,64}, unique in the file
	Path     string `yaml:"path" json:"path"` // below the home directory, clean, no ".."
	Required bool   `yaml:"required" json:"required"`
	// Format is "json" (the default, also when empty) or "opaque": bytes that
	// are only held to the size limit.
	Format string `yaml:"format" json:"format"`
	// Secret says that the file holds tokens. All files are sealed and 0600;
	// the secret ones never lie on a disk.
	Secret bool `yaml:"secret" json:"secret"`
	// NonEmpty are JSON pointers (RFC 6901) that must lead to a non-empty
	// string, a positive number, true, or a non-empty array or object.
	NonEmpty []string `yaml:"non_empty" json:"non_empty"`
	// Types maps JSON pointers to "string", "number", "boolean", "array",
	// "object": where the pointer leads anywhere but to null, it leads to that
	// type.
	Types map[string]string `yaml:"types" json:"types"`
}

// Value says where something can be read: in a JSON file below the home
// directory (Path), at Pointer; through the claims of a JWT if JWT names a
// claim (the signature is not checked: the label is for people).
type Value struct {
	Path    string `yaml:"path" json:"path"`
	Pointer string `yaml:"pointer" json:"pointer"`
	JWT     string `yaml:"jwt" json:"jwt"`
	// Unit is "" for a label, "s" or "ms" since 1970, or "rfc3339".
	Unit string `yaml:"unit" json:"unit"`
	// Or is read where this one leads nowhere. It has no Or of its own.
	Or *Value `yaml:"or" json:"or"`
}

// HomeEnv is a variable by which a person has the tool keep its files elsewhere
// on a computer of their own. In a machine nothing sets it.
type HomeEnv struct {
	Name string `yaml:"name" json:"name"`
	// Replaces is the directory below the home directory in whose place the
	// variable's is used; "." for the home directory itself.
	Replaces string `yaml:"replaces" json:"replaces"`
	// Also are files of the home directory that are then in the variable's too.
	Also []string `yaml:"also" json:"also"`
}

// Path returns where below the variable's directory the file is that is at p
// below the home directory otherwise; false if the variable does not move it.
func (h *HomeEnv) Path(p string) (string, bool) {
	if h.Replaces == "." || slices.Contains(h.Also, p) {
		return p, true
	}
	return strings.CutPrefix(p, h.Replaces+"/")
}

// Target says what the person's own machine needs beside the files.
type Target struct {
	// PrivateDirs are directories below the home directory that lie in memory
	// (tmpfs) because the tool writes secrets there.
	PrivateDirs []PrivateDir `yaml:"private_dirs" json:"private_dirs"`
	// Seed are files that the tool needs something in (onboarding answers): they
	// are written where they are missing, and merged into what is there (Merge).
	Seed []Seed `yaml:"seed" json:"seed"`
	// Status is the tool's own command that says whether it is signed in;
	// exit code 0 means yes. Optional.
	Status []string          `yaml:"status" json:"status"`
	Env    map[string]string `yaml:"env" json:"env"` // for every process of the machine; a value that begins with "~/" gets the home directory
}

// PrivateDir is a directory in memory whose harmless content is kept on disk:
// the subdirectories in Keep, and top-level regular files other than the
// credentials and what Skip names.
type PrivateDir struct {
	Path string   `yaml:"path" json:"path"`
	Keep []string `yaml:"keep" json:"keep"` // subdirectories that persist (made as links into the persistent home)
	Skip []string `yaml:"skip" json:"skip"` // top-level files that are not kept: names, with * at either end or both
}

// Seed is what a file must hold: a JSON object whose members it must have, or any
// other text, which counts only where there is no file.
type Seed struct {
	Path    string `yaml:"path" json:"path"`
	Content string `yaml:"content" json:"content"`
}

// Refresh says what happens to the tokens later.
type Refresh struct {
	Rotates bool     `yaml:"rotates" json:"rotates"` // a refresh replaces the refresh token; one holder only
	Revokes []string `yaml:"revokes" json:"revokes"` // commands that end the login at the vendor
}
