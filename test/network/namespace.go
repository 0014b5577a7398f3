// Package network makes networks of its own for tests, out of the kernel's
// network namespaces, and captures what is sent in them. It needs root and the
// program ip.
//
// Nothing of a network has a name on the host: a namespace lives for as long as
// somebody holds it open or a process runs in it, and with it go its interfaces,
// addresses and routes. So there is nothing that a test which was killed could
// leave behind.
package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Namespace is a network namespace. Its methods may be called concurrently.
type Namespace struct{ file *os.File }

// NewNamespace makes an empty one. The caller closes it.
func NewNamespace() (*Namespace, error) {
	n := &Namespace{}
	err := apart(func() (err error) {
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		n.file, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("network: make a namespace: %w", err)
	}
	return n, nil
}

// apart calls f on a thread that ends with it, so that f may change what
// belongs to a thread.
func apart(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		done <- f()
	}()
	return <-done
}

// Close gives the namespace up. It goes once nothing runs in it and no socket of
// it is open.
func (n *Namespace) Close() error { return n.file.Close() }

// Do calls f inside the namespace: sockets that f makes itself, not in another
// goroutine, and processes that it starts belong to it from then on.
func (n *Namespace) Do(f func() error) error {
	return apart(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("network: enter the namespace: %w", err)
		}
		return f()
	})
}

// Listen listens on a TCP address of the namespace.
func (n *Namespace) Listen(address string) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// Dial connects to a TCP address, not a name, from one of the namespace's own;
// from may be nil.
func (n *Namespace) Dial(ctx context.Context, from net.Addr, address string) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		d := net.Dialer{LocalAddr: from}
		c, err = d.DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// path names the namespace for other programs, as long as it is open.
func (n *Namespace) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.file.Fd()) }

// Within is the words before a command that have it run in the namespace, by the
// program nsenter, for as long as the namespace is open: for programs that
// somebody else starts.
func (n *Namespace) Within() []string { return []string{"nsenter", "--net=" + n.path(), "--"} }

// ip carries out commands of the program ip, without the word itself.
func (n *Namespace) ip(commands ...string) error {
	return n.Do(func() error {
		cmd := exec.Command("ip", "-batch", "-")
		cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("network: ip: %w: %s", err, strings.TrimSpace(string(out)))
		}
		return nil
	})
}

// quiet has the kernel send nothing of its own accord on interfaces that are
// made from now on.
func (n *Namespace) quiet() error {
	return n.Do(func() error {
		var errs error
		for name, value := range map[string]string{
			"accept_ra": "0", "autoconf": "0", "router_solicitations": "0", "accept_dad": "0", "dad_transmits": "0",
		} {
			for _, which := range []string{"all", "default"} {
				errs = errors.Join(errs, os.WriteFile("/proc/sys/net/ipv6/conf/"+which+"/"+name, []byte(value), 0))
			}
		}
		return errs
	})
}
