package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFileBytes limits one provider file, maxNesting the depth of its brackets
// and indentation: the parser recurses.
const (
	maxFileBytes = 64 << 10
	maxNesting   = 32
)

// Parse reads one provider file and holds it to every rule. name is what
// errors call the file. Each error is a *FileError; a file with several faults
// gets the first.
func Parse(name string, content []byte) (*File, error) {
	f, _, err := parse(name, content)
	return f, err
}

func parse(name string, content []byte) (*File, *ast.File, error) {
	tree, err := parseTree(name, content)
	if err != nil {
		return nil, nil, err
	}
	var f File
	if err := yaml.NewDecoder(bytes.NewReader(content), yaml.Strict()).Decode(&f); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, nil, &FileError{File: name, Line: 1, Reason: "the file is empty"}
		}
		return nil, nil, syntaxError(name, err)
	}
	if p := f.check(); p != nil {
		return nil, nil, &FileError{File: name, Line: lineOf(tree, p.field), Field: p.field, Reason: p.reason}
	}
	return &f, tree, nil
}

// parseTree parses content far enough to know that it is one plain document:
// no anchors, aliases, merge keys or tags, which can make a small file large.
func parseTree(name string, content []byte) (*ast.File, error) {
	refuse := func(line int, reason string) (*ast.File, error) {
		return nil, &FileError{File: name, Line: line, Reason: reason}
	}
	if len(content) > maxFileBytes {
		return refuse(0, fmt.Sprintf("the file is larger than %d bytes", maxFileBytes))
	}
	if line := tooDeep(content); line > 0 {
		return refuse(line, fmt.Sprintf("nested deeper than %d levels", maxNesting))
	}
	tree, err := parser.ParseBytes(content, 0)
	if err != nil {
		return nil, syntaxError(name, err)
	}
	docs := 0
	for _, d := range tree.Docs {
		if d.Body == nil {
			continue
		}
		if docs++; docs > 1 {
			return refuse(line(d.Body), "more than one YAML document in the file")
		}
		var v plainVisitor
		ast.Walk(&v, d.Body)
		if v.bad != nil {
			return refuse(line(v.bad), "anchors, aliases, merge keys and tags are not allowed")
		}
	}
	if docs == 0 {
		return refuse(1, "the file is empty")
	}
	return tree, nil
}

// tooDeep returns the first line that is nested too deeply, or 0. It counts
// brackets and dashes also where they are text: a provider file has neither in
// such numbers.
func tooDeep(content []byte) int {
	brackets := 0
	for i, l := range bytes.Split(content, []byte("\n")) {
		text := bytes.TrimLeft(l, " -?\t")
		if bytes.Count(l[:len(l)-len(text)], []byte("-")) > maxNesting ||
			bytes.Count(l[:len(l)-len(text)], []byte("?")) > maxNesting ||
			len(l)-len(text) > 8*maxNesting {
			return i + 1
		}
		for _, c := range text {
			switch c {
			case '[', '{':
				if brackets++; brackets > maxNesting {
					return i + 1
				}
			case ']', '}':
				brackets = max(0, brackets-1)
			}
		}
	}
	return 0
}

// plainVisitor finds the first node that is not plain data.
type plainVisitor struct{ bad ast.Node }

func (v *plainVisitor) Visit(n ast.Node) ast.Visitor {
	switch n.Type() {
	case ast.AnchorType, ast.AliasType, ast.MergeKeyType, ast.TagType, ast.DirectiveType:
		if v.bad == nil {
			v.bad = n
		}
	}
	if v.bad != nil {
		return nil
	}
	return v
}

// syntaxError makes a FileError of what the YAML library says, without the
// part of the file that it shows.
func syntaxError(name string, err error) *FileError {
	e := &FileError{File: name, Reason: firstLine(err.Error())}
	var ye yaml.Error
	if errors.As(err, &ye) {
		e.Reason = firstLine(ye.GetMessage())
		if t := ye.GetToken(); t != nil && t.Position != nil {
			e.Line = t.Position.Line
		}
	}
	return e
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// lineOf returns the line of the field, or of the nearest part around it that
// is in the file.
func lineOf(tree *ast.File, field string) int {
	for field != "" {
		if p, err := yaml.PathString("$." + field); err == nil {
			if n, err := p.FilterFile(tree); err == nil && n != nil {
				return line(n)
			}
		}
		cut := strings.LastIndexAny(field, ".[")
		if cut < 0 {
			break
		}
		field = field[:cut]
	}
	return 1
}

func line(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 0
}
