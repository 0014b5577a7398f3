//go:build linux

package gvisor

// Cgroups says whether this host lets the driver limit machines' memory and
// CPU, and why not.
func Cgroups() (ok bool, why string) { return probeCgroups() }
