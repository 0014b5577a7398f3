//go:build linux

package boot

import "testing"

func TestParse(t *testing.T) {
	for line, want := range map[string]arguments{
		"quiet panic=-1 anteroom.kind=browser anteroom.line=virtio:anteroom.line\n": {"browser", "virtio:anteroom.line"},
		"anteroom.kind=probe quiet": {"probe", ""},
		"anteroom.line=vsock:7411 root=/dev/vda anteroom.kind=cli virtio_mmio.device=x": {"cli", "vsock:7411"},
		"anteroom.line=vsock-listen:1024 anteroom.kind=cli":                             {"cli", "vsock-listen:1024"},
	} {
		if got, err := parse(line); err != nil || got != want {
			t.Errorf("%q: %+v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "anteroom.kind=browser", "anteroom.line=virtio:x", "anteroom.kind=other anteroom.line=virtio:x",
		"anteroom.kind=cli anteroom.line=unix:/x", "anteroom.kind=cli anteroom.line=vsock:", "anteroom.kind= anteroom.line=vsock:1",
	} {
		if got, err := parse(line); err == nil {
			t.Errorf("%q is taken for %+v", line, got)
		}
	}
}

func TestOnlyFirstProcess(t *testing.T) {
	if err := Main(); err == nil {
		t.Error("it does its work in a process that is not the first")
	}
}
