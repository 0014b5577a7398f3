package store

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	for _, test := range []struct {
		in    string
		limit int
		want  string
	}{
		{"", 10, ""},
		{"plain", 5, "plain"},
		{"plainer", 5, "pl…"},
		{"ééé", 6, "ééé"},
		{"éééé", 6, "é…"},
		{"a\x00b\x00", 10, "ab"},
		{"a\xff\xfeb", 10, "a\uFFFDb"},
		{"日本語", 8, "日…"},
		{strings.Repeat("\x00", 100), 3, ""},
		{strings.Repeat("é", 1000), 4, "…"},
	} {
		if got := Clip(test.in, test.limit); got != test.want {
			t.Errorf("Clip(%q, %d) is %q, want %q", test.in, test.limit, got, test.want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("é\x00\xff日本", 7)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		limit = 3 + limit&0xff // room for the mark
		got := Clip(s, limit)
		if len(got) > limit || !utf8.ValidString(got) || strings.Contains(got, "\x00") {
			t.Fatalf("Clip(%q, %d) is %q", s, limit, got)
		}
		if again := Clip(got, limit); again != got {
			t.Fatalf("not stable: %q, then %q", got, again)
		}
	})
}
