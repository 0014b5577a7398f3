package server

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/image"
	"github.com/anteroom/anteroom/internal/machine/firecracker"
	"github.com/anteroom/anteroom/internal/machine/firecracker/fctest"
)

// pretendedFirecracker is a configuration with pretended programs of Firecracker's
// and no QEMU, and an image that goes with them.
func pretendedFirecracker(t *testing.T, s fctest.Settings) (Config, image.Image) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: machines can only be made by root")
	}
	dir := t.TempDir()
	definition, err := fctest.Fetch("../../tools/firecracker-api")
	if err != nil {
		t.Fatal(err)
	}
	if err := fctest.Build(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Install(dir, definition); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"image.erofs": "an image", "image.vmlinux": "\x7fELF", "image.initrd": "070701"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Defaults()
	cfg.StateDir, cfg.Logger = filepath.Join(dir, "state"), slog.New(slog.DiscardHandler)
	cfg.Firecracker, cfg.Jailer = filepath.Join(dir, "firecracker"), filepath.Join(dir, "jailer")
	cfg.QEMU, cfg.MinFreeMemory = "/nonexistent/qemu", 1
	cfg.Runsc = filepath.Join(dir, "firecracker") // some program
	return cfg, image.Image{ID: "an image", Path: filepath.Join(dir, "image.erofs")}
}

func TestChooseFirecracker(t *testing.T) {
	good := fctest.Settings{Version: "1.16.2", Minor: 16, Build: "a build"}
	broken := good
	broken.Faults = map[string]fctest.Fault{"PUT /actions": {Status: 400, Body: `{"fault_message":"no virtualisation here"}`}}
	for _, tt := range []struct {
		what     string
		settings fctest.Settings
		spoil    func(*Config)
		driver   string
		says     string
	}{
		{"it works", good, func(*Config) {}, DriverFirecracker, "a guest boots with Firecracker 1.16.2"},
		{"no guest boots", broken, func(*Config) {}, DriverGVisor, "no virtualisation here"},
		{"it is not there", good, func(c *Config) { c.Jailer = "/nonexistent/jailer" }, DriverGVisor, "/nonexistent/jailer"},
		{"it is asked for", good, func(c *Config) { c.Driver = DriverFirecracker }, DriverFirecracker, "the configuration says so"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			cfg, golden := pretendedFirecracker(t, tt.settings)
			tt.spoil(&cfg)
			noKVM := firecracker.KVM()
			if noKVM != nil {
				t.Logf("without KVM: %v", noKVM)
				tt.driver, tt.says = DriverGVisor, "KVM"
			}
			d, why, err := chooseDriver(t.Context(), cfg, golden)
			if noKVM != nil && cfg.Driver == DriverFirecracker {
				if err == nil || !strings.Contains(err.Error(), "KVM") {
					t.Errorf("asked for without KVM: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d.Name() != tt.driver || !strings.Contains(why, tt.says) {
				t.Errorf("%s: %s, want %s: %s", d.Name(), why, tt.driver, tt.says)
			}
			// What was tried is gone.
			if left, err := filepath.Glob(filepath.Join(cfg.StateDir, "*/machines/*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
