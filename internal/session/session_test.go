package session

import (
	"errors"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestCanMove holds every pair of states against the list of allowed moves,
// written out a second time.
func TestCanMove(t *testing.T) {
	allowed := map[string]bool{}
	for _, move := range strings.Fields(`
		requested>starting requested>failed requested>expired requested>cancelled
		starting>waiting starting>failed starting>expired starting>cancelled
		waiting>capturing waiting>failed waiting>expired waiting>cancelled
		capturing>storing capturing>failed capturing>expired capturing>cancelled
		storing>delivering storing>failed storing>expired storing>cancelled
		delivering>completed delivering>failed delivering>expired delivering>cancelled`) {
		allowed[move] = true
	}
	states := append(States(), "", "unknown")
	for _, from := range states {
		for _, to := range states {
			if got, want := CanMove(from, to), allowed[string(from)+">"+string(to)]; got != want {
				t.Errorf("CanMove(%q, %q) is %t", from, to, got)
			}
		}
	}
}

func TestStates(t *testing.T) {
	final := []State{Completed, Failed, Expired, Cancelled}
	for _, s := range States() {
		if !s.Valid() {
			t.Errorf("%s is not valid", s)
		}
		if s.Final() != slices.Contains(final, s) {
			t.Errorf("%s: Final is %t", s, s.Final())
		}
		if s.Final() != (len(moves[s]) == 0) {
			t.Errorf("%s: Final is %t, moves lead to %v", s, s.Final(), moves[s])
		}
	}
	for _, s := range []State{"", "Waiting", "unknown"} {
		if s.Valid() || s.Final() {
			t.Errorf("%q is a state", s)
		}
	}
	for from, list := range moves {
		for _, s := range append(slices.Clone(list), from) {
			if !slices.Contains(States(), s) {
				t.Errorf("the table of moves names %q", s)
			}
		}
	}
}

// TestReasons finds every Reason constant in the source: one that was
// forgotten in the table of sentences would speak of an internal error.
func TestReasons(t *testing.T) {
	source, err := os.ReadFile("session.go")
	if err != nil {
		t.Fatal(err)
	}
	var declared []Reason
	for line := range strings.Lines(string(source)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "Reason" && fields[2] == "=" {
			code, err := strconv.Unquote(fields[3])
			if err != nil {
				t.Fatal(err)
			}
			declared = append(declared, Reason(code))
		}
	}
	if len(declared) < 10 {
		t.Fatalf("found %d reasons in the source", len(declared))
	}
	got := Reasons()
	slices.Sort(declared)
	slices.Sort(got)
	if !slices.Equal(declared, got) {
		t.Errorf("reasons are\n%v, declared\n%v", got, declared)
	}
	seen := map[string]Reason{}
	for _, r := range got {
		s := r.Sentence()
		if !strings.HasSuffix(s, ".") || len(s) < 20 || strings.ToUpper(s[:1]) != s[:1] {
			t.Errorf("%s: %q is not a sentence", r, s)
		}
		if other, ok := seen[s]; ok {
			t.Errorf("%s and %s say the same", r, other)
		}
		seen[s] = r
		if strings.Trim(string(r), "abcdefghijklmnopqrstuvwxyz_") != "" || len(r) > 40 {
			t.Errorf("%q is not a code", r)
		}
	}
	if Reason("unknown").Sentence() != ReasonInternal.Sentence() {
		t.Error("an unknown reason has a sentence of its own")
	}
}

func TestNewID(t *testing.T) {
	seen := map[ID]bool{}
	used := map[rune]bool{}
	for range 1000 {
		id := NewID()
		if err := id.Validate(); err != nil || seen[id] {
			t.Fatalf("%q: %v, seen before: %t", id, err, seen[id])
		}
		seen[id] = true
		for _, c := range id {
			used[c] = true
		}
	}
	if len(used) != len(idAlphabet) {
		t.Errorf("ids use %d characters of %d", len(used), len(idAlphabet))
	}
}

func TestValidate(t *testing.T) {
	good := ID(strings.Repeat("a7", 10))
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, id := range []ID{"", good[:19], good + "a", "A" + good[1:], "1" + good[1:], "8" + good[1:], "/" + good[1:], "\x00" + good[1:], "é" + good[2:], "`" + good[1:], "{" + good[1:]} {
		if err := id.Validate(); !errors.Is(err, ErrID) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestConflictError(t *testing.T) {
	for want, err := range map[string]*ConflictError{
		"cannot move from waiting to capturing: it is cancelled":         {From: Waiting, To: Capturing, Actual: Cancelled},
		"cannot move from waiting to capturing: another server holds it": {From: Waiting, To: Capturing, Actual: Waiting},
		"no move leads from completed to waiting":                        {From: Completed, To: Waiting},
		"another server holds it":                                        {From: Waiting, Actual: Waiting},
		"session x: it is failed":                                        {From: Failed, Actual: Failed},
	} {
		err.ID = "x"
		if !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q, want %q", err, want)
		}
		if !errors.Is(err, ErrConflict) || errors.Is(err, ErrID) {
			t.Errorf("%q is not just a conflict", err)
		}
	}
}

func TestImports(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		files++
		f, err := parser.ParseFile(token.NewFileSet(), e.Name(), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range f.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if first, _, _ := strings.Cut(path, "/"); strings.Contains(first, ".") || first == "C" {
				t.Errorf("%s imports %s: the domain imports the standard library only", e.Name(), path)
			}
		}
	}
	if files == 0 {
		t.Error("no files found")
	}
}
