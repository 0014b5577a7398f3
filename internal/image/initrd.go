package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// writeInitrd makes an initrd of a kernel's modules, with the agent as the first
// process. It is not compressed: unpacking would take an emulated machine longer
// than reading.
func writeInitrd(path, kernel, agent string) (err error) {
	names, err := filepath.Glob(filepath.Join(kernel, "modules/*"))
	if err != nil {
		return err
	}
	slices.Sort(names)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	out := bufio.NewWriter(f)
	a := archive{w: out}
	for _, dir := range []string{"dev", "proc", "modules"} {
		a.add(dir, 0o040755, nil)
	}
	program, err := os.ReadFile(agent)
	if err != nil {
		return err
	}
	a.add("init", 0o100755, program)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		a.add("modules/"+filepath.Base(name), 0o100644, content)
	}
	a.add("TRAILER!!!", 0, nil)
	if a.err != nil {
		return a.err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// archive writes an archive in cpio's "newc" form (Documentation/driver-api/
// early-userspace/buffer-format.rst of Linux), the same bytes for the same files.
type archive struct {
	w      io.Writer
	serial int
	err    error // the first; nothing is written after it
}

// add adds a file or directory of root's.
func (a *archive) add(name string, mode uint32, content []byte) {
	a.serial++
	links := 1
	if mode&0o040000 != 0 {
		links = 2
	}
	var head bytes.Buffer
	// ino, mode, uid, gid, nlink, mtime, size, device and special device, length
	// of the name with its zero, no sum.
	_, _ = fmt.Fprintf(&head, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.serial, mode, 0, 0, links, epoch, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	a.write(head.Bytes())
	a.write(content)
}

// write writes b and zeros up to a multiple of four bytes.
func (a *archive) write(b []byte) {
	for _, part := range [][]byte{b, make([]byte, -len(b)&3)} {
		if a.err == nil {
			_, a.err = a.w.Write(part)
		}
	}
}
