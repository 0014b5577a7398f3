// Package steps shows long work as named steps: on a terminal a line that
// counts the seconds and tells how far it is, elsewhere a line at the start
// and one at the end.
package steps

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Printer prints steps, one at a time.
type Printer struct {
	out      io.Writer
	terminal bool
}

// New returns a printer to f, live if that is a terminal.
func New(f *os.File) *Printer {
	info, err := f.Stat()
	return &Printer{out: f, terminal: err == nil && info.Mode()&os.ModeCharDevice != 0}
}

// Status tells how far a step is, in a few words.
type Status func(words string)

// Do runs one step and prints its name, how far it is and what it took.
func (p *Printer) Do(name string, work func(Status) error) error {
	began := time.Now()
	var mu sync.Mutex
	words := ""
	line := func(mark, tail string) string {
		return fmt.Sprintf("%s %-44s %7.1f s  %s", mark, name, time.Since(began).Seconds(), tail)
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if !p.terminal {
			_, _ = fmt.Fprintf(p.out, "· %s …\n", name)
			return
		}
		for {
			mu.Lock()
			_, _ = fmt.Fprintf(p.out, "\r\033[K%s", line("·", words))
			mu.Unlock()
			select {
			case <-done:
				return
			case <-time.After(200 * time.Millisecond):
			}
		}
	}()
	err := work(func(w string) {
		mu.Lock()
		defer mu.Unlock()
		w = strings.TrimSpace(w)
		words = w[:min(len(w), 50)]
	})
	close(done)
	<-ended
	mark, tail := "✓", ""
	if err != nil {
		mark, tail = "✗", err.Error()
	}
	start := ""
	if p.terminal {
		start = "\r\033[K"
	}
	_, _ = fmt.Fprintf(p.out, "%s%s\n", start, strings.TrimRight(line(mark, tail), " "))
	return err
}

// Note prints a line of its own.
func (p *Printer) Note(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}
