//go:build linux

package guest

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of random(4).
const (
	rndAddEntropy = 0x40085203
	rndReseedCRNG = 0x5207
)

// creditEntropy adds b to the kernel's pool as full entropy and has the
// generator use it at once (RNDADDENTROPY, RNDRESEEDCRNG).
func creditEntropy(fd uintptr, b []byte) error {
	info := binary.NativeEndian.AppendUint32(nil, uint32(len(b)*8)) //nolint:gosec // 64 bytes
	info = binary.NativeEndian.AppendUint32(info, uint32(len(b)))   //nolint:gosec // 64 bytes
	info = append(info, b...)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 { //nolint:gosec // as unsafe.Pointer allows for a system call
		return errno
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, rndReseedCRNG, 0); errno != 0 {
		return errno
	}
	return nil
}
