package guestapi

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestDeliveryHash(t *testing.T) {
	a, b := File{Name: "a", Content: []byte("one")}, File{Name: "b", Content: []byte("two")}
	want := DeliveryHash([]File{a, b})
	if len(want) != 64 || DeliveryHash([]File{b, a}) != want {
		t.Error("the order of files must not matter")
	}
	for name, files := range map[string][]File{
		"nothing":          nil,
		"one missing":      {a},
		"other content":    {a, {Name: "b", Content: []byte("three")}},
		"other name":       {a, {Name: "c", Content: []byte("two")}},
		"moved boundary":   {{Name: "ao", Content: []byte("ne")}, b},
		"swapped contents": {{Name: "a", Content: []byte("two")}, {Name: "b", Content: []byte("one")}},
	} {
		if DeliveryHash(files) == want {
			t.Errorf("%s: the same hash", name)
		}
	}
}

func TestFileDoesNotPrintItsContent(t *testing.T) {
	f := File{Name: "creds", Content: []byte("topsecret")}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("file", "file", f, "files", []File{f})
	printed := log.String() + fmt.Sprintf("%v %+v %#v %s", f, &f, []File{f}, Credentials{Files: []File{f}})
	if strings.Contains(printed, "topsecret") || strings.Contains(printed, fmt.Sprint([]byte("top"))[1:8]) {
		t.Errorf("printed: %s", printed)
	}
}
