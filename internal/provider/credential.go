package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Limits on a credential file.
const (
	MaxCredentialBytes = 64 << 10
	maxDepth           = 16
)

// CheckFile holds the content of a credential file to its schema. A JSON file
// must be one UTF-8 JSON value of at most MaxCredentialBytes, at most 16 levels
// deep, without an object that has a key twice, with every NonEmpty pointer
// leading to something and every Types pointer to its type. Errors wrap
// ErrCredential and never hold any of the content.
func CheckFile(c Credential, content []byte) error {
	if len(content) == 0 || len(content) > MaxCredentialBytes {
		return fmt.Errorf("%w: %s: must have 1 to %d bytes, has %d", ErrCredential, c.Name, MaxCredentialBytes, len(content))
	}
	if c.Format == "opaque" {
		return nil
	}
	root, err := parseJSON(content, maxDepth)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrCredential, c.Name, err)
	}
	for _, p := range c.NonEmpty {
		v, err := lookup(root, p)
		if err != nil || empty(v) {
			return fmt.Errorf("%w: %s: %s is missing or empty", ErrCredential, c.Name, p)
		}
	}
	for _, p := range sortedKeys(c.Types) {
		v, err := lookup(root, p)
		if err == nil && v != nil && typeOf(v) != c.Types[p] {
			return fmt.Errorf("%w: %s: %s must be of type %s", ErrCredential, c.Name, p, c.Types[p])
		}
	}
	return nil
}

// Faults of JSON that CheckFile and the values refuse.
var (
	errJSON      = errors.New("not one valid JSON value")
	errUTF8      = errors.New("not valid UTF-8")
	errDepth     = errors.New("nested too deeply")
	errDuplicate = errors.New("an object has a key twice")
)

// parseJSON is a strict JSON parser. Objects become map[string]any, arrays
// []any, numbers json.Number.
func parseJSON(content []byte, depth int) (any, error) {
	if !utf8.Valid(content) {
		return nil, errUTF8
	}
	if !json.Valid(content) {
		return nil, errJSON
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.UseNumber()
	v, err := parseValue(d, depth)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errJSON
	}
	return v, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, errJSON
	}
	delim, ok := t.(json.Delim)
	if !ok {
		return t, nil
	}
	if depth--; depth < 0 {
		return nil, errDepth
	}
	var out any
	if delim == '{' {
		out, err = parseObject(d, depth)
	} else {
		out, err = parseArray(d, depth)
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != nil { // the closing bracket
		return nil, errJSON
	}
	return out, nil
}

func parseObject(d *json.Decoder, depth int) (map[string]any, error) {
	out := make(map[string]any)
	for d.More() {
		k, err := d.Token()
		key, ok := k.(string)
		if err != nil || !ok {
			return nil, errJSON
		}
		if _, twice := out[key]; twice {
			return nil, errDuplicate
		}
		if out[key], err = parseValue(d, depth); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func parseArray(d *json.Decoder, depth int) ([]any, error) {
	out := []any{}
	for d.More() {
		v, err := parseValue(d, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// CheckPointer says whether p is a JSON pointer (RFC 6901).
func CheckPointer(p string) error {
	_, err := splitPointer(p)
	return err
}

// splitPointer splits a JSON pointer (RFC 6901) into its unescaped parts.
func splitPointer(p string) ([]string, error) {
	if p == "" {
		return nil, nil
	}
	if p[0] != '/' {
		return nil, ErrNoValue
	}
	parts := strings.Split(p[1:], "/")
	for i, s := range parts {
		for rest := s; ; {
			_, after, found := strings.Cut(rest, "~")
			if !found {
				break
			}
			if after == "" || after[0] != '0' && after[0] != '1' {
				return nil, ErrNoValue
			}
			rest = after
		}
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
	}
	return parts, nil
}

// lookup follows a JSON pointer; ErrNoValue if it leads nowhere.
func lookup(v any, pointer string) (any, error) {
	parts, err := splitPointer(pointer)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		switch t := v.(type) {
		case map[string]any:
			next, ok := t[p]
			if !ok {
				return nil, ErrNoValue
			}
			v = next
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i < 0 || i >= len(t) || strconv.Itoa(i) != p {
				return nil, ErrNoValue
			}
			v = t[i]
		default:
			return nil, ErrNoValue
		}
	}
	return v, nil
}

// empty says whether v is null, "", false, a number that is not above zero, or
// an array or object without content.
func empty(v any) bool {
	switch t := v.(type) {
	case string:
		return t == ""
	case json.Number:
		n, err := t.Float64()
		return err != nil || n <= 0
	case bool:
		return !t
	case []any:
		return len(t) == 0
	case map[string]any:
		return len(t) == 0
	}
	return true
}

func typeOf(v any) string {
	switch v.(type) {
	case string:
		return "string"
	case json.Number:
		return "number"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "null"
}
