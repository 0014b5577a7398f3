package provider

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"unicode/utf8"
)

func TestSeedMerge(t *testing.T) {
	const seed = `{"security":{"auth":{"selectedType":"oauth-personal"}}}` + "\n"
	for _, tt := range []struct {
		name, seed, have, want string
		differ                 []string
	}{
		{"nothing", seed, "", seed, nil},
		{"white space", seed, " \n", seed, nil},
		{"an empty object", seed, "{}\n", `{"security":{"auth":{"selectedType":"oauth-personal"}}}` + "\n", nil},
		{"an object with space in it", seed, "{ }", `{"security":{"auth":{"selectedType":"oauth-personal"}} }`, nil},
		{"other members", seed, "{\n  \"ui\": {\"theme\": \"x\"}, \"n\": 1.50e3\n}\n", "{\n  \"security\":{\"auth\":{\"selectedType\":\"oauth-personal\"}},\n  \"ui\": {\"theme\": \"x\"}, \"n\": 1.50e3\n}\n", nil},
		{"part of it", seed, ` {"a":1,"security": { "auth":{"x":[]} ,"y":null}, "b":2} `, ` {"a":1,"security": { "auth":{"selectedType":"oauth-personal","x":[]} ,"y":null}, "b":2} `, nil},
		{"all of it", seed, `{"security":{"auth":{"selectedType":"oauth-personal","z":1}}}`, `{"security":{"auth":{"selectedType":"oauth-personal","z":1}}}`, nil},
		{"another value", seed, `{"security":{"auth":{"selectedType":"gemini-api-key"}}}`, `{"security":{"auth":{"selectedType":"gemini-api-key"}}}`, []string{"/security/auth/selectedType"}},
		{"another type", seed, `{"security":null}`, `{"security":null}`, []string{"/security"}},
		{"twice, where the last counts", seed, `{"security":{"auth":{"selectedType":"oauth-personal"}},"security":{}}`, `{"security":{"auth":{"selectedType":"oauth-personal"}},"security":{"auth":{"selectedType":"oauth-personal"}}}`, nil},
		{"a name written otherwise", `{"é":1}`, `{"\u00e9":1}`, `{"\u00e9":1}`, nil},
		{"two places", `{"a":{"x":1},"b":{"y":2},"c":3}`, `{"b":{},"a":{"z":0}}`, `{"c":3,"b":{"y":2},"a":{"x":1,"z":0}}`, nil},
		{"a name with a slash", `{"a/b":{"~":1}}`, `{"a/b":{"~":2}}`, `{"a/b":{"~":2}}`, []string{"/a~1b/~0"}},
		{"a text", "export A=1\n", "export B=2\n", "export B=2\n", nil},
		{"a text, to nothing", "export A=1\n", "", "export A=1\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, differ, err := Seed{Content: tt.seed}.Merge([]byte(tt.have))
			if err != nil || string(got) != tt.want || !slices.Equal(differ, tt.differ) {
				t.Errorf("%q, %q, %v; want %q, %q", got, differ, err, tt.want, tt.differ)
			}
			again, _, err := Seed{Content: tt.seed}.Merge(got)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("and again: %q, %v", again, err)
			}
		})
	}
	for _, have := range []string{"[]", "null", "{", `{"a":1} // mine`, `{"a":1}{}`, "nonsense"} {
		if got, _, err := (Seed{Content: seed}).Merge([]byte(have)); !errors.Is(err, errObject) {
			t.Errorf("%s: %q, %v", have, got, err)
		}
	}
}

func FuzzSeedMerge(f *testing.F) {
	f.Add(`{"a":{"b":1}}`, `{"a":{"c":2},"a":{}}`)
	f.Add(`{"a":"x"}`, ` { "b" : [ {} , 1e9 ] } `)
	f.Fuzz(func(t *testing.T, seed, have string) {
		if !utf8.ValidString(seed) {
			return // no provider file has such a seed
		}
		got, differ, err := Seed{Content: seed}.Merge([]byte(have))
		if err != nil || len(bytes.TrimSpace([]byte(have))) == 0 {
			return
		}
		if object([]byte(seed)) == nil {
			if string(got) != have {
				t.Fatalf("a text was merged: %q", got)
			}
			return
		}
		var before, after map[string]any
		if json.Unmarshal([]byte(have), &before) != nil || json.Unmarshal(got, &after) != nil {
			t.Fatalf("%q became %q", have, got)
		}
		for k := range before {
			if _, there := after[k]; !there {
				t.Fatalf("%q was lost: %q became %q", k, have, got)
			}
		}
		again, differs, err := Seed{Content: seed}.Merge(got)
		if err != nil || !bytes.Equal(again, got) || !slices.Equal(differs, differ) {
			t.Fatalf("merged again, %q is %q, %v", got, again, err)
		}
	})
}
