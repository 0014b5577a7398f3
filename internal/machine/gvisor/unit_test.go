//go:build linux

package gvisor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	const file = "/state/machines/abcdefgh/runsc.log"
	for args, want := range map[string]bool{
		"runsc --root /state/runsc --log " + file + " run abcdefgh":          true,
		"runsc-sandbox --root=/state/runsc --log=" + file + " boot abcdefgh": true,
		"runsc --log=" + file + "x run":                                      false,
		"tail -f " + file:                                                    false,
		file:                                                                 false,
		"":                                                                   false,
	} {
		var split [][]byte
		for a := range strings.FieldsSeq(args) {
			split = append(split, []byte(a))
		}
		if names(split, file) != want {
			t.Errorf("%q: %v, want %v", args, !want, want)
		}
	}
}

func TestLastError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "runsc.log")
	if got := lastError(file, " on stderr\n"); got != "on stderr" {
		t.Errorf("without a log: %q", got)
	}
	log := `{"level":"info","msg":"begin"}` + "\n" + `{"level":"error","msg":"first"}` + "\n" + `{"level":"fatal","msg":"last"}` + "\n" + `{"level":"info","msg":"end"}` + "\n{cut"
	if err := os.WriteFile(file, []byte(log), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastError(file, "on stderr"); got != "last" {
		t.Errorf("%q", got)
	}
}
