package settings

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on a file: the parser recurses.
const (
	maxFileBytes = 256 << 10
	maxNesting   = 16
)

// readFile takes settings from a YAML file, without touching those that come
// from the command line.
func (s *Settings) readFile(name string) error {
	content, err := readLimited(name)
	if err != nil {
		return refuse("config: %v", err)
	}
	return s.readYAML(name, content)
}

func (s *Settings) readYAML(name string, content []byte) error {
	if line := tooDeep(content); line > 0 {
		return refuse("%s:%d: nested deeper than %d levels", name, line, maxNesting)
	}
	tree, err := parser.ParseBytes(content, 0)
	if err != nil {
		line, reason := syntax(err)
		return refuse("%s:%d: %s", name, line, reason)
	}
	bodies := slices.DeleteFunc(slices.Clone(tree.Docs), func(d *ast.DocumentNode) bool { return d.Body == nil })
	if len(bodies) == 0 {
		return nil // nothing but comments
	}
	if len(bodies) > 1 {
		return refuse("%s:%d: more than one YAML document in the file", name, line(bodies[1].Body))
	}
	return s.readMapping(name, "", bodies[0].Body)
}

// readMapping reads the settings of the mapping at prefix.
func (s *Settings) readMapping(name, prefix string, n ast.Node) error {
	var pairs []*ast.MappingValueNode
	switch t := n.(type) {
	case *ast.MappingNode:
		pairs = t.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{t}
	default:
		what := "the file"
		if prefix != "" {
			what = strings.TrimSuffix(prefix, ".")
		}
		return refuse("%s:%d: %s must be a mapping, lines of \"key: value\"; allowed keys: %s", name, line(n), what, s.keys(prefix))
	}
	for _, p := range pairs {
		if err := s.readPair(name, prefix, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Settings) readPair(name, prefix string, p *ast.MappingValueNode) error {
	key := prefix + p.Key.GetToken().Value
	i := slices.IndexFunc(s.table, func(e *setting) bool { return e.key() == key })
	if i < 0 {
		group := slices.ContainsFunc(s.table, func(e *setting) bool { return e.group == key })
		if _, plain := p.Key.(*ast.StringNode); plain && group && prefix == "" {
			return s.readMapping(name, key+".", p.Value)
		}
		return refuse("%s:%d: unknown key %q; allowed keys: %s", name, line(p.Key), key, s.keys(prefix))
	}
	e := s.table[i]
	if e.from > fromFile {
		// Not used, but held to the rules all the same.
		e = slices.Clone(New().table)[i]
	}
	if err := e.setNode(p.Value); err != nil {
		return refuse("%s:%d: %s: %v", name, line(p.Value), key, err)
	}
	e.from = fromFile
	return nil
}

// keys lists the keys that are allowed at prefix.
func (s *Settings) keys(prefix string) string {
	var out []string
	for _, e := range s.table {
		key, ok := strings.CutPrefix(e.key(), prefix)
		if !ok {
			continue
		}
		key, _, _ = strings.Cut(key, ".")
		if !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// setNode gives a setting the value of a node of the right type.
func (e *setting) setNode(n ast.Node) error {
	wrong := func(want string) error { return fmt.Errorf("must be %s", want) }
	switch e.value.Type() {
	case "bool":
		if b, ok := n.(*ast.BoolNode); ok {
			return e.value.Set(b.String())
		}
		return wrong("true or false")
	case "integer", "number":
		_, isInt := n.(*ast.IntegerNode)
		_, isFloat := n.(*ast.FloatNode)
		if isInt || isFloat && e.value.Type() == "number" {
			return e.value.Set(n.GetToken().Value)
		}
		return wrong("a number")
	case "size":
		if i, ok := n.(*ast.IntegerNode); ok {
			return e.value.Set(i.GetToken().Value)
		}
		if t, ok := scalarText(n); ok {
			return e.value.Set(t)
		}
		return wrong("a size, such as 1.5GiB")
	case "list":
		return e.setList(n)
	default:
		if t, ok := scalarText(n); ok {
			return e.value.Set(t)
		}
		if e.value.Type() == "duration" {
			return wrong("a length of time, such as 30m")
		}
		return wrong("text (in quotes if it looks like a number)")
	}
}

func (e *setting) setList(n ast.Node) error {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return errors.New("must be a list, such as [a, b]")
	}
	items := make([]string, 0, len(seq.Values))
	for _, v := range seq.Values {
		t, ok := scalarText(v)
		if !ok || t == "" {
			return errors.New("each item of the list must be text (in quotes if it looks like a number)")
		}
		items = append(items, t)
	}
	e.value.(interface{ setAll([]string) }).setAll(items) //nolint:errcheck // checked by the caller
	return nil
}

// scalarText returns the text of a plain, quoted or block string.
func scalarText(n ast.Node) (string, bool) {
	switch t := n.(type) {
	case *ast.StringNode:
		return t.Value, true
	case *ast.LiteralNode:
		return t.Value.Value, true
	}
	return "", false
}

// tooDeep returns the first line that is nested too deeply, or 0.
func tooDeep(content []byte) int {
	brackets := 0
	for i, l := range bytes.Split(content, []byte("\n")) {
		text := bytes.TrimLeft(l, " -?\t")
		if len(l)-len(text) > 4*maxNesting {
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

// syntax tells what the YAML library says, without the part of the file that
// it shows: that may hold a password.
func syntax(err error) (line int, reason string) {
	reason = err.Error()
	var ye yaml.Error
	if errors.As(err, &ye) {
		reason = ye.GetMessage()
		line = lineOf(ye.GetToken())
	}
	reason, _, _ = strings.Cut(reason, "\n")
	return line, reason
}

func line(n ast.Node) int { return lineOf(n.GetToken()) }

func lineOf(t *token.Token) int {
	if t == nil || t.Position == nil {
		return 0
	}
	return t.Position.Line
}

func readLimited(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(content) > maxFileBytes {
		err = fmt.Errorf("%s is larger than %d bytes", name, maxFileBytes)
	}
	return content, err
}
