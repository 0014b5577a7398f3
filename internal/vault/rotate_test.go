package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anteroom/anteroom/internal/session"
	"github.com/anteroom/anteroom/internal/store"
	"github.com/anteroom/anteroom/internal/store/sqlite"
)

// stage is a vault, a real store, and versions sealed and committed, each the
// active one of a tool of its own.
type stage struct {
	t     *testing.T
	vault *Vault
	db    *sqlite.DB
	user  store.User
	ids   []string
}

func newStage(t *testing.T, versions int) *stage {
	t.Helper()
	db, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "anteroom.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &stage{t: t, vault: newVault(t), db: db}
	if s.user, err = db.CreateUser(t.Context(), "u"); err != nil {
		t.Fatal(err)
	}
	for range versions {
		if err := s.commit(s.vault); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// begin seals the next version of a tool's, for a session that waits for it.
func (s *stage) begin(v *Vault, tool string) (session.Session, store.Credential, error) {
	ctx := s.t.Context()
	c := store.Credential{ID: string(session.NewID()), UserID: s.user.ID, Provider: tool}
	is, _, err := s.db.CreateSession(ctx, session.Session{UserID: s.user.ID, Provider: tool}, "")
	for _, to := range []session.State{session.Starting, session.Waiting, session.Capturing, session.Storing} {
		if err == nil {
			is, err = s.db.Move(ctx, is.ID, is.State, to, "", store.Change{}, "")
		}
	}
	if err == nil {
		c.Version, err = s.db.NextVersion(ctx, s.user.ID, tool)
	}
	if err == nil {
		c.Sealed, err = v.Seal(BindingOf(c), content(c))
	}
	return is, c, err
}

func (s *stage) commit(v *Vault) error {
	is, c, err := s.begin(v, newTool())
	if err != nil {
		return err
	}
	_, _, err = s.db.CommitCredential(s.t.Context(), is.ID, "", c, "")
	s.ids = append(s.ids, c.ID)
	return err
}

// newTool is the name of a tool that nothing is stored of yet.
func newTool() string { return string(session.NewID()) }

func content(c store.Credential) []File {
	return []File{{"auth.json", fmt.Appendf(nil, "token of %s, version %d", c.Provider, c.Version)}}
}

// check opens every version and tells by how many root keys they are wrapped.
func (s *stage) check() (keks int) {
	s.t.Helper()
	seen := map[string]bool{}
	for _, id := range s.ids {
		c, err := s.db.Credential(s.t.Context(), id)
		if err != nil {
			s.t.Fatal(err)
		}
		files, err := s.vault.Open(BindingOf(c), c.Sealed)
		if err != nil || !sameFiles(files, content(c)) {
			s.t.Fatalf("version %d: %v", c.Version, err)
		}
		seen[c.Sealed.KEKID] = true
	}
	if _, err := s.db.VerifyAudit(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return len(seen)
}

func (s *stage) keys() int {
	s.t.Helper()
	keys, err := readKeys(s.vault.path)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(keys)
}

func TestRotate(t *testing.T) {
	s := newStage(t, 5)
	before, err := os.ReadFile(s.vault.path)
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.vault.Rotate(t.Context(), s.db)
	if err != nil || n != 5 {
		t.Fatalf("rotated %d, %v", n, err)
	}
	if keks, keys := s.check(), s.keys(); keks != 1 || keys != 1 {
		t.Fatalf("%d root keys in rows, %d in the file", keks, keys)
	}
	after, err := os.ReadFile(s.vault.path)
	if err != nil || string(after[:60]) == string(before[:60]) {
		t.Fatalf("the key is the same: %v", err)
	}
	// The old key is of no use any more.
	old := &Vault{path: filepath.Join(t.TempDir(), "old.key")}
	if err := os.WriteFile(old.path, before, 0o400); err != nil {
		t.Fatal(err)
	}
	c, err := s.db.Credential(t.Context(), s.ids[0])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Open(BindingOf(c), c.Sealed); !errors.Is(err, ErrUnknownKey) {
		t.Fatalf("with the old key: %v", err)
	}
	onlyKeyAndLock(t, filepath.Dir(s.vault.path))
}

func TestRotateManyAndNone(t *testing.T) {
	empty := newStage(t, 0)
	if n, err := empty.vault.Rotate(t.Context(), empty.db); err != nil || n != 0 || empty.keys() != 1 {
		t.Fatalf("rotated %d, %v", n, err)
	}
	s := newStage(t, rotateBatch+10)
	if n, err := s.vault.Rotate(t.Context(), s.db); err != nil || n != rotateBatch+10 || s.check() != 1 {
		t.Fatalf("rotated %d, %v", n, err)
	}
}

// failing is a store whose calls fail from the n-th change on, as for a
// process that is killed there.
type failing struct {
	*sqlite.DB
	left int
}

var errKilled = errors.New("killed")

func (f *failing) step() error {
	if f.left--; f.left < 0 {
		return errKilled
	}
	return nil
}

func (f *failing) Rewrap(ctx context.Context, id, oldKEK, newKEK string, wrapped []byte) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.DB.Rewrap(ctx, id, oldKEK, newKEK, wrapped)
}

func (f *failing) RetireKEK(ctx context.Context, id string) error {
	if err := f.step(); err != nil {
		return err
	}
	return f.DB.RetireKEK(ctx, id)
}

// TestRotateKilled stops a rotation of three versions before each of its four
// changes; everything opens in between, and the next rotation ends it.
func TestRotateKilled(t *testing.T) {
	for left := range 4 {
		s := newStage(t, 3)
		n, err := s.vault.Rotate(t.Context(), &failing{s.db, left})
		if !errors.Is(err, errKilled) || n != left {
			t.Fatalf("killed at %d: rotated %d, %v", left, n, err)
		}
		if keys := s.keys(); keys != 2 {
			t.Fatalf("killed at %d: %d keys in the file", left, keys)
		}
		s.check()
		if err := s.commit(s.vault); err != nil { // sealing goes on, with the new key
			t.Fatal(err)
		}
		n, err = s.vault.Rotate(t.Context(), s.db)
		if err != nil || n != 3-left {
			t.Fatalf("resumed after %d: rotated %d, %v", left, n, err)
		}
		if keks, keys := s.check(), s.keys(); keks != 1 || keys != 1 {
			t.Fatalf("resumed after %d: %d root keys in rows, %d in the file", left, keks, keys)
		}
	}
}

// TestRotateKilledBeforeDrop: the store has retired the key, the file still
// holds it.
func TestRotateKilledBeforeDrop(t *testing.T) {
	s := newStage(t, 1)
	blocked := filepath.Join(tempPath(s.vault.path), "x") // a directory that is not empty
	_, err := s.vault.Rotate(t.Context(), &hooked{DB: s.db, retired: func() {
		if err := os.MkdirAll(blocked, 0o700); err != nil {
			t.Error(err)
		}
	}})
	if err == nil || s.keys() != 2 {
		t.Fatalf("the file was written: %v", err)
	}
	s.check()
	if err := os.RemoveAll(tempPath(s.vault.path)); err != nil {
		t.Fatal(err)
	}
	if n, err := s.vault.Rotate(t.Context(), s.db); err != nil || n != 0 || s.keys() != 1 {
		t.Fatalf("resumed: %d, %v", n, err)
	}
	s.check()
}

// hooked is a store that lets something happen around the retirement.
type hooked struct {
	*sqlite.DB
	retiring, retired func()
}

func (h *hooked) RetireKEK(ctx context.Context, id string) error {
	if h.retiring != nil {
		h.retiring()
		h.retiring = nil
	}
	err := h.DB.RetireKEK(ctx, id)
	if h.retired != nil {
		h.retired()
	}
	return err
}

// TestRotateWhileSealing: a server that sealed with the old key just before
// the rotation commits in its middle, or too late; nothing is ever stored that
// does not open.
func TestRotateWhileSealing(t *testing.T) {
	s := newStage(t, 2)
	early, earlySealed, err := s.begin(s.vault, newTool())
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.vault.Rotate(t.Context(), &hooked{DB: s.db, retiring: func() {
		if _, _, err := s.db.CommitCredential(t.Context(), early.ID, "", earlySealed, ""); err != nil {
			t.Error(err)
		}
		s.ids = append(s.ids, earlySealed.ID)
	}})
	if err != nil || n != 3 || s.check() != 1 || s.keys() != 1 {
		t.Fatalf("rotated %d, %v", n, err)
	}

	late, lateSealed, err := s.begin(s.vault, newTool())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.vault.Rotate(t.Context(), s.db); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.db.CommitCredential(t.Context(), late.ID, "", lateSealed, ""); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("committed under a key that is gone: %v", err)
	}
	if lateSealed.Sealed, err = s.vault.Seal(BindingOf(lateSealed), content(lateSealed)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.db.CommitCredential(t.Context(), late.ID, "", lateSealed, ""); err != nil {
		t.Fatal(err)
	}
	s.ids = append(s.ids, lateSealed.ID)
	s.check()
}

// TestRotateWithDamage: what does not open stays, is named, and keeps its key.
func TestRotateWithDamage(t *testing.T) {
	s := newStage(t, 3)
	c, err := s.db.Credential(t.Context(), s.ids[1])
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte{c.Sealed.WrappedDEK[0] ^ 1}, c.Sealed.WrappedDEK[1:]...)
	if err := s.db.Rewrap(t.Context(), c.ID, c.Sealed.KEKID, c.Sealed.KEKID, damaged); err != nil {
		t.Fatal(err)
	}
	other := newStage(t, 0)
	other.db, other.user = s.db, s.user
	if err := other.commit(other.vault); err != nil { // sealed with another server's key
		t.Fatal(err)
	}
	for _, want := range []int{2, 0} {
		n, err := s.vault.Rotate(t.Context(), s.db)
		if n != want || !errors.Is(err, ErrSealed) || !errors.Is(err, ErrUnknownKey) ||
			!strings.Contains(err.Error(), c.ID) || !strings.Contains(err.Error(), other.ids[0]) {
			t.Fatalf("rotated %d, %v", n, err)
		}
	}
	if s.keys() != 2 {
		t.Fatal("the key of the damaged version is gone")
	}
	s.ids = []string{s.ids[0], s.ids[2]}
	if s.check() != 1 {
		t.Fatal("the others were not rotated")
	}
}

// TestRotateReplaced: a version that a newer one has replaced has nothing to
// wrap and holds no key back, also where it is replaced in the middle.
func TestRotateReplaced(t *testing.T) {
	s := newStage(t, 1)
	first, err := s.db.Credential(t.Context(), s.ids[0])
	if err != nil {
		t.Fatal(err)
	}
	replace := func() {
		is, c, err := s.begin(s.vault, first.Provider)
		if err == nil {
			_, _, err = s.db.CommitCredential(t.Context(), is.ID, "", c, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		s.ids = []string{c.ID}
	}
	replace()
	if n, err := s.vault.Rotate(t.Context(), s.db); err != nil || n != 1 || s.check() != 1 || s.keys() != 1 {
		t.Fatalf("rotated %d, %v", n, err)
	}
	n, err := s.vault.Rotate(t.Context(), &replacing{DB: s.db, before: replace})
	if err != nil || n != 0 || s.check() != 1 || s.keys() != 1 {
		t.Fatalf("replaced meanwhile: rotated %d, %v", n, err)
	}
}

// replacing is a store in which something happens before a version is wrapped.
type replacing struct {
	*sqlite.DB
	before func()
}

func (r *replacing) Rewrap(ctx context.Context, id, oldKEK, newKEK string, wrapped []byte) error {
	r.before()
	return r.DB.Rewrap(ctx, id, oldKEK, newKEK, wrapped)
}

func TestRotateTogether(t *testing.T) {
	s := newStage(t, 1)
	_, err := s.vault.Rotate(t.Context(), &hooked{DB: s.db, retiring: func() {
		if _, err := s.vault.Rotate(t.Context(), s.db); !errors.Is(err, ErrBusy) {
			t.Errorf("a second rotation: %v", err)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.check()
}
