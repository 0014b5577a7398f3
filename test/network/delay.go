package network

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	delayDevice = "slow"
	// delayHeld bounds the packets that are under way in one direction; further
	// ones are lost, as on any line.
	delayHeld = 4096
	delayMTU  = 1500
)

// delayLine is a second way between the ends of a link, on which packets are
// held for a time: a TUN device on each side. (The kernel's own netem is in few
// kernels of cloud machines.) As long as it is there all packets take it.
type delayLine struct {
	work    sync.WaitGroup
	devices [2]*os.File
}

type held struct {
	until  time.Time
	packet []byte
}

func newDelayLine(l *Link, oneWay time.Duration) (*delayLine, error) {
	d := &delayLine{}
	for i, n := range []*Namespace{l.Server, l.Person} {
		device, err := n.tun(delayDevice)
		if err != nil {
			return nil, errors.Join(err, d.close())
		}
		d.devices[i] = device
	}
	for from := range d.devices {
		line := make(chan held, delayHeld)
		d.work.Go(func() { hold(d.devices[from], line, oneWay) })
		d.work.Go(func() { release(d.devices[1-from], line) })
	}
	// A host's route goes before that of the network.
	err := errors.Join(
		l.Server.ip("link set "+delayDevice+" addrgenmode none up", fmt.Sprintf("route add %s dev %s src %s", LinkPersonAddr, delayDevice, LinkServerAddr)),
		l.Person.ip("link set "+delayDevice+" addrgenmode none up", fmt.Sprintf("route add %s dev %s src %s", LinkServerAddr, delayDevice, LinkPersonAddr)),
	)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// tun makes a device whose packets are read from and written to the file. It
// goes when that is closed.
func (n *Namespace) tun(name string) (file *os.File, err error) {
	err = n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("network: open the TUN device: %w", err)
		}
		request, err := unix.NewIfreq(name)
		if err == nil {
			request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("network: make a TUN device: %w", err), unix.Close(fd))
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	return file, err
}

func hold(from *os.File, line chan<- held, oneWay time.Duration) {
	defer close(line)
	buffer := make([]byte, delayMTU)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return // it was closed
		}
		select {
		case line <- held{time.Now().Add(oneWay), append([]byte(nil), buffer[:n]...)}:
		default:
		}
	}
}

func release(to *os.File, line <-chan held) {
	for h := range line {
		time.Sleep(time.Until(h.until))
		_, _ = to.Write(h.packet) // one that the other side does not take is lost
	}
}

// close ends the line; what is under way is lost.
func (d *delayLine) close() error {
	var err error
	for _, f := range d.devices {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	d.work.Wait()
	return err
}
