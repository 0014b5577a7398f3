package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// A direction that carries little holds a small buffer while it waits, since a
// browser has many tunnels that are silent; a read that fills it is followed by
// large ones, until one is small again.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// onEnd calls f in its own goroutine when ctx ends. stop cancels that, or waits
// until f has returned if it was called.
func onEnd(ctx context.Context, f func()) (stop func()) {
	done := make(chan struct{})
	cancel := context.AfterFunc(ctx, func() {
		defer close(done)
		f()
	})
	return func() {
		if !cancel() {
			<-done
		}
	}
}

// cut ends a connection at once, also for those that block in it.
func cut(c net.Conn) {
	_ = c.SetDeadline(time.Unix(1, 0)) // the Close of a line's stream does not wake its readers
	_ = c.Close()
}

// closeWrite ends the sending direction.
func closeWrite(c net.Conn) {
	if hc, ok := c.(interface{ CloseWrite() error }); ok {
		_ = hc.CloseWrite()
		return
	}
	_ = c.Close()
}

// watchdog calls bite once, after nobody touched it for a while. The caller
// stops it.
type watchdog struct {
	idle  time.Duration
	bite  func()
	mu    sync.Mutex
	timer *time.Timer // nil once stopped
	last  atomic.Int64
	epoch time.Time
}

func newWatchdog(idle time.Duration, bite func()) *watchdog {
	w := &watchdog{idle: idle, bite: bite, epoch: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(idle, w.check)
	return w
}

func (w *watchdog) touch() { w.last.Store(int64(time.Since(w.epoch))) }

func (w *watchdog) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer == nil {
		return
	}
	if quiet := time.Since(w.epoch) - time.Duration(w.last.Load()); quiet < w.idle {
		w.timer.Reset(w.idle - quiet)
		return
	}
	w.bite()
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer.Stop()
	w.timer = nil
}

// join copies both ways until both directions have ended: the end of one is
// handed on as a half-close; an error, silence for IdleTimeout or more than
// MaxBytes (tooMuch) ends both. guestReader is what guest sends, with what was
// read ahead of it. It returns when both copies have ended and has filled in
// r's counts.
func (p *Proxy) join(guest net.Conn, guestReader io.Reader, out net.Conn, r *request) (tooMuch bool) {
	stop := func() { cut(guest); cut(out) }
	dog := newWatchdog(p.cfg.IdleTimeout, stop)
	defer dog.stop()
	left := &allowance{end: stop}
	left.bytes.Store(p.cfg.MaxBytes)
	var both sync.WaitGroup
	oneWay := func(dst net.Conn, src io.Reader, n *int64, total prometheus.Counter) {
		if err := p.pump(dst, src, n, total, dog, left); err != nil {
			stop()
			return
		}
		closeWrite(dst)
	}
	both.Go(func() { oneWay(out, guestReader, &r.sent, p.metrics.up) })
	both.Go(func() { oneWay(guest, out, &r.received, p.metrics.down) })
	both.Wait()
	return left.used()
}

// allowance is what a connection may still carry; end is called once that is
// used up.
type allowance struct {
	bytes atomic.Int64
	end   func()
}

func (a *allowance) take(n int) error {
	if a.bytes.Add(int64(-n)) < 0 {
		a.end()
		return &Error{Code: TooMuch}
	}
	return nil
}

func (a *allowance) used() bool { return a.bytes.Load() < 0 }

// pump copies until the end of src, which is no error.
func (p *Proxy) pump(dst io.Writer, src io.Reader, n *int64, total prometheus.Counter, dog *watchdog, left *allowance) error {
	b := buffer{pool: &p.buffers}
	defer b.release()
	for {
		buf := b.next()
		got, err := src.Read(buf)
		b.filled(got)
		if got > 0 {
			dog.touch()
			if err := left.take(got); err != nil {
				return err
			}
			if _, err := dst.Write(buf[:got]); err != nil {
				return err
			}
			dog.touch()
			*n += int64(got)
			total.Add(float64(got))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// buffer is what one direction reads into: small while little comes, large
// while much does.
type buffer struct {
	pool  *sync.Pool // of *[]byte, largeBuffer long
	small []byte
	large *[]byte // from the pool, or nil
	much  bool
}

// next returns what to read into; it is good until the next call.
func (b *buffer) next() []byte {
	if b.much {
		if b.large == nil {
			b.large = b.pool.Get().(*[]byte) //nolint:errcheck // the pool holds nothing else
		}
		return *b.large
	}
	b.release()
	if b.small == nil {
		b.small = make([]byte, smallBuffer)
	}
	return b.small
}

// filled takes how much came.
func (b *buffer) filled(n int) { b.much = n >= smallBuffer }

func (b *buffer) release() {
	if b.large != nil {
		b.pool.Put(b.large)
		b.large = nil
	}
}
