package image

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/pierrec/lz4/v4"
)

// Of a bzImage's setup header (Documentation/arch/x86/boot.rst of Linux).
const (
	setupSectors  = 0x1f1 // 1 byte, of 512 bytes each; 0 means 4
	headerMagic   = 0x202 // "HdrS"
	bootVersion   = 0x206 // 2 bytes
	payloadOffset = 0x248 // 4 bytes, from the end of the setup code; since 2.08
	payloadLength = 0x24c
	sectorSize    = 512

	lz4Legacy = 0x184c2102 // begins the form of LZ4 that kernels are packed in
)

// maxVmlinux is more than an uncompressed kernel takes.
const maxVmlinux = 512 << 20

var errNoKernel = errors.New("not a kernel that can be unpacked")

// extractVmlinux unpacks the kernel proper, an ELF file, out of a bzImage whose
// payload is compressed by LZ4, as that of Debian's cloud kernel is.
func extractVmlinux(image []byte) ([]byte, error) {
	if len(image) < payloadLength+4 || string(image[headerMagic:headerMagic+4]) != "HdrS" || binary.LittleEndian.Uint16(image[bootVersion:]) < 0x208 {
		return nil, fmt.Errorf("%w: it has no setup header of version 2.08 or later", errNoKernel)
	}
	sectors := uint64(image[setupSectors])
	if sectors == 0 {
		sectors = 4
	}
	begin := (sectors+1)*sectorSize + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	end := begin + uint64(binary.LittleEndian.Uint32(image[payloadLength:]))
	if end > uint64(len(image)) || end-begin < 4 {
		return nil, fmt.Errorf("%w: its payload ends beyond it", errNoKernel)
	}
	payload := image[begin : end-4] // behind it is its size
	if len(payload) < 4 || binary.LittleEndian.Uint32(payload) != lz4Legacy {
		return nil, fmt.Errorf("%w: its payload begins with %x, which is not LZ4", errNoKernel, payload[:min(4, len(payload))])
	}
	kernel, err := io.ReadAll(io.LimitReader(lz4.NewReader(bytes.NewReader(payload)), maxVmlinux))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKernel, err)
	}
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoKernel, err)
	}
	if f.Machine != elf.EM_X86_64 || f.Type != elf.ET_EXEC {
		return nil, fmt.Errorf("%w: it is a %v for %v", errNoKernel, f.Type, f.Machine)
	}
	return kernel, nil
}

// moduleNeeds returns the names of the modules that a module needs, as its own
// description says.
func moduleNeeds(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	defer func() { _ = f.Close() }()
	info := f.Section(".modinfo")
	if info == nil {
		return nil, fmt.Errorf("%s is no kernel module", file)
	}
	text, err := info.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	var needs []string
	for field := range strings.SplitSeq(string(text), "\x00") {
		if list, ok := strings.CutPrefix(field, "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				needs = append(needs, moduleName(name))
			}
		}
	}
	return needs, nil
}
