package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
)

// errObject says that a seed cannot be merged into what is there.
var errObject = errors.New("it is not one JSON object")

// MaxSeeded limits what a file may hold that a seed is merged into: the tools
// keep histories in such files.
const MaxSeeded = 16 << 20

// Merge returns what a file at s.Path is to hold that holds have now. Where seed
// and file are JSON objects, what only the seed has is added at the same place,
// and every other byte stays; a file with nothing in it gets the seed, and where
// the seed is no JSON object, have is all. differ are JSON pointers to what is
// there with another value than the seed's. An error says that have is no JSON
// object.
func (s Seed) Merge(have []byte) (merged []byte, differ []string, err error) {
	seed := object([]byte(s.Content))
	switch {
	case len(bytes.TrimSpace(have)) == 0:
		return []byte(s.Content), nil, nil
	case seed == nil:
		return have, nil, nil
	case object(have) == nil:
		return nil, nil, errObject
	}
	text := bytes.TrimSpace(have)
	before, after, _ := bytes.Cut(have, text)
	if text, err = mergeObject(text, seed, "", &differ); err != nil {
		return nil, nil, err
	}
	return slices.Concat(before, text, after), differ, nil
}

// object reads the members of a JSON object; nil if text is none.
func object(text []byte) map[string]json.RawMessage {
	var out map[string]json.RawMessage
	if err := json.Unmarshal(text, &out); err != nil {
		return nil
	}
	return out
}

// mergeObject adds to the text of an object what of seed it lacks, in front of
// its own members.
func mergeObject(text []byte, seed map[string]json.RawMessage, at string, differ *[]string) ([]byte, error) {
	values, space, err := members(text)
	if err != nil {
		return nil, err
	}
	var added bytes.Buffer
	for _, key := range sortedKeys(seed) {
		pointer := at + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
		old, there := values[key]
		if !there {
			name, err := json.Marshal(key)
			if err != nil {
				return nil, err
			}
			added.WriteString(space + string(name) + ":" + string(seed[key]) + ",")
			continue
		}
		below := object(seed[key])
		if below == nil || object(old.text) == nil {
			if !same(seed[key], old.text) {
				*differ = append(*differ, pointer)
			}
			continue
		}
		inner, err := mergeObject(old.text, below, pointer, differ)
		if err != nil {
			return nil, err
		}
		// What comes before and after it moves by as much as it has grown.
		grown := len(inner) - len(old.text)
		text = slices.Concat(text[:old.from], inner, text[old.from+len(old.text):])
		for k, v := range values {
			if v.from > old.from {
				v.from += grown
				values[k] = v
			}
		}
	}
	insert := added.Bytes()
	if len(values) == 0 {
		insert = bytes.TrimSuffix(insert, []byte(","))
	}
	return slices.Concat([]byte("{"), insert, text[1:]), nil
}

// member is the value of an object's member, and where in its text it begins.
type member struct {
	text []byte
	from int
}

// members finds the values in the text of an object, which begins with its
// bracket. Of two with one name the last counts, as it does for the tools. space
// is what is between the bracket and the first name.
func members(text []byte) (values map[string]member, space string, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if _, err := d.Token(); err != nil {
		return nil, "", errObject
	}
	values = make(map[string]member)
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, "", errObject
		}
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			return nil, "", errObject
		}
		values[name] = member{v, int(d.InputOffset()) - len(v)}
	}
	if first := bytes.IndexByte(text, '"'); len(values) > 0 && first > 0 {
		space = string(text[1:first])
	}
	return values, space, nil
}

// same says whether two JSON values are equal.
func same(a, b []byte) bool {
	va, errA := parseJSON(a, 2*maxDepth)
	vb, errB := parseJSON(b, 2*maxDepth)
	return errA == nil && errB == nil && reflect.DeepEqual(va, vb)
}
