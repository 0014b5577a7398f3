//go:build linux

package guest

import (
	"bufio"
	"io"
	"regexp"
	"strings"
	"unicode"

	"github.com/anteroom/anteroom/internal/guestapi"
)

// Limits on what is kept of a tool's output. Whatever is beyond is read, so
// that the tool does not stall, and dropped.
const (
	maxLineBytes = 16 << 10 // what of a line is looked at; an address has at most 8 KiB
	maxLogLine   = 2 << 10
	maxLogLines  = 2000 // over the whole sign-in
)

// lineLog keeps a tool's output, redacted. It is not safe for concurrent use.
type lineLog struct {
	redact func(string) string
	lines  []string
	from   int // the number of the first line kept
	bytes  int
}

// add keeps a line and says whether the log has changed.
func (l *lineLog) add(line string) bool {
	next := l.from + len(l.lines)
	switch {
	case next > maxLogLines:
		return false
	case next == maxLogLines:
		line = "(what the tool says beyond this is not kept)"
	}
	line = cut(l.redact(line), maxLogLine)
	l.lines = append(l.lines, line)
	l.bytes += len(line)
	for l.bytes > guestapi.MaxLogBytes {
		l.bytes -= len(l.lines[0])
		l.lines = l.lines[1:]
		l.from++
	}
	return true
}

// cut shortens s to at most n bytes, at the boundary of a character.
func cut(s string, n int) string {
	const mark = "…"
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len(mark)], "") + mark
}

// escapes are the sequences by which programs colour and move text.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[ -/]*[0-~]`)

// plain is a line as text: without escape sequences and control characters.
func plain(line string) string {
	line = escapes.ReplaceAllString(strings.ToValidUTF8(line, "�"), "")
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, line))
}

// readLines calls each for every line of r, without its end, until r ends. A
// line ends at \n or \r; of one longer than limit bytes the rest is dropped and
// whole is false.
func readLines(r io.Reader, limit int, each func(line string, whole bool)) {
	b := bufio.NewReaderSize(r, 4<<10)
	line := make([]byte, 0, 256)
	whole := true
	for {
		c, err := b.ReadByte()
		switch {
		case err != nil || c == '\n' || c == '\r':
			if len(line) > 0 {
				each(string(line), whole)
			}
			line, whole = line[:0], true
			if err != nil { // also a closed pipe, and a terminal without a program
				return
			}
		case len(line) < limit:
			line = append(line, c)
		default:
			whole = false
		}
	}
}
