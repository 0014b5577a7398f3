package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestExtractVmlinuxRefuses(t *testing.T) {
	head := func(change func(b []byte)) []byte {
		b := make([]byte, 0x1000)
		copy(b[headerMagic:], "HdrS")
		binary.LittleEndian.PutUint16(b[bootVersion:], 0x20f)
		b[setupSectors] = 1
		binary.LittleEndian.PutUint32(b[payloadLength:], 100)
		change(b)
		return b
	}
	for name, image := range map[string][]byte{
		"nothing": nil, "zeros": make([]byte, 0x1000),
		"an old one":         head(func(b []byte) { b[bootVersion] = 7 }),
		"a payload beyond":   head(func(b []byte) { binary.LittleEndian.PutUint32(b[payloadLength:], 1<<31) }),
		"an offset beyond":   head(func(b []byte) { binary.LittleEndian.PutUint32(b[payloadOffset:], 0xffffffff) }),
		"no payload":         head(func(b []byte) { binary.LittleEndian.PutUint32(b[payloadLength:], 0) }),
		"something else":     head(func([]byte) {}),
		"a stream cut short": head(func(b []byte) { copy(b[1024:], "\x02\x21\x4c\x18\xff\xff\x00\x00") }),
	} {
		if _, err := extractVmlinux(image); !errors.Is(err, errNoKernel) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestInitrd has Debian's cpio read what is written, where there is one.
func TestInitrd(t *testing.T) {
	kernel, agent := t.TempDir(), filepath.Join(t.TempDir(), "agent")
	content := map[string]string{"init": "an agent", "modules/list": "b.ko\na.ko\n", "modules/a.ko": "a", "modules/b.ko": strings.Repeat("b", 4097)}
	write(t, agent, content["init"])
	for name, text := range content {
		if name != "init" {
			write(t, filepath.Join(kernel, name), text)
		}
	}
	paths := []string{filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")}
	var both [2][]byte
	for i, path := range paths {
		if err := writeInitrd(path, kernel, agent); err != nil {
			t.Fatal(err)
		}
		var err error
		if both[i], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(both[0], both[1]) {
		t.Error("the same files give another initrd")
	}
	for name, text := range content {
		if !bytes.Contains(both[0], []byte(name+"\x00")) || !bytes.Contains(both[0], []byte(text)) {
			t.Errorf("%s is not in it", name)
		}
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("SKIPPED: there is no cpio here to read it with")
	}
	to := t.TempDir()
	cmd := exec.Command(cpio, "-id", "--quiet")
	cmd.Dir, cmd.Stdin = to, bytes.NewReader(both[0])
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, text := range content {
		if got, err := os.ReadFile(filepath.Join(to, name)); err != nil || string(got) != text {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestKernelKey(t *testing.T) {
	first, err := kernelKey()
	if again, err2 := kernelKey(); err != nil || err2 != nil || again != first || len(first) != 24 {
		t.Errorf("%q and %q, %v, %v", first, again, err, err2)
	}
	modules, err := linesOf(kernelRecipe, "kernel/modules.txt")
	if err != nil || len(modules) < 8 {
		t.Errorf("modules: %q, %v", modules, err)
	}
}
