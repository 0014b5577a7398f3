package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/anteroom/anteroom/internal/store"
)

func TestInspect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "anteroom.db")
	if _, err := Inspect(t.Context(), path); err == nil {
		t.Error("there is nothing to inspect")
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("inspecting has made the file: %v", err)
	}
	db, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(t.Context(), path) // while it is in use
	if err != nil || in.Schema != in.Known || in.Known < 1 || in.Sealed != 0 {
		t.Errorf("%+v, %v", in, err)
	}
	if _, err := db.writer.Exec("PRAGMA user_version=9999"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if in, err = Inspect(t.Context(), path); !errors.Is(err, store.ErrNewerSchema) || in.Schema != 9999 {
		t.Errorf("%+v, %v", in, err)
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(before) {
		t.Errorf("inspecting has changed the file: %v", err)
	}
	if err := os.WriteFile(path, []byte("not a database at all, but some text that is long enough to be read as a header of one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), path); err == nil {
		t.Error("a text passed for a database")
	}
}
