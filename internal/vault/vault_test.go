package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/anteroom/anteroom/internal/store"
)

var update = flag.Bool("update", false, "write testdata/vector.json anew; only for a new format")

func newVault(t *testing.T) *Vault {
	t.Helper()
	v, err := Open(Config{KeyPath: filepath.Join(t.TempDir(), "root.key"), Create: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func binding() Binding {
	return Binding{UserID: "user1", Provider: "claude", CredentialID: "cred1", Version: 3}
}

func testFiles() []File {
	return []File{
		{Name: "credentials.json", Content: []byte(`{"accessToken":"secret-token"}`)},
		{Name: "empty", Content: []byte{}},
		{Name: "large", Content: bytes.Repeat([]byte{0, 255}, MaxFileBytes/2)},
	}
}

func sameFiles(a, b []File) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Name != b[i].Name || !bytes.Equal(a[i].Content, b[i].Content) {
			return false
		}
	}
	return true
}

func TestSealOpen(t *testing.T) {
	v := newVault(t)
	s, err := v.Seal(binding(), testFiles())
	if err != nil {
		t.Fatal(err)
	}
	if s.Schema != schema || s.KEKID == "" || s.SHA256 != sha256.Sum256(s.Ciphertext) || bytes.Contains(s.Ciphertext, []byte("secret-token")) {
		t.Fatalf("sealed: schema %d, kek %q", s.Schema, s.KEKID)
	}
	files, err := v.Open(binding(), s)
	if err != nil || !sameFiles(files, testFiles()) {
		t.Fatalf("opened %v, %v", files, err)
	}
	again, err := v.Seal(binding(), testFiles())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(again.WrappedDEK, s.WrappedDEK) || bytes.Equal(again.Ciphertext[12:40], s.Ciphertext[12:40]) {
		t.Error("two versions have the same data key or ciphertext")
	}
}

// TestFIPS: the same under a runtime that refuses what FIPS 140-3 does not
// approve, such as nonces of the caller's choice.
func TestFIPS(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^(TestSealOpen|TestVector|TestRotate)$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Count(out, []byte("--- PASS")) != 3 {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestSealRefuses(t *testing.T) {
	v := newVault(t)
	file := func(name string, size int) File { return File{Name: name, Content: make([]byte, size)} }
	many := make([]File, MaxFiles+1)
	for i := range many {
		many[i] = file(fmt.Sprint("f", i), 1)
	}
	for name, files := range map[string][]File{
		"no file":      nil,
		"too many":     many,
		"too large":    {file("a", MaxFileBytes+1)},
		"twice":        {file("a", 1), file("a", 1)},
		"no name":      {file("", 1)},
		"a path":       {file("../a", 1)},
		"upper case":   {file("A", 1)},
		"a long name":  {file(strings.Repeat("a", 65), 1)},
		"a control":    {file("a\n", 1)},
		"not ASCII":    {file("é", 1)},
		"one of three": {file("a", 1), file("b", MaxFileBytes+1), file("c", 1)},
	} {
		if _, err := v.Seal(binding(), files); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Seal(binding(), many[:MaxFiles]); err != nil {
		t.Error(err)
	}
	for name, b := range map[string]Binding{
		"no user": {"", "p", "c", 1}, "no provider": {"u", "", "c", 1}, "no id": {"u", "p", "", 1}, "version 0": {"u", "p", "c", 0}, "negative": {"u", "p", "c", -1},
	} {
		if _, err := v.Seal(b, testFiles()); !errors.Is(err, ErrInvalid) {
			t.Errorf("seal, %s: %v", name, err)
		}
		if _, err := v.Open(b, store.Sealed{}); !errors.Is(err, ErrInvalid) {
			t.Errorf("open, %s: %v", name, err)
		}
	}
}

func TestOtherBinding(t *testing.T) {
	v := newVault(t)
	s, err := v.Seal(binding(), testFiles())
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]Binding{
		"user":                 {"user2", "claude", "cred1", 3},
		"provider":             {"user1", "codex", "cred1", 3},
		"credential":           {"user1", "claude", "cred2", 3},
		"version":              {"user1", "claude", "cred1", 4},
		"a letter moved right": {"user", "1claude", "cred1", 3},
		"a letter moved left":  {"user1c", "laude", "cred1", 3},
		"swapped":              {"claude", "user1", "cred1", 3},
		"a zero byte":          {"user1\x00", "claude", "cred1", 3},
	} {
		if _, err := v.Open(b, s); !errors.Is(err, ErrSealed) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestAAD: no two of these have the same additional data, and each field is
// in it twice: in the wrap's and in the payload's.
func TestAAD(t *testing.T) {
	seen := map[string]string{}
	for _, b := range []Binding{binding(), {"u", "p", "c", 1}, {"up", "", "c", 1}, {"", "up", "c", 1}, {"u", "p", "c", 256}, {"u", "pc", "", 1}} {
		for _, aad := range [][]byte{b.aad(domainWrap, "k"), b.aad(domainWrap, "l"), b.aad(domainPayload), b.aad(domainWrap), b.aad(domainWrap, "")} {
			if other, ok := seen[string(aad)]; ok {
				t.Errorf("%+v and %s have the same additional data", b, other)
			}
			seen[string(aad)] = fmt.Sprintf("%+v", b)
		}
	}
	if len(seen) != 30 {
		t.Errorf("%d of 30", len(seen))
	}
}

func TestTamper(t *testing.T) {
	v := newVault(t)
	good, err := v.Seal(binding(), []File{{Name: "a", Content: []byte("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	other, err := v.Seal(binding(), []File{{Name: "a", Content: []byte("other.")}})
	if err != nil {
		t.Fatal(err)
	}
	// The digest is made to match: it must not be what the check rests on.
	opens := func(s store.Sealed, matching bool) error {
		if matching {
			s.SHA256 = sha256.Sum256(s.Ciphertext)
		}
		_, err := v.Open(binding(), s)
		return err
	}
	mutations := func(b []byte) [][]byte {
		var out [][]byte
		for i := range b {
			flipped := bytes.Clone(b)
			flipped[i] ^= 1 << (i % 8)
			out = append(out, flipped, b[:i], b[i+1:])
		}
		return append(out, append(bytes.Clone(b), 0), append([]byte{0}, b...))
	}
	for i, m := range mutations(good.Ciphertext) {
		s := good
		s.Ciphertext = m
		for _, matching := range []bool{true, false} {
			if err := opens(s, matching); !errors.Is(err, ErrSealed) {
				t.Fatalf("ciphertext, mutation %d: %v", i, err)
			}
		}
	}
	for i, m := range mutations(good.WrappedDEK) {
		s := good
		s.WrappedDEK = m
		if err := opens(s, true); !errors.Is(err, ErrSealed) {
			t.Fatalf("wrapped key, mutation %d: %v", i, err)
		}
	}
	for name, change := range map[string]func(*store.Sealed){
		"digest":            func(s *store.Sealed) { s.SHA256[31] ^= 1 },
		"schema 0":          func(s *store.Sealed) { s.Schema = 0 },
		"schema 2":          func(s *store.Sealed) { s.Schema = 2 },
		"another's wrap":    func(s *store.Sealed) { s.WrappedDEK = other.WrappedDEK },
		"another's payload": func(s *store.Sealed) { s.Ciphertext, s.SHA256 = other.Ciphertext, other.SHA256 },
		"exchanged":         func(s *store.Sealed) { s.WrappedDEK, s.Ciphertext = s.Ciphertext, s.WrappedDEK },
		"nothing":           func(s *store.Sealed) { *s = store.Sealed{Schema: schema, KEKID: s.KEKID, SHA256: sha256.Sum256(nil)} },
		"too large":         func(s *store.Sealed) { s.Ciphertext = make([]byte, maxContainer+overhead+1) },
	} {
		s := good
		change(&s)
		if err := opens(s, name != "digest"); !errors.Is(err, ErrSealed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := good
	s.KEKID = "another"
	if err := opens(s, true); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("another root key: %v", err)
	}
	if err := opens(good, false); err != nil {
		t.Errorf("what was not touched: %v", err)
	}
}

// TestKEKIDIsBound: the same secret under another id does not unwrap, so the
// id in the row is what the data was wrapped under.
func TestKEKIDIsBound(t *testing.T) {
	k := newRootKey(time.Now())
	b := binding()
	wrapped, err := encrypt(k.secret[:], make([]byte, keySize), b.aad(domainWrap, k.id))
	if err != nil {
		t.Fatal(err)
	}
	s := store.Sealed{Schema: schema, KEKID: k.id, WrappedDEK: wrapped}
	if _, err := (keyring{k}).unwrap(b, s); err != nil {
		t.Fatal(err)
	}
	k.id, s.KEKID = "other", "other"
	if _, err := (keyring{k}).unwrap(b, s); !errors.Is(err, ErrSealed) {
		t.Fatalf("under another id: %v", err)
	}
}

type vector struct {
	KeyFile string
	Binding Binding
	Sealed  store.Sealed
	Files   map[string]string
}

// TestVector: what an earlier version of this program sealed still opens.
func TestVector(t *testing.T) {
	const name = "testdata/vector.json"
	if *update {
		writeVector(t, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var vec vector
	if err := json.Unmarshal(text, &vec); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, []byte(vec.KeyFile), 0o400); err != nil {
		t.Fatal(err)
	}
	v, err := Open(Config{KeyPath: path})
	if err != nil {
		t.Fatal(err)
	}
	files, err := v.Open(vec.Binding, vec.Sealed)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(vec.Files) || len(files) == 0 {
		t.Fatalf("%d files, want %d", len(files), len(vec.Files))
	}
	for _, f := range files {
		if string(f.Content) != vec.Files[f.Name] {
			t.Errorf("%s is %q", f.Name, f.Content)
		}
	}
}

func writeVector(t *testing.T, name string) {
	t.Helper()
	keys := keyring{{created: time.Unix(0, 0).UTC()}, {created: time.Unix(0, 0).UTC()}}
	for i := range keys {
		for j := range keys[i].secret {
			keys[i].secret[j] = byte(i*keySize + j)
		}
		keys[i].id = keyID(keys[i].secret)
	}
	path := filepath.Join(t.TempDir(), "root.key")
	if err := os.WriteFile(path, keys[1:].format(), 0o400); err != nil { // sealed with what is the older key later
		t.Fatal(err)
	}
	vec := vector{KeyFile: string(keys.format()), Binding: binding(), Files: map[string]string{"auth.json": "{\"token\":\"not a secret\"}", "empty": ""}}
	var err error
	vec.Sealed, err = (&Vault{path: path}).Seal(vec.Binding, []File{{"auth.json", []byte(vec.Files["auth.json"])}, {"empty", nil}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(vec, "", "  ")
	if err == nil {
		err = os.WriteFile(name, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestRedaction(t *testing.T) {
	const secret = "secret-token"
	f := File{Name: "auth.json", Content: []byte(secret)}
	key := newRootKey(time.Now())
	copy(key.secret[:], secret)
	var logged bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("x", "file", f, "files", []File{f}, "pointer", &f, "key", key, "keys", keyring{key})
	out := logged.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b"} {
		out += fmt.Sprintf(strings.Repeat(verb+" ", 8), f, &f, []File{f}, struct{ F File }{f}, key, &key, keyring{key}, map[string]rootKey{"k": key})
	}
	for _, v := range []any{f, &f, []File{f}, map[string]File{"f": f}, key, keyring{key}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out += string(text)
	}
	for name, form := range map[string]string{
		"plain": secret, "hex": fmt.Sprintf("%x", secret), "HEX": fmt.Sprintf("%X", secret), "decimal": "115 101 99", "base64": "c2VjcmV0", "go": "0x73, 0x65",
	} {
		if strings.Contains(out, form) {
			t.Errorf("the secret is shown (%s)", name)
		}
	}
	if !strings.Contains(out, "auth.json (12 bytes, redacted)") {
		t.Errorf("nothing is said of the file: %s", out)
	}
}

const hardenEnv = "ANTEROOM_TEST_HARDEN"

func TestHarden(t *testing.T) {
	if os.Getenv(hardenEnv) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHarden$", "-test.v")
		cmd.Env = append(os.Environ(), hardenEnv+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if before, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || before != 1 {
		t.Fatalf("dumpable is %d before (%v): the test shows nothing", before, err)
	}
	if err := Harden(); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil || limit != (unix.Rlimit{}) {
		t.Errorf("core limit is %+v (%v)", limit, err)
	}
	if after, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || after != 0 {
		t.Errorf("dumpable is %d (%v)", after, err)
	}
}
