//go:build linux

// Command fake is a pretended firecracker, and, under a name with "jailer" in
// it, a pretended jailer: see package fctest.
package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
)

func main() {
	if strings.Contains(filepath.Base(os.Args[0]), "jailer") {
		os.Exit(fctest.JailerMain(os.Args[1:]))
	}
	os.Exit(fctest.VMMMain(os.Args[1:]))
}
