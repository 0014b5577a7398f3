package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/server"
)

func TestFirecracker(t *testing.T) {
	// Programs that say to be of a release.
	of := func(firecracker, jailer string) (string, string) {
		dir := t.TempDir()
		return write(t, filepath.Join(dir, "firecracker"), "#!/bin/sh\necho Firecracker v"+firecracker+"\n", 0o755),
			write(t, filepath.Join(dir, "jailer"), "#!/bin/sh\necho Jailer v"+jailer+"\n", 0o755)
	}
	for _, tt := range []struct {
		what, firecracker, jailer string
		status                    Status
		says                      []string
	}{
		{"good", "1.15.1", "1.15.1", OK, []string{"is 1.15.1"}},
		{"old", "1.9.0", "1.9.0", Warning, []string{"1.10.0 or newer", "firecracker-v1.16.2-x86_64.tgz"}},
		{"two releases", "1.15.1", "1.15.0", Warning, []string{"take both from one release"}},
		{"restores nothing", "1.16.0", "1.16.0", Warning, []string{"never answer", "firecracker-v1.16.2-x86_64.tgz"}},
		{"none", "", "", Warning, []string{"is missing", "firecracker-v1.16.2-x86_64.tgz.sha256.txt", "/releases/tag/v1.16.2"}},
	} {
		cfg := patient(t)
		cfg.Firecracker, cfg.Jailer = of(tt.firecracker, tt.jailer)
		if tt.what == "none" {
			cfg.Firecracker, cfg.Jailer = "/nonexistent/firecracker", "/nonexistent/jailer"
			tt.says = append(tt.says, "as /nonexistent/firecracker", "as /nonexistent/jailer")
		}
		if err := firecracker.KVM(); err != nil { // nothing to run them on: they are not looked for
			tt.status, tt.says = OK, []string{"not used", "KVM"}
		}
		cfg.Driver = server.DriverGVisor
		if r := examine(t, cfg)["firecracker"]; r.Status != OK || !strings.Contains(r.Found, "not used") {
			t.Errorf("%s, not asked for: %+v", tt.what, r)
		}
		cfg.Driver = server.DriverFirecracker
		if r := examine(t, cfg)["firecracker"]; (r.Status == Missing) != (tt.status == Warning && tt.what != "restores nothing" || firecracker.KVM() != nil) {
			t.Errorf("%s, asked for: %+v", tt.what, r)
		}
		cfg.Driver = server.DriverAuto
		r := examine(t, cfg)["firecracker"]
		if r.Status != tt.status {
			t.Errorf("%s: %+v", tt.what, r)
		}
		for _, s := range tt.says {
			if !strings.Contains(r.Found+" "+r.Mend, s) {
				t.Errorf("%s: %+v does not say %q", tt.what, r, s)
			}
		}
	}
}
