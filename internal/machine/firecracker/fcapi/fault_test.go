package fcapi

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzFault(f *testing.F) {
	for _, s := range []string{"", `{"fault_message":"a"}`, `{"fault_message":1}`, "a\nb", strings.Repeat("\xff", 600)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got := fault(body)
		if got == "" || len(got) > maxFault || strings.ContainsAny(got, "\r\n\t") {
			t.Errorf("%q becomes %q", body, got)
		}
		if utf8.Valid(body) && !utf8.ValidString(got) {
			t.Errorf("%q is cut within a character: %q", body, got)
		}
	})
}
