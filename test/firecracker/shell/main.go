//go:build linux

// Command shell is the first process of the virtual machines in the Firecracker
// driver's tests: it does what the agent does in its place, and runs shell
// commands as root beside it, for a test that connects to a vsock port: a command
// as a JSON string, answered by its output as another.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guest/boot"
)

// port is the vsock port; the agent's is another.
const port = 1025

func main() {
	if len(os.Args) > 1 {
		serve()
		return
	}
	if err := exec.Command("/init", "serve").Start(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(boot.Main())
}

// serve waits for the machine's root, changes to it and answers.
func serve() {
	const pause = 20 * time.Millisecond
	for unix.Chdir("/proc/1/root/usr/bin") != nil {
		time.Sleep(pause)
	}
	if err := unix.Chroot("/proc/1/root"); err != nil {
		return
	}
	listener, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := unix.Bind(listener, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		fmt.Println(err)
		return
	}
	if err := unix.Listen(listener, 4); err != nil {
		fmt.Println(err)
		return
	}
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if err != nil {
			time.Sleep(pause)
			continue
		}
		go answer(os.NewFile(uintptr(fd), "vsock"))
	}
}

func answer(conn *os.File) {
	defer func() { _ = conn.Close() }()
	var command string
	if err := json.NewDecoder(conn).Decode(&command); err != nil {
		return
	}
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"}
	out, _ := cmd.CombinedOutput()
	_ = json.NewEncoder(conn).Encode(strings.TrimSpace(string(out)))
}
