//go:build linux

package fctest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// definitionModule is the Go module that carries a copy of Firecracker's API
// definition: its makers' own client.
const definitionModule = "github.com/firecracker-microvm/firecracker-go-sdk"

// Build makes the pretended programs, firecracker and jailer, in a directory. What
// they do is for Settings.Install to say.
func Build(dir string) error {
	program := filepath.Join(dir, "firecracker")
	// They run in a jail without libraries.
	cmd := exec.Command("go", "build", "-o", program, "github.com/anteroom/anteroom/test/firecracker/fake")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the pretended Firecracker: %w: %s", err, out)
	}
	return os.Link(program, filepath.Join(dir, "jailer"))
}

// Fetch returns Firecracker's API definition, out of the module that the go.mod
// in dir (tools/firecracker-api) pins, with its checksum. It is no part of this
// repository.
func Fetch(dir string) ([]byte, error) {
	cmd := exec.Command("go", "mod", "download", "-json", definitionModule)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var module struct {
		Dir, Error string
	}
	if jsonErr := json.Unmarshal(out, &module); err != nil || jsonErr != nil || module.Dir == "" {
		return nil, fmt.Errorf("the module with Firecracker's API definition cannot be had: %s: %w", module.Error, err)
	}
	return os.ReadFile(filepath.Join(module.Dir, "client", "swagger.yaml"))
}
