//go:build linux

package fctest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// Settings are what the pretended programs do. They lie beside the programs, as
// settingsFile; the pretended jailer takes them, and the API's definition, into
// the jail.
type Settings struct {
	Version string `json:"version"` // of both programs, such as 1.10.1
	Minor   int    `json:"minor"`   // of it, for the API's definition
	Build   string `json:"build"`   // that agents say they are of
	// Faults are by operation, as Server.Inject takes them.
	Faults map[string]Fault `json:"faults,omitempty"`
	// Deaf guests take no connection once they were restored, as Firecracker
	// 1.16.0's do.
	Deaf bool `json:"deaf,omitempty"`
	// Flood is how many bytes a guest writes to its console when it starts.
	Flood int `json:"flood,omitempty"`
	// JailerFails and JailerHangs name a step of the jailer: begin, cgroups,
	// jailed.
	JailerFails string `json:"jailer_fails,omitempty"`
	JailerHangs string `json:"jailer_hangs,omitempty"`
}

// What lies beside the programs, and in the jail's root.
const (
	settingsFile   = "fake.json"
	definitionFile = "definition.yaml"
	// RequestsFile, in the jail's root, has each request that a pretended
	// Firecracker got, as a line of JSON.
	RequestsFile = "requests.jsonl"
	// ReachedFile, in the jail's root, is there once the jailer hangs.
	ReachedFile = "jailer-hangs"
)

// Install puts settings and the API's definition beside the programs in dir.
func (s Settings) Install(dir string, definition []byte) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	// Replaced and not changed: a jailer may be reading it.
	if err := os.WriteFile(filepath.Join(dir, settingsFile+".new"), text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(dir, settingsFile+".new"), filepath.Join(dir, settingsFile)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, definitionFile), definition, 0o600)
}

// readSettings reads those beside the running program.
func readSettings() (s Settings, dir string, err error) {
	// Not os.Executable: there is no /proc in a jail.
	dir = filepath.Dir(os.Args[0])
	text, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if err != nil {
		return s, "", err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, "", fmt.Errorf("%s: %w", settingsFile, err)
	}
	return s, dir, nil
}
