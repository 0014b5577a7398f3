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
	"unicode"
)

const (
	showEvery = 200 * time.Millisecond
	maxWords  = 50 // characters
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
	stop := func() {}
	if p.terminal {
		stop = repeat(func() {
			mu.Lock()
			defer mu.Unlock()
			_, _ = fmt.Fprintf(p.out, "\r\033[K%s", line("·", words))
		})
	} else {
		_, _ = fmt.Fprintf(p.out, "· %s …\n", name)
	}
	err := work(func(w string) {
		w = plain(w)
		mu.Lock()
		defer mu.Unlock()
		words = w
	})
	stop()
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

// repeat calls show now and then, in a goroutine that stop ends.
func repeat(show func()) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			show()
			select {
			case <-done:
				return
			case <-time.After(showEvery):
			}
		}
	}()
	return func() { close(done); <-ended }
}

// plain makes what a program has printed fit for a line that is written over:
// its first characters, without those that move the cursor.
func plain(words string) string {
	kept := make([]rune, 0, maxWords)
	for _, r := range strings.TrimSpace(words) {
		if len(kept) == maxWords {
			break
		}
		if unicode.IsPrint(r) {
			kept = append(kept, r)
		}
	}
	return string(kept)
}

// Note prints a line of its own.
func (p *Printer) Note(format string, args ...any) {
	_, _ = fmt.Fprintf(p.out, format+"\n", args...)
}
