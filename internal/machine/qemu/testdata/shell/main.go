//go:build linux

// Command shell is the first process of the virtual machines in tests: it does
// what the agent does in its place, and runs shell commands as root beside it, for
// a test at the other end of a virtio-serial port.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/guest/boot"
)

// port is the name of the virtio-serial port.
const port = "test.shell"

func main() {
	if len(os.Args) > 1 {
		serve()
		return
	}
	// There is no /dev/null yet.
	child := &exec.Cmd{Path: "/init", Args: []string{"/init", "serve"}, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	if err := child.Start(); err != nil {
		fmt.Println(err)
	}
	fmt.Println(boot.Main())
}

type request struct {
	Number  string `json:"number"`
	Command string `json:"command"`
}

type answer struct {
	Number string `json:"number"`
	Output string `json:"output"`
}

// serve waits for the machine's root, changes to it and answers.
func serve() {
	const pause = 200 * time.Millisecond
	for unix.Chdir("/proc/1/root/usr/bin") != nil {
		time.Sleep(pause)
	}
	if err := unix.Chroot("/proc/1/root"); err != nil {
		return
	}
	var file *os.File
	for file == nil {
		time.Sleep(pause)
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, _ := os.ReadFile(n); strings.TrimSpace(string(b)) == port {
				file, _ = os.OpenFile("/dev/"+filepath.Base(filepath.Dir(n)), os.O_RDWR, 0)
			}
		}
	}
	for {
		in := json.NewDecoder(file)
		for {
			var r request
			if err := in.Decode(&r); err != nil {
				break // the test has gone
			}
			cmd := exec.Command("/bin/sh", "-c", r.Command)
			cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/bin"}
			out, _ := cmd.CombinedOutput()
			_ = json.NewEncoder(file).Encode(answer{r.Number, strings.TrimSpace(string(out))})
		}
		time.Sleep(pause)
	}
}
