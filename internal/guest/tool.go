//go:build linux

package guest

import (
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/anteroom/anteroom/internal/provider"
)

// The size of the terminal of a tool that wants one: wide, so that no address
// is broken into lines.
const (
	toolRows = 50
	toolCols = 1000
)

// tool is a running sign-in command and what reads its output.
type tool struct {
	proc    *process
	urls    chan string // addresses in its output, unchecked
	codes   chan string // one-time codes in its output
	acp     chan error  // how an ACP dialogue ended; nothing for other tools
	over    chan struct{}
	ours    []*os.File // our ends of its pipes or terminal
	readers sync.WaitGroup
	stopped sync.Once
}

// startTool starts f's sign-in command in env. Each line of its output goes to
// keep, from several goroutines. The caller stops the tool.
func startTool(f *provider.File, u User, env []string, keep func(line string)) (*tool, error) {
	t := &tool{
		urls: make(chan string), codes: make(chan string),
		acp: make(chan error, 1), over: make(chan struct{}),
	}
	spec := processSpec{user: u, argv: f.Login.Argv, env: env}
	theirs, err := t.connect(f, &spec)
	defer closeAll(theirs)
	if err == nil {
		t.proc, err = startProcess(spec)
	}
	if err != nil {
		closeAll(t.ours)
		return nil, err
	}
	t.read(f, keep)
	return t, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// connect makes the tool's standard files. ours are, in this order, what we
// write to and what we read from; with a terminal it is one file.
func (t *tool) connect(f *provider.File, spec *processSpec) (theirs []*os.File, err error) {
	if f.Login.TTY {
		ours, its, err := openTerminal(spec.user, toolCols, toolRows)
		if err != nil {
			return nil, err
		}
		t.ours = []*os.File{ours}
		spec.stdin, spec.stdout, spec.stderr, spec.tty = its, its, its, true
		return []*os.File{its}, nil
	}
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	inR, inW := pipe()
	outR, outW := pipe()
	errR, errW := outR, outW
	if f.Login.Dialogue == "acp" { // its output is messages, its errors are text
		errR, errW = pipe()
	}
	for _, ours := range []*os.File{inW, outR, errR} {
		if ours != nil {
			t.ours = append(t.ours, ours)
		}
	}
	for _, their := range []*os.File{inR, outW, errW} {
		if their != nil {
			theirs = append(theirs, their)
		}
	}
	if f.Login.Dialogue != "" && f.Login.Dialogue != "none" {
		spec.stdin = inR
	}
	spec.stdout, spec.stderr = outW, errW
	return theirs, err
}

// read starts what reads the output.
func (t *tool) read(f *provider.File, keep func(string)) {
	in, out := t.ours[0], t.ours[len(t.ours)-1]
	scan := t.scanner(f, keep)
	t.readers.Go(func() { readLines(out, maxLineBytes, func(l string, _ bool) { scan(l) }) })
	switch f.Login.Dialogue {
	case "script":
		t.readers.Go(func() { _, _ = io.WriteString(in, f.Login.Stdin) })
	case "acp":
		t.readers.Go(func() {
			acpLogin(in, t.ours[1], f.Login.ACPMethod, scan, func(err error) { t.acp <- err })
		})
	}
}

// scanner returns what is done with each line of output: it is kept, and looked
// through for an address and a one-time code. The code itself is not kept.
func (t *tool) scanner(f *provider.File, keep func(string)) func(string) {
	url, code := finder(f.URL.Pattern), finder(f.URL.CodePattern)
	tell := func(to chan<- string, found string) {
		if found == "" {
			return
		}
		select {
		case to <- found:
		case <-t.over:
		}
	}
	return func(line string) {
		text := plain(line)
		if text == "" {
			return
		}
		address, once := url(text), code(text)
		if once != "" {
			keep(strings.ReplaceAll(text, once, "[one-time code]"))
		} else {
			keep(text)
		}
		tell(t.urls, address)
		tell(t.codes, once)
	}
}

// finder returns what finds the one group of a pattern, "" where there is none.
func finder(pattern string) func(string) string {
	if pattern == "" {
		return func(string) string { return "" }
	}
	re := regexp.MustCompile(pattern) // the file is valid
	return func(text string) string {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1]
		}
		return ""
	}
}

// stop ends the tool with all that it started and returns when its output has
// been read. Idempotent.
func (t *tool) stop(grace time.Duration) {
	t.stopped.Do(func() {
		close(t.over)
		t.proc.stop(grace)
		// Everything that held the other ends is gone; a reader that is still
		// there would wait for something that got away.
		ended := make(chan struct{})
		go func() { t.readers.Wait(); close(ended) }()
		select {
		case <-ended:
		case <-time.After(grace):
		}
		closeAll(t.ours)
		<-ended
	})
}
